"""Where a sweep speaks to people, and where to machines."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rich.console import Console
from typing_extensions import override

from stkd.orchestrator.display import Display
from stkd.orchestrator.events import Observer
from stkd.orchestrator.json_lines import JsonLines
from stkd.orchestrator.json_observer import JsonObserver
from stkd.orchestrator.live import Region, View
from stkd.orchestrator.progress import Progress
from stkd.orchestrator.results import Session, TrialResult
from stkd.search_spaces.schema import Space


@dataclass(frozen=True)
class Screen:
    """`console` hears how it goes, `results` what came out, and `errors` what went wrong; `lines` are for machines.

    With `lines`, stdout is theirs, and everything for people goes to stderr.
    """

    console: Console
    results: Console
    errors: Console
    lines: JsonLines | None = None

    @classmethod
    def of(cls, quiet: bool = False, lines: JsonLines | None = None) -> "Screen":
        """The screen of this process; a quiet one shows nothing before the end but what goes wrong."""
        results, errors = console_for_people(lines is not None), Console(stderr=True)
        return cls(Console(quiet=True) if quiet else results, results, errors, lines)

    def observers(
        self, space: Space, task: str, known: Mapping[str, TrialResult], held: Callable[[], Session]
    ) -> list[Observer]:
        """Those who tell of one task, of which these trials are known; `held` says what devices were held for."""
        machines = [JsonObserver(self.lines, task)] if self.lines is not None else []
        people = [Alarms(self.errors)] if self.console.quiet else people_watching(self.console, space, known, held)
        return [*machines, *people]


def console_for_people(machines: bool = False) -> Console:
    """Standard output as it is now, wherever it is led to later; standard error where the other is for machines."""
    return Console(stderr=True) if machines else Console(file=sys.stdout)


def people_watching(
    console: Console,
    space: Space,
    known: Mapping[str, TrialResult] = MappingProxyType({}),
    held: Callable[[], Session] | None = None,
) -> list[Observer]:
    """Those who show one task to people: line by line, and live where the console can."""
    progress = Progress(space, known)
    view = View(progress, held)
    region = (lambda: Region(console, view)) if can_draw(console) else None
    return [progress, Display(console, progress, region)]


def can_draw(console: Console) -> bool:
    """Whether lines can be drawn over: not in a file, nor on a terminal that knows no cursor or no such letters."""
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal and _has_blocks(console)


def _has_blocks(console: Console) -> bool:
    return console.encoding.lower().replace("-", "").startswith("utf")


class Alarms(Observer):
    """Tells what goes wrong, and how the sweep stops."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        if trial.status == "failed":
            self._say(f"{trial.name} failed: {trial.reason}")

    @override
    def warned(self, text: str) -> None:
        self._say(text)

    @override
    def interrupted(self, running: int, at_once: bool) -> None:
        self._say("stopping at once" if at_once else "stopping when these epochs are over; Ctrl-C again stops at once")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
