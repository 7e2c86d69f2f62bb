"""Chooses a student of a finished sweep under a budget, and says what another size would gain or cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stkd.orchestrator.budgeting import name_of
from stkd.orchestrator.cost_book import CostBook
from stkd.orchestrator.evidence import Contender, contenders
from stkd.orchestrator.results import Confirmed, Interval, TaskResults, TrialResult
from stkd.orchestrator.runs import FoundTask
from stkd.search_spaces.budgets import Budget, Miss
from stkd.search_spaces.schema import Space
from stkd.trainers.config import StudentConfig
from stkd.trainers.costs import Conditions, Cost, Measurement, Saved
from stkd.trainers.errors import NothingFitsError, UserError


@dataclass(frozen=True)
class Option:
    """The first choice among the students of one kind: they cost the same."""

    student: StudentConfig
    trial: TrialResult
    score: float
    """On the selection split; of a confirmed student the mean over its seeds."""
    interval: Interval | None
    """Of that mean; None for a single training, which has none."""
    seeds: int
    test: float | None
    """On the test split, the mean over seeds where it is confirmed; None where it was not read."""
    cost: Cost
    misses: Sequence[Miss]

    @property
    def is_confirmed(self) -> bool:
        """Whether it was trained over several seeds."""
        return self.interval is not None

    @property
    def order(self) -> tuple[bool, float, int]:
        """Lowest for the first choice; of equally good ones, for the smallest."""
        surely = self.score if self.interval is None else self.interval.low
        return not self.is_confirmed, -surely, self.cost.parameters

    def as_dict(self) -> dict[str, Any]:
        """The same for machines; scores in 0..1."""
        interval = self.interval and {"low": self.interval.low, "high": self.interval.high}
        return {
            "trial": self.trial.trial,
            "name": self.trial.name,
            "values": dict(self.trial.values),
            "kind": name_of(self.student),
            "score": self.score,
            "interval": interval,
            "seeds": self.seeds,
            "test_score": self.test,
            "cost": self.cost.model_dump(),
            "over": [str(miss) for miss in self.misses],
        }


@dataclass(frozen=True)
class Pick:
    """What was chosen, and among what."""

    chosen: Option
    options: Sequence[Option]
    """One for each kind of student, the largest first."""
    teacher: Cost
    conditions: Conditions
    budget: Budget


def pick(found: FoundTask, budget: Budget, conditions: Conditions, book: CostBook, again: bool = False) -> Pick:
    """The first choice that keeps the budget; costs are measured where they are unknown, or all of them again.

    Confirmed students come first, by the lower end of their interval; then the others, by their score.

    Raises:
        NothingFitsError: no student keeps the budget; the message names the nearest.
        UserError: there is no student, or one is gone from the artifacts.

    """
    results, folder = found.results, found.storage.artifacts
    firsts = list(_first_of_each_kind(results, found.space))
    if not firsts:
        raise UserError(f"the sweep has no student for task {results.task} yet")
    models = [folder / first.trial.student for _, first in firsts] + [folder / results.stages["teacher"].artifact]
    for model in models:
        if not model.is_dir():
            raise UserError(f"the model's folder {model} is gone from the artifacts")
    wanted = [Measurement(subject=Saved(folder=model), conditions=conditions) for model in models]
    *costs, teacher = book.costs(wanted, again or not book.knows(wanted))  # what is compared is measured together
    options = [
        _option(student, first, results, cost, budget.misses(cost))
        for (student, first), cost in zip(firsts, costs, strict=True)
    ]
    fitting = [option for option in options if not option.misses]
    if not fitting:
        raise NothingFitsError(_nearest(results, options))
    chosen = min(fitting, key=lambda option: option.order)
    by_size = sorted(options, key=lambda option: (-option.cost.parameters, -option.cost.p50))
    return Pick(chosen, by_size, teacher, conditions, budget)


@dataclass(frozen=True)
class _First:
    trial: TrialResult
    contender: Contender | None


def _first_of_each_kind(results: TaskResults, space: Space) -> Iterable[tuple[StudentConfig, _First]]:
    """The kinds of student in order of choice, each with its first."""
    confirmed = [found for found in contenders(results.of_phase("confirm")) if found.role == "candidate"]
    single = [trial for trial in results.ranked() if trial.status in ("finished", "stopped")]
    firsts = [_First(found.best_trial(), found) for found in confirmed] + [_First(trial, None) for trial in single]
    kinds: dict[str, tuple[StudentConfig, _First]] = {}
    for first in firsts:
        student = space.with_values(first.trial.values).student
        kinds.setdefault(student.model_dump_json(), (student, first))
    return kinds.values()


def _option(student: StudentConfig, first: _First, results: TaskResults, cost: Cost, misses: list[Miss]) -> Option:
    trial, contender = first.trial, first.contender
    test = results.tests.get(trial.student)
    if contender is None:
        return Option(student, trial, trial.score, None, 1, test.score if test else None, cost, misses)
    found = _evidence(results, contender)
    selection = contender.selection
    tested = found.test.mean if found else None
    return Option(student, trial, selection.mean, selection, len(contender.trials), tested, cost, misses)


def _evidence(results: TaskResults, contender: Contender) -> Confirmed | None:
    confirmed = results.evidence.confirmed if results.evidence else ()
    return next((found for found in confirmed if found.name == contender.name), None)


def _nearest(results: TaskResults, options: Sequence[Option]) -> str:
    nearest = min(options, key=lambda option: option.misses[0].ratio)
    misses = " and ".join(map(str, nearest.misses))
    kind = name_of(nearest.student)
    return f"no student of {results.task} keeps the budget; the nearest is {kind} ({nearest.trial.name}): {misses}"
