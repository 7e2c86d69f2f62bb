"""Which trial comes next: those of the search, then the controls, then the finalists over fresh seeds."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from json import dumps
from typing import Any

from stkd.orchestrator.phases import (
    GOES_ON_WITH,
    Planned,
    confirmations,
    controls,
    drawn,
    name_of,
    phase_of,
    role_of,
    values_of,
)
from stkd.orchestrator.results import Phase, Role, TaskResults, Values
from stkd.orchestrator.study import Study
from stkd.search_spaces.schema import Space

Announce = Callable[[Phase, int], None]
"""Hears of a phase that begins, and of how many trials it has."""


class Agenda:
    """Hands out the trials of a task, phase after phase, all to the same processes.

    What a phase consists of is known when the one before has ended. A search that learns asks the study for its next
    trial; all other trials are lists. After an interruption what has ended is not handed out again, and what had begun
    goes on where it was: a trial with another name for Tune, and with its own everywhere else.
    """

    def __init__(
        self, space: Space, study: Study | None, results: Callable[[], TaskResults], announce: Announce
    ) -> None:
        self.study = study
        self._space, self._results, self._announce = space, results, announce
        self._phases: list[Phase] = ["search", "control", "confirm"]
        self._left: list[Planned] | None = None
        """Of the present phase; None until it begins."""
        self._running: dict[str, str] = {}
        """What the results call the trials that were handed out."""
        self._interrupted = [trial for trial in results().trials.values() if trial.status == "running"]

    @property
    def running(self) -> int:
        """How many trials were handed out and have not ended."""
        return len(self._running)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to hand out, or to wait for."""
        return not self._phases and not self._running

    def next(self, trial: str) -> dict[str, Any] | None:
        """The configuration of a new trial; None while others must end first, and when all is over."""
        while self._phases:
            config = self._of_phase(self._phases[0], trial)
            if config is not None:
                config |= self._going_on(config)
                self._running[trial] = name_of(trial, config)
                return config
            if self._running:
                return None
            self._phases.pop(0)
            self._left = None
        return None

    def ended(self, trial: str) -> None:
        """A trial has come to its end, whatever it was."""
        self._running.pop(trial, None)

    def is_complete(self) -> bool:
        """Whether every trial of every phase has ended, by the results alone."""
        if self._ended("search") < self._space.trial_count and not (self.study and self.study.exhausted):
            return False
        later: tuple[Phase, ...] = ("control", "confirm")
        return not any(self._without_ended(phase, self._planned(phase)) for phase in later)

    def nothing_left_to_try(self) -> int | None:
        """How many trials the search has had, if it ended before its last one."""
        ended = self._ended("search")
        return ended if self.study and self.study.exhausted and ended < self._space.trial_count else None

    def _ended(self, phase: Phase) -> int:
        return sum(trial.status != "running" for trial in self._results().of_phase(phase))

    def _of_phase(self, phase: Phase, trial: str) -> dict[str, Any] | None:
        if self._left is None:
            planned = self._planned(phase)
            self._left = self._without_ended(phase, planned)
            count = self._space.trial_count if phase == "search" else len(planned)
            if count:
                self._announce(phase, count)
        if phase == "search" and self.study:
            return self._ask(self.study, trial)
        return self._left.pop(0).as_config() if self._left else None

    def _ask(self, study: Study, trial: str) -> dict[str, Any] | None:
        """What the study wants tried; after that, trials that were killed between its line and that of the results."""
        settings = study.ask(trial) if study.handed_out < self._space.trial_count else None
        if settings is not None:
            return dict(settings)
        return next((dict(lost.values) for lost in self._interrupted if lost.phase == "search"), None)

    def _going_on(self, config: Mapping[str, Any]) -> dict[str, str]:
        """With which interrupted trial this one goes on, if it repeats one."""
        wanted = (phase_of(config), role_of(config), values_of(config, self._space))
        for trial in self._interrupted:
            if (trial.phase, trial.role, trial.values) == wanted:
                self._interrupted.remove(trial)
                return {GOES_ON_WITH: trial.trial}
        return {}

    def _planned(self, phase: Phase) -> list[Planned]:
        match phase:
            case "search":
                return [] if self.study else drawn(self._space)
            case "control":
                return controls(self._space, self._results()) if self._space.controls else []
            case "confirm":
                return confirmations(self._space, self._results())

    def _without_ended(self, phase: Phase, every: Iterable[Planned]) -> list[Planned]:
        """Of the phase's trials, those that have not ended."""
        trials = self._results().of_phase(phase)
        ended = Counter(_key(trial.role, trial.values) for trial in trials if trial.status != "running")
        left = []
        for planned in every:
            key = _key(planned.role, planned.values)
            if ended[key]:
                ended[key] -= 1
            else:
                left.append(planned)
        return left


def _key(role: Role, values: Values) -> str:
    return dumps([role, dict(values)], sort_keys=True)
