"""How many epochs a searcher spends until it has found a best student, on a grid of students that were trained once.

    python benchmarks/search_simulator.py [--seeds 30] [--workers 4]

Nothing is trained: Tune's ASHA scheduler and the searchers, as a sweep uses them, are driven by simulated workers that
look up what each student scored after each epoch. Another searcher is another line of SEARCHERS.

The grid is searched as it is, and as the packaged spaces are: any lambda, any temperature, scores between the grid's
points interpolated. In the first, settings are easily repeated; in the second, only where nothing is removed.
"""

import argparse
import heapq
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import numpy as np
import optuna
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.interpolate import RegularGridInterpolator

from stkd.orchestrator.history import SCORE
from stkd.orchestrator.searching import StudySearcher, scheduler
from stkd.orchestrator.study import Study
from stkd.search_spaces.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space

RECORDED = Path(__file__).parent / "tables" / "remarks.json"
TRIALS = 100
"""After so many, a search that has not found what it looks for is given up."""
NEAR = {"half a point": 0.005, "a tenth": 0.001}
"""How far from the best student's score one may be to count as found."""
EPOCHS = 40
"""After so many, the best student so far is compared: some 20 trials, since most are stopped early."""
KEYS = ("interpolation", "sparsity", "temperature")
CONSOLE = Console(width=120)
Settings = Mapping[str, Any]
Scores = Sequence[float]
"""Of one student, after each epoch."""


class Student(TypedDict):
    """A line of the recorded table."""

    interpolation: float
    sparsity: float
    temperature: float
    mask: str
    scores: list[float]


class Grid:
    """The recorded students, and nothing between them."""

    name = "grid"

    def __init__(self, students: list[Student]) -> None:
        self._students = {
            (student["interpolation"], student["sparsity"], student["temperature"]): student for student in students
        }
        self._axes = [sorted(set(values)) for values in zip(*self._students, strict=True)]
        self.best = max(max(student["scores"]) for student in students)
        self.epochs = len(students[0]["scores"])

    def space(self) -> Space:
        """What is searched."""
        interpolations, sparsities, temperatures = self._axes
        return _space(
            self.epochs,
            interpolation=QUniform(quniform=(0.0, 1.0, interpolations[1])),
            sparsity=QUniform(quniform=(0.0, sparsities[-1], sparsities[1])),
            temperature=Choice(choice=tuple(temperatures)),
        )

    def scores(self, settings: Settings) -> Scores:
        """How the student of these settings learns."""
        return self._student(settings)["scores"]

    def effective(self, settings: Settings) -> str:
        """What the settings come to: the units removed, and the temperature."""
        return f"{self._student(settings)['mask']} {settings['temperature']}"

    def _student(self, settings: Settings) -> Student:
        interpolation, sparsity, temperature = (round(settings[key], 4) for key in KEYS)
        return self._students[interpolation, sparsity, temperature]


class Between(Grid):
    """The same, with everything between the recorded students."""

    name = "between"

    def __init__(self, students: list[Student]) -> None:
        super().__init__(students)
        scores = [student["scores"] for _, student in sorted(self._students.items())]
        shape = [len(axis) for axis in self._axes]
        interpolations, sparsities, temperatures = self._axes
        axes = (interpolations, sparsities, [log(temperature) for temperature in temperatures])
        self._surface = RegularGridInterpolator(axes, np.reshape(scores, (*shape, self.epochs)))

    def space(self) -> Space:
        """What is searched."""
        _, sparsities, temperatures = self._axes
        return _space(
            self.epochs,
            interpolation=Uniform(uniform=(0.0, 1.0)),
            sparsity=QUniform(quniform=(0.0, sparsities[-1], 0.1)),
            temperature=LogUniform(loguniform=(temperatures[0], temperatures[-1])),
        )

    def scores(self, settings: Settings) -> Scores:
        """How the student of these settings learns."""
        point = (settings["interpolation"], settings["sparsity"], log(settings["temperature"]))
        scores: list[float] = self._surface(point).ravel().tolist()
        return scores

    def effective(self, settings: Settings) -> str:
        """What the settings come to: lambda means nothing where nothing is removed."""
        interpolation = settings["interpolation"] if settings["sparsity"] else None
        return f"{interpolation} {settings['sparsity']} {settings['temperature']}"


def _space(epochs: int, **search: Distribution) -> Space:
    quickstart = read_space(Path("quickstart"), ["trials.scheduler.asha.reduction_factor=3"])
    training = quickstart.training.model_copy(update={"epochs": epochs})
    return quickstart.model_copy(update={"search": search, "training": training})


def _ours(grid: Grid, seed: int, workers: int, folder: Path) -> Searcher:
    return StudySearcher(Study(folder / "study.jsonl", grid.space().search, seed, grid.effective), lambda: workers)


def _tune_space(space: Space) -> dict[str, Any]:
    return {key: _domain(searched) for key, searched in space.search.items()}


def _domain(searched: Distribution) -> Any:
    match searched:
        case Uniform():
            return tune.uniform(*searched.uniform)
        case LogUniform():
            return tune.loguniform(*searched.loguniform)
        case QUniform():
            return tune.quniform(*searched.quniform)
        case RandInt():
            low, high = searched.randint
            return tune.randint(low, high + 1)
        case Choice():
            return tune.choice(list(searched.choice))


