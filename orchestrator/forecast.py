"""What a task of a sweep would run, found without running it: stages, trials, and how long trials go on."""

from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import numpy as np
from typing_extensions import override

from stkd.orchestrator.artifacts import ArtifactStore, record_of, seconds_of
from stkd.orchestrator.events import Observer
from stkd.orchestrator.history import trial_inputs
from stkd.orchestrator.phases import Planned, confirmations, controls, drawn
from stkd.orchestrator.results import TaskResults, TrialResult
from stkd.orchestrator.stages import Shared, Stages
from stkd.orchestrator.time_left import rungs
from stkd.search_spaces.schema import Space
from stkd.trainers.ranking import UnitScores, mask_name
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import SCORES

SIMULATED_TRIALS = 20_000
"""Of all simulated searches together."""
FEWEST_SEARCHES, MOST_SEARCHES = 5, 200


@dataclass(frozen=True)
class Span:
    """A number that is not known: what to expect, and between what it will lie nine times out of ten."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, numbers: "np.ndarray[Any, np.dtype[np.float64]]") -> "Span":
        """From a sample."""
        low, middle, high = np.quantile(numbers, (0.05, 0.5, 0.95))
        return cls(float(low), float(middle), float(high))

    @classmethod
    def sure(cls, number: float) -> "Span":
        """A number that is known."""
        return cls(number, number, number)

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, other: "Span") -> "Span":
        return Span(self.low * other.low, self.middle * other.middle, self.high * other.high)

    def times(self, factor: float) -> "Span":
        """All of it so many times."""
        return self * Span.sure(factor)

    def within(self, factor: float) -> "Span":
        """The same, but wrong by such a factor either way."""
        return Span(self.low / factor, self.middle, self.high * factor)


@dataclass(frozen=True)
class ForeseenStage:
    """A stage, and where its artifact lies or would lie."""

    name: str
    artifact: Path
    taken_over: bool
    saved: float
    """Seconds that it took when it was computed, where it is taken over."""


class Foreseen(Stages):
    """Goes through a task's stages as `Stages` does, and computes none."""

    def __init__(self, space: Space, data: TaskData, store: ArtifactStore) -> None:
        super().__init__(space, data, store, Observer(), _no_host)
        self.found: list[ForeseenStage] = []

    @override
    def _stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        compute: Callable[[Path], Mapping[str, float] | None],
        label: str = "",
    ) -> Path:
        path = self._store.path(name, inputs)
        taken_over = self._store.find(name, inputs) is not None
        self.found.append(ForeseenStage(name + label, path, taken_over, seconds_of(path) if taken_over else 0.0))
        return path


def _no_host() -> NoReturn:
    raise AssertionError("nothing is computed")


@dataclass(frozen=True)
class Forecast:
    """What one task would run."""

    task: str
    examples: int
    stages: list[ForeseenStage]
    search: int
    known: int | None
    """Trials of the search that were run before; None where the search decides as it goes."""
    trained: int
    """Trials of the same teacher and settings that lie in the storage."""
    controls: int
    confirm: int
    rungs: list[int]
    """Epochs after which weak trials are stopped."""
    epochs: Span
    """That the search's new trials train in all."""
    longest: int
    """Epochs of a trial that is not stopped."""

    @classmethod
    def of(cls, space: Space, data: TaskData, store: ArtifactStore, concurrent: int) -> "Forecast":
        """For a task whose data are there."""
        foreseen = Foreseen(space, data, store)
        shared = foreseen.run()
        known = _known(space, data, store, shared, foreseen.found)
        later = _later(space, data.task.name)
        return cls(
            task=data.task.name,
            examples=len(data.train),
            stages=foreseen.found,
            search=space.trial_count,
            known=known,
            trained=_trained(store, shared.teacher.name),
            controls=sum(planned.phase == "control" for planned in later),
            confirm=sum(planned.phase == "confirm" for planned in later),
            rungs=rungs(space),
            epochs=search_epochs(space, space.trial_count - (known or 0), concurrent),
            longest=space.longest_training,
        )


