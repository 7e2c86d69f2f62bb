"""A whole sweep, from the command to its last line: against the same grid by scripts, scaled from a few trials."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean

from measuring import Goal, Row, Settings, in_turns, seconds
from places import STKD, workplace
from workloads import teacher_name

NAIVE = Path(__file__).parent / "naive.py"


@dataclass(frozen=True)
class Grid:
    """What is tried, and how long each student learns."""

    interpolations: Sequence[float]
    sparsities: Sequence[float]
    temperatures: Sequence[float]
    epochs: int
    examples: int
    scored: int

    @property
    def points(self) -> list[tuple[float, float, float]]:
        """Every trial's settings."""
        return list(product(self.interpolations, self.sparsities, self.temperatures))

    @property
    def text(self) -> str:
        """The sweep as a row names it."""
        return f"sweep of {len(self.points)} trials, {self.epochs} epochs of {self.examples} remarks, batch size 16"

    @property
    def search(self) -> dict[str, Sequence[float]]:
        """What is tried, by its name."""
        return {"interpolation": self.interpolations, "sparsity": self.sparsities, "temperature": self.temperatures}


WHOLE = Grid((0.2, 0.5, 0.8), (0.0, 0.3, 0.6, 0.9), (1.0, 4.0), epochs=2, examples=2000, scored=512)
QUICK = Grid((0.5,), (0.0, 0.5), (1.0,), epochs=1, examples=64, scored=32)
SCRIPTED = 2
"""Trials that the scripts run, spread over the grid; the others are taken to last as long."""


def rows(settings: Settings) -> Iterator[Row]:
    """One row."""
    grid = QUICK if settings.quick else WHOLE
    measured: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(settings.times(1)):
        with workplace() as folder:
            model = teacher_name(settings, folder / "base")
            ours, theirs = partial(sweep, grid, model, folder), partial(_scripts, grid, model, folder)
            for side, found in in_turns({"ours": ours, "theirs": theirs}, 1, warm_up=False).items():
                measured[side] += found
    count = len(grid.points)
    against = f"scripts: a process per trial ({SCRIPTED} of {count} run), teacher in the loop, scored per lambda"
    yield Row("whole_sweep", grid.text, against, "s", measured["ours"], measured["theirs"], [Goal("faster", 8)])


def sweep(grid: Grid, model: str, folder: Path) -> float:
    """Seconds of `stkd sweep` on the grid, every trial to its end."""
    chosen = ", ".join(f"{key}: {{choice: {list(values)}}}" for key, values in grid.search.items())
    changes = [f"teacher.model={model}", f"search={{{chosen}}}", f"trials.count={len(grid.points)}"]
    changes += ["trials.searcher=grid", "trials.scheduler=null", "controls=false"]
    changes += [f"data.train_examples={grid.examples}", f"scoring.examples={grid.scored}"]
    for training in ("training", "teacher.finetune"):
        changes += [f"{training}.epochs={grid.epochs}", f"{training}.batch_size=16"]
    words = [*STKD, "sweep", "--space", "quickstart", "--storage", str(folder / "runs")]
    return seconds_of([*words, *(word for change in changes for word in ("--set", change))], folder)


def _scripts(grid: Grid, model: str, folder: Path) -> float:
    """Seconds of the grid by scripts, of which only some trials are run and one scoring."""
    settings = ["--model", model, "--epochs", str(grid.epochs), "--train-examples", str(grid.examples)]
    settings += ["--scored-examples", str(grid.scored)]
    step = partial(_step, folder, settings)
    once = step("teacher") + step("trial-student")
    scoring = step("scores")
    points = grid.points
    chosen = points[:: max(1, (len(points) - 1) // (SCRIPTED - 1))][:SCRIPTED]
    trials = [step("trial", interpolation=i, sparsity=s, temperature=t) for i, s, t in chosen]
    return once + len(grid.interpolations) * scoring + len(points) * fmean(trials)


def _step(folder: Path, settings: Sequence[str], name: str, **values: float) -> float:
    words = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    return seconds_of([sys.executable, str(NAIVE), name, str(folder), *settings, *words], folder)


def seconds_of(command: Sequence[str], folder: Path) -> float:
    """How long a command runs; raises with its output where it fails."""

    def run() -> None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")

    return seconds(run)