def _stock(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Callable[[Grid, int, int, Path], Searcher]:
    def make(grid: Grid, seed: int, workers: int, _: Path) -> Searcher:
        searcher = OptunaSearch(metric=SCORE, mode="max", sampler=sampler(seed))
        searcher.set_search_properties(None, None, _tune_space(grid.space()))
        return ConcurrencyLimiter(searcher, workers)

    return make


SEARCHERS: Mapping[str, Callable[[Grid, int, int, Path], Searcher]] = {
    "random": _stock(lambda seed: optuna.samplers.RandomSampler(seed)),
    "Ray's OptunaSearch": _stock(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "stkd": _ours,
}


@dataclass
class Trial:
    """A trial as a scheduler knows it, and how far it has come."""

    trial_id: str
    student: str
    scores: Scores
    config: Settings
    epoch: int = 0

    def step(self) -> dict[str, Any]:
        """Train an epoch, and report as a real trial does."""
        self.epoch += 1
        finished = self.epoch == len(self.scores)
        return {
            SCORE: max(self.scores[: self.epoch]),
            "training_iteration": self.epoch,
            "finished": finished,
            "failure": "",
            "done": finished,
        }


class Simulation:
    """One search. As in a sweep, a student that was trained to its end is not trained again, whoever asks for it."""

    def __init__(self, grid: Grid, searcher: Searcher, scheduler: TrialScheduler, workers: int) -> None:
        self._grid, self._searcher, self._scheduler, self._workers = grid, searcher, scheduler, workers
        self._live: list[tuple[float, int, Trial]] = []
        """When each running trial ends its epoch."""
        self._finished: set[str] = set()
        self._begun = 0

    def run(self) -> list[float]:
        """The best score after each epoch that was trained."""
        course: list[float] = []
        best, now = -inf, 0.0
        while self._fill(now):
            now, number, trial = heapq.heappop(self._live)
            replayed = trial.student in self._finished
            result = trial.step()
            best = max(best, result[SCORE])
            if not replayed:
                course.append(best)
            if self._goes_on(trial, result):
                heapq.heappush(self._live, (now if replayed else now + 1, number, trial))
        return course

    def _fill(self, now: float) -> bool:
        """Give every free worker a trial; returns whether any works."""
        while len(self._live) < self._workers and self._begun < TRIALS:
            settings = self._searcher.suggest(f"trial-{self._begun}")
            if not isinstance(settings, dict):
                break
            student, scores = self._grid.effective(settings), self._grid.scores(settings)
            trial = Trial(f"trial-{self._begun}", student, scores, settings)
            self._scheduler.on_trial_add(None, trial)
            heapq.heappush(self._live, (now + 1, self._begun, trial))
            self._begun += 1
        return bool(self._live)

    def _goes_on(self, trial: Trial, result: dict[str, Any]) -> bool:
        """Tell scheduler and searcher, as Tune does; returns whether the trial has another epoch."""
        stopped = result["done"] or self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
        if stopped:
            self._scheduler.on_trial_complete(None, trial, result)
            self._searcher.on_trial_complete(trial.trial_id, result)
            self._finished |= {trial.student} if result["finished"] else set()
        else:
            self._searcher.on_trial_result(trial.trial_id, result)
        return not stopped


def epochs_until(course: Sequence[float], target: float) -> float:
    """Epochs spent until a score was reached; infinite where it was not."""
    return next((spent for spent, score in enumerate(course, start=1) if score >= target - 1e-9), inf)


def compare(grid: Grid, seeds: int, workers: int) -> Table:
    """A row for each searcher."""
    title = f"{grid.name}: epochs until a student is found that is so near to the best, {seeds} seeds"
    headings = [f"within {name}" for name in NEAR]
    table = Table("", *headings, f"below the best after {EPOCHS}", title=title, title_justify="left")
    for name, make in SEARCHERS.items():
        courses = []
        for seed in track(range(seeds), name, transient=True, disable=not CONSOLE.is_terminal):
            with TemporaryDirectory() as folder:
                searcher = make(grid, seed, workers, Path(folder))
                courses.append(Simulation(grid, searcher, scheduler(grid.space()), workers).run())
        below = [100 * (grid.best - course[min(EPOCHS, len(course)) - 1]) for course in courses]
        spent = [[epochs_until(course, grid.best - distance) for course in courses] for distance in NEAR.values()]
        table.add_row(name, *map(quartiles, spent), f"{np.mean(below):.2f} points")
    return table


def quartiles(spent: Sequence[float]) -> str:
    """Median with quartiles, and how many searches got there at all."""
    low, middle, high = np.quantile(spent, (0.25, 0.5, 0.75), method="nearest")
    return f"{middle:g} ({low:g} to {high:g}), {np.isfinite(spent).sum()} of {len(spent)}"


def main() -> None:
    """Compare on both spaces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=4, help="trials side by side")
    parser.add_argument("--table", type=Path, default=RECORDED)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(logging.WARNING)
    students = json.loads(arguments.table.read_text())["students"]
    for grid in (Grid(students), Between(students)):
        CONSOLE.print(compare(grid, arguments.seeds, arguments.workers))


if __name__ == "__main__":
    main()
