"""How long a task's trials will still take, by what those before them took."""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import accumulate
from math import log

from stkd.orchestrator.phases import controls
from stkd.orchestrator.results import Phase, TaskResults, TrialResult
from stkd.search_spaces.schema import Space

PRIOR = 2.0
"""Before any trial has come to a rung, the scheduler's intention counts as much as so many trials."""
HALF = 0.5
"""Of the epoch that a trial is in, so much is over in the mean."""


def rungs(space: Space) -> list[int]:
    """The epochs after which weak trials of the search are stopped."""
    rules = space.trials.scheduler
    if rules is None:
        return []
    grace, factor, longest = rules.asha.grace_period, rules.asha.reduction_factor, space.longest_training
    count = int(log(longest / grace) / log(factor)) + 1
    return [rung for rung in (round(grace * factor**step) for step in range(count)) if rung < longest]


class TimeLeft:
    """Epochs that are left, by the share of trials that have ended after each epoch; and what an epoch takes."""

    def __init__(self, space: Space) -> None:
        self._space, self._longest = space, space.longest_training
        self._rungs = rungs(space)

    def seconds_left(self, known: Mapping[str, TrialResult], phase: Phase, announced: int, places: int) -> float | None:
        """Seconds until the last trial of the last phase has ended; None before the first epoch has.

        `known` are all trials with what they have come to, the present phase has `announced` ones, and `places` of them
        run at a time.
        """
        pace = seconds_per_epoch(known.values())
        if pace is None:
            return None
        here = [trial for trial in known.values() if trial.phase == phase]
        whole = self._whole(known.values())
        lengths = self._lengths(here) if phase == "search" else self._lengths_of_whole(whole)
        left = [max(0.0, lengths[trial.epochs] - HALF) for trial in here if trial.status == "running"]
        left += [lengths[0]] * max(0, announced - len(here))
        epochs = _side_by_side(left, places)
        for _, count in self.later(known, phase):
            epochs += _side_by_side([whole] * count, places)
        return epochs * pace

    def later(self, known: Mapping[str, TrialResult], phase: Phase) -> list[tuple[Phase, int]]:
        """How many trials the phases after this one will have: as of now, where that depends on what comes out."""
        counts: list[tuple[Phase, int]] = []
        planned = controls(self._space, TaskResults("", trials=dict(known))) if self._space.controls else []
        if phase == "search" and planned:
            counts.append(("control", len(planned)))
        if phase != "confirm" and self._space.confirm is not None:
            roles = len({control.role for control in planned})
            counts.append(("confirm", (self._space.confirm.top + roles) * self._space.confirm.seeds))
        return counts

    def _lengths(self, here: Collection[TrialResult]) -> list[float]:
        """How many more epochs a trial of the search will have, by those it has had."""
        ended = Counter(trial.epochs for trial in here if trial.status != "running")
        stays = []
        for epochs in range(self._longest):
            reached = ended[epochs] + sum(trial.epochs > epochs for trial in here)
            stays.append(1 - self._share(epochs, ended[epochs], reached))
        begun = [1 + _chain(stays[epochs + 1 :]) for epochs in range(1, self._longest)]
        return [_chain(stays), *begun, 0.0]

    def _lengths_of_whole(self, whole: float) -> list[float]:
        return [max(1.0, whole - epochs) for epochs in range(self._longest)] + [0.0]

    def _share(self, epochs: int, ended: int, reached: int) -> float:
        """Of the trials that come so far, those that end there."""
        rules = self._space.trials.scheduler
        intended = 1 - 1 / rules.asha.reduction_factor if rules and epochs in self._rungs else 0.0
        return (ended + PRIOR * intended) / (reached + PRIOR)

    def _whole(self, known: Collection[TrialResult]) -> float:
        """Epochs of a trial that nobody stops: its patience may end it."""
        lengths = [trial.epochs for trial in known if trial.status == "finished"]
        return sum(lengths) / len(lengths) if lengths else self._longest


def seconds_per_epoch(trials: Collection[TrialResult]) -> float | None:
    """What an epoch takes in the mean, with all that a trial does beside; None before one has ended."""
    epochs = sum(trial.epochs for trial in trials)
    return sum(trial.seconds for trial in trials) / epochs if epochs else None


def _chain(stays: list[float]) -> float:
    return sum(accumulate(stays, lambda before, stay: before * stay))


def _side_by_side(left: Collection[float], places: int) -> float:
    """Epochs one after the other, where so many trials run at a time."""
    return max(sum(left) / max(1, places), max(left, default=0.0))
