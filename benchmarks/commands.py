"""How soon the command line answers: against a Python that does nothing."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from measuring import Goal, Row, Settings, in_turns, seconds
from places import STKD, workplace

NOTHING = (sys.executable, "-c", "pass")
COMMANDS = (
    ("stkd --help", ["--help"], Goal("under", 0.5)),
    ("stkd sweep --dry-run", ["sweep", "--space", "quickstart", "--dry-run"], Goal("under", 3)),
)
"""What is measured, and what it is to reach."""


def rows(settings: Settings) -> Iterator[Row]:
    """A row for the help, and one for what a sweep would do."""
    with workplace() as folder:
        for what, arguments, goal in COMMANDS:
            ours = partial(_seconds, [*STKD, *arguments], folder)
            measured = in_turns({"ours": ours, "theirs": partial(_seconds, NOTHING, folder)}, settings.times(7))
            yield Row("commands", what, "python -c pass", "s", measured["ours"], measured["theirs"], [goal])


def _seconds(command: Sequence[str], folder: Path) -> float:
    return seconds(lambda: _run(command, folder))


def _run(command: Sequence[str], folder: Path) -> None:
    """Run a command; raises where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