def _known(
    space: Space, data: TaskData, store: ArtifactStore, shared: Shared, stages: list[ForeseenStage]
) -> int | None:
    """Trials of a search that does not learn which are finished already; None where that cannot be known."""
    if (space.trials.searcher == "optuna" and space.search) or not all(stage.taken_over for stage in stages):
        return None
    scores = {key: UnitScores.load(student.scores / SCORES) for key, student in shared.students.items()}
    found = 0
    for planned in drawn(space):
        trial = space.with_values({key: space.search[key].clean(value) for key, value in planned.values.items()})
        student = shared.of(trial.student)
        mask = mask_name(*scores[trial.student.model_dump_json()].kept(trial.distillation, trial.training.seed))
        inputs = trial_inputs(trial, data.task, shared.teacher, mask, student.inputs)
        found += store.find("trial", inputs) is not None
    return found


def _trained(store: ArtifactStore, teacher: str) -> int:
    """Finished trials of this teacher."""
    return sum(record_of(path)["inputs"]["teacher"] == teacher for path in store.root.glob("trial-*"))


def _later(space: Space, task: str) -> list[Planned]:
    """The controls and the trials of finalists, as many as there will be: of a search that found something sparse."""
    rng = Random(space.trials.seed)  # noqa: S311 (no secret depends on it)
    top = space.confirm.top if space.confirm else 1
    results = TaskResults(task)
    for number in range(min(top, space.trial_count)):
        values = {key: searched.draw(rng) for key, searched in space.search.items()}
        values |= {key: space.search[key].extremes()[-1] for key in space.search if key.endswith("sparsity")}
        results.trials[f"search {number}"] = TrialResult("", values, "finished", student=str(number))
    planned = controls(space, results) if space.controls else []
    for number, control in enumerate(planned):
        made = TrialResult("", control.values, "finished", "control", control.role, student=f"control {number}")
        results.trials[made.student] = made
    return [*planned, *confirmations(space, results)]


def search_epochs(space: Space, trials: int, concurrent: int) -> Span:
    """How many epochs a search trains in all, by simulating it with students whose ranks are pure chance."""
    at, longest = rungs(space), space.longest_training
    if not at or not trials:
        return Span.sure(float(trials * longest))
    assert space.trials.scheduler is not None, "there are rungs only where somebody stops trials"
    factor, rng = space.trials.scheduler.asha.reduction_factor, np.random.default_rng(0)
    searches = min(MOST_SEARCHES, max(FEWEST_SEARCHES, SIMULATED_TRIALS // trials))
    return Span.of(
        np.array(
            [_simulated(rng.random(trials), at, longest, factor, concurrent) for _ in range(searches)], dtype=float
        )
    )


def _simulated(
    scores: "np.ndarray[Any, np.dtype[np.float64]]", at: list[int], longest: int, factor: int, concurrent: int
) -> int:
    """Epochs of one search, by Tune's rule: whoever comes to a rung stops below the best 1/factor seen there."""
    seen: dict[int, list[float]] = {rung: [] for rung in at}
    waiting, total = list(scores), 0
    running: dict[int, tuple[float, int]] = {}
    while waiting or running:
        while waiting and len(running) < concurrent:
            running[len(waiting)] = (waiting.pop(), 0)
        for trial, (score, epoch) in list(running.items()):
            total += 1
            others = seen.get(epoch + 1)
            stopped = bool(others) and score < _quantile(others or [], 1 - 1 / factor)
            if others is not None:
                insort(others, score)
            if stopped or epoch + 1 >= longest:
                del running[trial]
            else:
                running[trial] = (score, epoch + 1)
    return total


def _quantile(ordered: list[float], share: float) -> float:
    """As numpy's, of what is in order already."""
    place, part = divmod(share * (len(ordered) - 1), 1)
    below, above = ordered[int(place)], ordered[min(int(place) + 1, len(ordered) - 1)]
    return below + part * (above - below)
