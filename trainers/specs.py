"""What a training job is told, and what it answers.

Nothing heavy is imported here: whoever plans jobs need not be able to run them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stkd.trainers.config import DistillationConfig, StudentConfig, TrainingConfig
from stkd.trainers.stopwatch import Phase
from stkd.trainers.tasks import Task

TRAIN, VALIDATION, TEST = "train.safetensors", "validation.safetensors", "test.safetensors"
"""The splits of a task's data, tokenised."""
LOGITS, LABELS = "logits.safetensors", "labels"
SCORES = "scores.safetensors"
"""Files of artifacts; the logits on the test split have their labels beside them."""
UNITS = "units.safetensors"
"""Beside a saved model that lacks units: which ones it has."""


@dataclass(frozen=True)
class Distillation:
    """What makes a job a distillation: the teacher, its logits on the training split, and how to learn from them."""

    teacher: Path
    logits: Path
    student: StudentConfig
    settings: DistillationConfig
    importance: Path | None = None
    """Scores of the teacher's units by which a `prune_units` student is cut."""


@dataclass(frozen=True)
class JobSpec:
    """A training job: fine-tunes `model`, or, where `distillation` is given, distils a student of that teacher."""

    task: Task
    data: Path
    """Folder with the tokenised splits and the tokenizer."""
    training: TrainingConfig
    model: str = ""
    distillation: Distillation | None = None
    deepspeed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochReport:
    """What a job answers after an epoch."""

    measured: Mapping[str, float]
    """Loss, the task's metrics, `score` and sizes; empty after a failure."""
    improved: bool
    """Whether the model is the best so far."""
    done: bool
    seconds: Mapping[Phase, float] = field(default_factory=dict)
    """Where the epoch's time went."""
    note: str = ""
    """What its user should know."""
    failure: str = ""
    """Why the job cannot go on; empty while it can."""


def is_whole(checkpoint: Path, ranks: int) -> bool:
    """Whether all ranks of a job have written their part of a checkpoint to its end."""
    return all(written(checkpoint, rank).exists() for rank in range(ranks))


def written(checkpoint: Path, rank: int) -> Path:
    """The file that says that a rank has written its part."""
    return checkpoint / f"written-{rank}"


def unmark(checkpoint: Path) -> None:
    """Take back that anything of a checkpoint was written, before it is written anew."""
    for mark in checkpoint.glob("written-*"):
        mark.unlink()
