"""Sweeps as they lie in a storage folder, without having been run."""

from pathlib import Path

import numpy as np

from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import Result, ResultsFile, Status, TrialResult
from stkd.trainers.costs import Cost
from stkd.trainers.ranking import UnitScores

SPACE = """\
name: tiny
tasks: [mrpc]
data: {source: hub}
teacher: {model: some/teacher}
search:
  interpolation: {uniform: [0.0, 1.0]}
  sparsity: {quniform: [0.0, 0.9, 0.1]}
  temperature: {uniform: [1.0, 8.0]}
"""


def trial(name: str, score: float, status: Status = "finished", **changes: object) -> TrialResult:
    """A trial with a student, `student-NAME`."""
    metrics = {
        "epoch": 2.0,
        "score": score,
        "accuracy": score,
        "parameters": 17.2e6,
        "megabytes": 69.0,
        "milliseconds_per_example": 3.1,
    }
    values = {"interpolation": 0.416, "sparsity": 0.3, "temperature": 2.63}
    fields = {"values": values, "epochs": 3, "metrics": metrics, "student": f"student-{name}"} | changes
    return TrialResult(name, status=status, **fields)  # type: ignore[arg-type]


def store(root: Path, *results: Result, task: str = "mrpc", space: str = "") -> Storage:
    """A new sweep of one task with these results."""
    storage = Storage(root)
    sweep = storage.new_sweep("tiny")
    sweep.space.write_text(space)
    for result in results:
        ResultsFile(sweep.task(task).results).append(result)
    return storage


def cost(milliseconds: float = 4.0, parameters: int = 17_400_000, interrupted: float | None = 0.0) -> Cost:
    """What a student of that latency costs."""
    return Cost(
        parameters=parameters,
        megabytes=4 * parameters / 1e6,
        p50=milliseconds,
        p95=1.2 * milliseconds,
        p99=1.5 * milliseconds,
        runs=300,
        interrupted=interrupted,
    )


def scores_of(layers: int, heads: int, neurons: int, seed: int = 0) -> UnitScores:
    """Random ones, spread as real ones are."""
    generator = np.random.default_rng(seed)
    return UnitScores(
        *(np.exp(generator.normal(-6, 1.2, (layers, units))).astype(np.float32) for units in 3 * (heads, neurons))
    )
