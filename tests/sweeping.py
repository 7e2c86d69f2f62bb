"""Runs the real command line on tiny spaces, as a user would."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from tiny import tiny_teacher

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


def environment() -> dict[str, str]:
    """The environment of a user without a tracking server or a Ray cluster of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}


def stkd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `stkd` to its end."""
    command = [*STKD, *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
    )
