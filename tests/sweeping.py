"""Runs the real command line on tiny spaces, as a user would."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from tiny import tiny_teacher

from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import Phase, TaskResults, TrialResult, read_results

STKD = [sys.executable, "-m", "stkd.orchestrator.cli"]
TIMEOUT = 400


def write_space(folder: Path, **changes: object) -> Path:
    """A space of a tiny teacher and the generated task; `changes` replace whole sections."""
    space = {
        "name": "tiny",
        "tasks": ["remarks"],
        "data": {"source": "generated", "train_examples": 160},
        "teacher": {"model": tiny_teacher(folder / "base"), "finetune": {"epochs": 1, "max_length": 32}},
        "student": {"layers": 2},
        "scoring": {"examples": 64},
        "search": {"interpolation": {"choice": [0.0, 1.0]}, "sparsity": {"choice": [0.0, 0.5]}},
        "trials": {"count": 4, "searcher": "grid", "scheduler": None, "concurrent": 1},
        "training": {"epochs": 2, "max_length": 32, "learning_rate": 1.0e-3},
        "resources": {"cpus_per_rank": 1},
        "storage": str(folder / "runs"),
    }
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(space | changes))
    return path


@dataclass(frozen=True)
class Swept:
    """A finished sweep: grid of two interpolations, two sparsities, and a learning rate that works or blows up."""

    space: Path
    screen: str
    storage: Storage
    sweep: SweepFolder

    @property
    def results(self) -> TaskResults:
        return read_results(self.sweep)["remarks"]

    def trials(self, status: str, phase: Phase = "search") -> list[TrialResult]:
        return [trial for trial in self.results.of_phase(phase) if trial.status == status]


def sweep_once(folder: Path) -> Swept:
    """Runs that sweep."""
    search = {
        "interpolation": {"choice": [0.0, 1.0]},
        "sparsity": {"choice": [0.0, 0.5]},
        "training.learning_rate": {"choice": [1.0e-3, 1.0e30]},
    }
    trials = {"count": 8, "searcher": "grid", "scheduler": None, "concurrent": 1}
    space = write_space(folder, search=search, trials=trials, confirm={"top": 1, "seeds": 2})
    done = stkd("sweep", "--space", space)
    assert done.returncode == 0, done.stdout + done.stderr
    storage = Storage(folder / "runs")
    return Swept(space, done.stdout + done.stderr, storage, storage.find_sweep())


def environment() -> dict[str, str]:
    """The environment of a user without a tracking server or a Ray cluster of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}


def stkd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `stkd` to its end."""
    command = [*STKD, *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
    )
