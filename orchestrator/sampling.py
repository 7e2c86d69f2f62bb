"""Where a study's samplers are asked: shown enough of what was tried, and never more than that."""

from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from stkd.search_spaces.distributions import Value

STARTUP = 5
"""Trials whose settings are drawn by chance, before there is something to learn from: sweeps are short."""
SCORED = (TrialState.COMPLETE, TrialState.PRUNED)
WINDOW, BEST = 250, 25
"""Samplers are shown so many trials, and up to as many again that are newer, since asking takes longer the more there
are. Among them are the best: Optuna takes a tenth of all for good, and never more of them than these.
"""


class Guided(TPESampler):  # type: ignore[misc]
    """Learns from what was tried.

    What runs, or was asked for in vain, counts as bad (`constant_liar`), so that trials side by side spread. Keys are
    drawn together (`multivariate`): lambda, for one, means the less the less is removed. Which keys there are is known,
    where Optuna would look through all trials for those that they have in common.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)
        self._known = {key: found for key, found in sorted(distributions.items()) if not found.single()}

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._known


class View:
    """The study's trials in memory, where samplers are asked: what is only asked for leaves no trace on disk.

    It is kept up to date trial by trial: copying them all for each question takes longer than the answer. What was
    asked for runs here, until it is forgotten.
    """

    def __init__(self, trials: Sequence[FrozenTrial], distributions: Mapping[str, BaseDistribution]) -> None:
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, direction="maximize")
        self._distributions = dict(distributions)
        self._ids: dict[int, int] = {}
        self._asked: list[optuna.Trial] = []
        # as when these were all: a study resumed goes on as it would have
        self._older = len(trials) // WINDOW * WINDOW
        for trial in (*instructive(trials[: self._older]), *trials[self._older :]):
            self.add(trial.number, trial)

    def is_outgrown(self, count: int) -> bool:
        """Whether it is to be made anew now that there are so many trials."""
        return count - self._older >= WINDOW

    def add(self, number: int, trial: FrozenTrial) -> None:
        """Take a trial of the study, as it is."""
        self._ids[number] = self._storage.create_new_trial(self._study._study_id, trial)

    def report(self, number: int, epoch: int, score: float) -> None:
        """A running trial has a score."""
        self._storage.set_trial_intermediate_value(self._ids[number], epoch, score)

    def tell(self, number: int, score: float | None, state: TrialState) -> None:
        """A running trial has ended."""
        self._study.tell(self._storage.get_trial(self._ids[number]).number, score, state)

    def ask(self, sampler: BaseSampler) -> dict[str, Value]:
        """What the sampler would try next."""
        self._study.sampler = sampler
        self._asked.append(self._study.ask(self._distributions))
        return dict(self._asked[-1].params)

    def forget(self, count: int | None = None) -> None:
        """Count what was asked for last, so many times or always, as failed, which samplers leave out."""
        for _ in range(len(self._asked) if count is None else count):
            self._study.tell(self._asked.pop(), state=TrialState.FAIL)


def instructive(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Of many trials those that run, the best that ended, and of the other ones so many that it is `WINDOW` of them.

    These are spread evenly over the course of the study, so that where it has looked is still to be seen.
    """
    running = [trial for trial in trials if not trial.state.is_finished()]
    scored = sorted((trial for trial in trials if trial.state in SCORED), key=_rank)
    if len(scored) <= WINDOW:
        return sorted([*running, *scored], key=_number)
    best, others = scored[:BEST], sorted(scored[BEST:], key=_number)
    spread = np.linspace(0, len(others) - 1, WINDOW - BEST).round().astype(int)
    return sorted([*running, *best, *(others[place] for place in spread)], key=_number)


def _number(trial: FrozenTrial) -> int:
    return int(trial.number)


def _rank(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Optuna's order: what was stopped early comes after what was not, by how far it came."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None, "it is complete"
        return False, 0, -trial.value
    last = trial.last_step
    return True, -(last or 0), 0.0 if last is None else -trial.intermediate_values[last]
