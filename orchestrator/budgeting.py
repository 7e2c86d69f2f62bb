"""Whether students can keep the budget, found before anything is trained: weights change no cost."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stkd.orchestrator.cost_book import CostBook, in_words, interruptions
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.results import StudentCost, TaskResults
from stkd.search_spaces.budgets import Budget, Miss
from stkd.search_spaces.distributions import among
from stkd.search_spaces.schema import STUDENT_KEYS, Space
from stkd.trainers.config import StudentConfig
from stkd.trainers.costs import Conditions, Cost, Measurement, Saved, Untrained, processor_name
from stkd.trainers.errors import NothingFitsError


@dataclass(frozen=True)
class Judged:
    """A kind of student with its cost, and the limits that it breaks."""

    student: StudentConfig
    cost: Cost
    misses: Sequence[Miss]


def within_budget(space: Space, outputs: int, book: CostBook, say: Callable[[str], None]) -> Space:
    """The space without the students that cannot keep its budget; `say` hears of all that was found.

    Of students that differ by one number the costs rise with it, so that few need to be measured to find where the
    budget ends. `outputs` is the width of their heads.

    Raises:
        NothingFitsError: not even the cheapest student keeps the budget.

    """
    budget = space.budget
    if budget is None:
        return space
    conditions = budget.conditions(space.training.max_length)
    kinds = sorted(space.students(), key=_size)

    @cache
    def judge(place: int) -> Judged:
        subject = Untrained(teacher=space.teacher.model, student=kinds[place], outputs=outputs)
        (cost,) = book.costs([Measurement(subject=subject, conditions=conditions)])
        return Judged(kinds[place], cost, budget.misses(cost))

    fitting = bisect_left(range(len(kinds)), True, key=lambda place: bool(judge(place).misses))
    if not fitting:
        raise NothingFitsError(_nothing_fits(judge(0)))
    say(f"budget: measured as {conditions}, on {processor_name(conditions.device)}")
    cost = judge(fitting - 1).cost
    say(f"budget: {name_of(kinds[fitting - 1])} keeps it: {in_words(cost)}{interruptions(cost)}")
    if fitting == len(kinds):
        return space
    over = judge(fitting)
    left_out = ", ".join(name_of(kind) for kind in kinds[fitting:])
    say(f"budget: {name_of(over.student)} does not: {' and '.join(map(str, over.misses))}")
    say(f"budget: the search goes without {left_out}")
    return _among(space, kinds[:fitting])


def _size(student: StudentConfig) -> float:
    """What students of one kind are ordered by, the cheapest first."""
    return -student.sparsity if student.init == "prune_units" else student.layers


def _among(space: Space, kinds: Sequence[StudentConfig]) -> Space:
    """The space in which a trial gets one of these students."""
    key = STUDENT_KEYS[space.student.init]
    assert key is not None, "there are several kinds of student only where one of their settings is searched"
    left = [value for value in space.search[key].grid() or () if space.with_values({key: value}).student in kinds]
    return space.model_copy(update={"search": {**space.search, key: among(space.search[key], left)}})


def name_of(student: StudentConfig) -> str:
    """A kind of student as one speaks of it."""
    match student.init:
        case "drop_layers":
            return "the student of 1 layer" if student.layers == 1 else f"the student of {student.layers} layers"
        case "prune_units":
            return f"the student without {100 * student.sparsity:.3g} % of its units"
        case "pretrained":
            return f"the student {student.model}"


def student_cost(folder: Path, conditions: Conditions, budget: Budget, book: CostBook) -> StudentCost:
    """What a trained student costs, measured unless it is known, and whether it keeps the budget."""
    measurement = Measurement(subject=Saved(folder=folder), conditions=conditions)
    (cost,) = book.costs([measurement])
    misses = budget.misses(cost)
    return StudentCost(
        student=folder.name,
        artifact=book.artifact(measurement),
        conditions=str(conditions),
        processor=processor_name(conditions.device),
        cost=cost.model_dump(),
        over=[str(miss) for miss in misses],
        ratio=misses[0].ratio if misses else 1.0,
    )


def nearest_miss(results: TaskResults) -> str | None:
    """Of the students that were measured, the nearest to the budget, in a sentence; None where one keeps it."""
    over = [cost for cost in results.costs.values() if cost.over]
    if not over or chosen_trial(results) is not None:
        return None
    nearest = min(over, key=lambda cost: cost.ratio)
    name = next(trial.name for trial in results.trials.values() if trial.student == nearest.student)
    return f"no student of {results.task} keeps the budget; the nearest is {name}: {' and '.join(nearest.over)}"


def _nothing_fits(nearest: Judged) -> str:
    misses = " and ".join(map(str, nearest.misses))
    return f"no student keeps the budget; the nearest is {name_of(nearest.student)}: {misses}"
