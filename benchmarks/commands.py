"""How soon the command line answers: against a Python that does nothing."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from measuring import Goal, Row, Settings, in_turns, seconds
from places import STKD, workplace

NOTHING = (sys.executable, "-c", "pass")
UNWRITABLE = "/proc/stkd"
"""No folder can be made there; it is the last thing that a sweep checks before it begins."""
EXIT_USER = 2


def rows(settings: Settings) -> Iterator[Row]:
    """A row for the help, and one for the checks of a sweep."""
    with workplace() as folder:
        for what, command, code, goal in _commands(folder):
            sides = {"ours": partial(_seconds, command, folder, code), "theirs": partial(_seconds, NOTHING, folder)}
            measured = in_turns(sides, settings.times(7))
            yield Row("commands", what, "python -c pass", "s", measured["ours"], measured["theirs"], [goal])


def _commands(folder: Path) -> Iterator[tuple[str, Sequence[str], int, Goal]]:
    """What is measured, its command and exit code, and what it is to reach."""
    yield "stkd --help", [*STKD, "--help"], 0, Goal("under", 0.5)
    sweep, goal = [*STKD, "sweep", "--space", "quickstart"], Goal("under", 3)
    if "--dry-run" in _output([*STKD, "sweep", "--help"], folder):
        yield "stkd sweep --dry-run", [*sweep, "--dry-run"], 0, goal
    else:
        yield "stkd sweep, all its checks", [*sweep, "--storage", UNWRITABLE], EXIT_USER, goal


def _seconds(command: Sequence[str], folder: Path, code: int = 0) -> float:
    return seconds(lambda: _output(command, folder, code))


def _output(command: Sequence[str], folder: Path, code: int = 0) -> str:
    """What a command prints; raises where it ends with another exit code."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode} instead of {code}: {done.stderr}")
    return done.stdout
