"""What several seeds say: means, intervals, and whether the students of sparse teachers beat those of the dense one.

A difference is paired: over seeds, since the same seed gives both students the same order of data, and over the
examples of the test split, which both have answered. Its interval covers both kinds of chance, so that a student which
happens to suit these few hundred examples, at every seed alike, does not pass for a better one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf, sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from stkd.orchestrator.phases import SEED, SPARSITY
from stkd.orchestrator.results import (
    Confirmed,
    Evidence,
    Interval,
    Role,
    TaskResults,
    TrialResult,
    Values,
    describe,
    describe_as,
)

CONFIDENCE = 0.95
RESAMPLES = 400
"""Bootstrap samples of the test examples: they give a standard error to about 4 % of itself."""

Array = NDArray[Any]
Score = Callable[[Array, Array], float]
"""The task's score from logits (examples, C) and labels (examples,)."""


def interval(mean: float, error: float, seeds: int) -> Interval:
    """Student's t interval for a standard error known from so many seeds; a single one leaves it open."""
    reach = error * float(stdtrit(seeds - 1, 0.5 + CONFIDENCE / 2)) if seeds > 1 else inf
    return Interval(mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class Contender:
    """A kind of student, trained over several seeds: its settings but for the seed, and its trials by seed."""

    role: Role
    values: Values
    trials: Mapping[int, TrialResult]

    @property
    def name(self) -> str:
        """What it is for, and its settings as one reads them."""
        return describe_as(self.role, self.values)

    @property
    def is_sparse(self) -> bool:
        """Whether its teacher has lost units by the search's own choice."""
        return self.role == "candidate" and bool(self.values.get(SPARSITY))

    @property
    def learns_from_dense(self) -> bool:
        """Whether its teacher is the dense one."""
        return self.role == "dense teacher" or (self.role == "candidate" and not self.values.get(SPARSITY))

    @property
    def selection(self) -> Interval:
        """The mean score on the selection split over seeds; its lower end is what the winner is chosen by."""
        scores = [trial.score for trial in self.trials.values()]
        return interval(fmean(scores), _standard_error(scores), len(scores))

    def best_trial(self) -> TrialResult:
        """The trial with the best score on the selection split."""
        return max(self.trials.values(), key=lambda trial: trial.score)


def contenders(confirmed: Iterable[TrialResult]) -> list[Contender]:
    """The confirmed trials by what they have in common; failed ones are left out. The first is the winner so far."""
    groups: dict[tuple[Role, str], list[TrialResult]] = {}
    for trial in confirmed:
        if trial.status == "finished":
            groups.setdefault((trial.role, describe(_without_seed(trial.values))), []).append(trial)
    found = [
        Contender(role, _without_seed(trials[0].values), {_seed(trial): trial for trial in trials})
        for (role, _), trials in groups.items()
    ]
    return sorted(found, key=lambda contender: (-contender.selection.low, -contender.selection.mean))


def chosen_trial(results: TaskResults) -> TrialResult | None:
    """The student to take: of the finalists the one whose mean is most surely high, at its best seed.

    Where nothing was confirmed it is the search's best; None where there is no student. Controls are never chosen, nor
    is what was found to be over the budget.
    """
    return next((trial for trial in in_order_of_choice(results) if not _is_over(trial, results)), None)


def in_order_of_choice(results: TaskResults) -> list[TrialResult]:
    """The students that could be taken, the first choice first: finalists, and then the search's by single scores."""
    finalists = [found for found in contenders(results.of_phase("confirm")) if found.role == "candidate"]
    return [*(found.best_trial() for found in finalists), *results.ranked()]


def _is_over(trial: TrialResult, results: TaskResults) -> bool:
    cost = results.costs.get(trial.student)
    return cost is not None and bool(cost.over)


def _seed(trial: TrialResult) -> int:
    seed = trial.values[SEED]
    assert isinstance(seed, int), "a confirmed trial has a whole number as seed"
    return seed


def _without_seed(values: Values) -> Values:
    return {key: value for key, value in values.items() if key != SEED}


@dataclass(frozen=True)
class Answers:
    """What a contender answered on the test split: logits (examples, C) by seed, and the labels (examples,)."""

    logits: Mapping[int, Array]
    labels: Array


def interval_on_test(answers: Answers, score: Score) -> tuple[Interval, float]:
    """The mean score over seeds with its interval, and the spread (standard deviation) over seeds."""
    scores = [score(logits, answers.labels) for logits in answers.logits.values()]
    spread = stdev(scores) if len(scores) > 1 else 0.0
    error = sqrt(spread**2 / len(scores) + _example_variance((answers,), answers.labels, score))
    return interval(fmean(scores), error, len(scores)), spread


def over_examples(logits: Array, labels: Array, score: Score) -> Interval:
    """The score of a single training, with the interval that the chance of its examples alone gives it."""
    reach = float(ndtri(0.5 + CONFIDENCE / 2)) * sqrt(_example_variance((Answers({0: logits}, labels),), labels, score))
    mean = score(logits, labels)
    return Interval(mean, mean - reach, mean + reach)


def paired_difference(left: Answers, right: Answers, score: Score) -> Interval | None:
    """How much higher `left` scores, over the seeds that both have; None where they have none in common."""
    seeds = sorted(left.logits.keys() & right.logits.keys())
    if not seeds:
        return None
    pair = tuple(Answers({seed: side.logits[seed] for seed in seeds}, side.labels) for side in (left, right))
    differences = [
        score(pair[0].logits[seed], left.labels) - score(pair[1].logits[seed], right.labels) for seed in seeds
    ]
    error = sqrt(_standard_error(differences) ** 2 + _example_variance(pair, left.labels, score))
    return interval(fmean(differences), error, len(seeds))


def _standard_error(values: list[float]) -> float:
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else inf


def _example_variance(sides: tuple[Answers, ...], labels: Array, score: Score) -> float:
    """Variance, over bootstrap samples of the examples, of the first side's mean score (less the second's)."""
    generator = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(len(labels), size=len(labels))
        scores = [fmean(score(logits[chosen], labels[chosen]) for logits in side.logits.values()) for side in sides]
        means.append(scores[0] - sum(scores[1:]))
    return float(np.var(means, ddof=1))


def weigh(found: list[Contender], answers: Mapping[str, Answers], score: Score) -> Evidence:
    """All that the confirmed trials say, the winner first. `answers` are those on the test split, by contender.

    The best sparse teacher's student is set against the best dense one's, each chosen on the selection split.
    """
    confirmed = []
    for contender in found:
        test, spread = interval_on_test(answers[contender.name], score)
        seeds, selection = len(contender.trials), contender.selection
        confirmed.append(Confirmed(contender.name, contender.role, seeds, selection, test, spread))
    sparse = next((contender for contender in found if contender.is_sparse), None)
    dense = next((contender for contender in found if contender.learns_from_dense), None)
    difference = None
    if sparse and dense:
        difference = paired_difference(answers[sparse.name], answers[dense.name], score)
    return Evidence(confirmed, difference, verdict(difference))


def verdict(difference: Interval | None) -> str:
    """Whether students of sparse teachers beat those of the dense one, claiming no more than the interval allows."""
    if difference is None:
        return "no sparse and dense teacher's students over the same seeds: nothing to compare"
    low, high = 100 * difference.low, 100 * difference.high
    points = f"{100 * difference.mean:+.1f} points on the test split (95 % interval {low:+.1f} to {high:+.1f})"
    if difference.low > 0:
        return f"the sparse teacher's student is better than the dense teacher's: {points}"
    if difference.high < 0:
        return f"the dense teacher's student is better than the sparse teacher's: {points}"
    return f"no difference is shown between the sparse and the dense teacher's student: {points}"
