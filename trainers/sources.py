"""Reads a task's examples from the source that the settings name, and checks every row.

`glue_dir`, `hub` and `datasets_dir` hold the tasks that stkd knows, `files` are a user's own, `generated` is the task
that stkd makes itself.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stkd.trainers import generated
from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples, Splits
from stkd.trainers.glue_files import from_datasets_dir, from_glue_dir, from_hub
from stkd.trainers.splits import three_splits
from stkd.trainers.tasks import Task, find_task
from stkd.trainers.user_files import from_files

__all__ = ["SOURCES", "Examples", "Source", "TaskData", "load_task"]


@dataclass(frozen=True)
class TaskData:
    """A task with its checked examples, see `stkd.trainers.splits` for what each split is for.

    `fingerprint` is 16 hex digits over what the task is and all contents.
    """

    task: Task
    train: Examples
    validation: Examples
    test: Examples
    fingerprint: str


Source = Callable[[str, DataConfig], tuple[Task, Splits]]
"""Gives the task of a name and its examples, or raises UserError."""


def load_task(name: str, config: DataConfig) -> TaskData:
    """Read a task's examples from the source that `config` names.

    Raises:
        UserError: the task or its files do not exist, or a row is not what the task says it should be.

    """
    try:
        task, splits = SOURCES[config.source](name, config)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    train, validation, test = three_splits(splits, config)
    return TaskData(task, train, validation, test, _fingerprint(task, train, validation, test))


def _fingerprint(task: Task, *splits: Examples) -> str:
    content: list[Any] = [task.name, task.kind, task.class_names, task.metrics]
    content += [[split.texts, split.pairs, split.labels] for split in splits]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _from_generated(name: str, config: DataConfig) -> tuple[Task, Splits]:
    task = find_task(name)
    if task.name != generated.NAME:
        raise UserError(f"data.source 'generated' makes the task {generated.NAME!r} only, not {task.name!r}")
    return task, Splits(*generated.generate(seed=config.seed))


SOURCES: dict[str, Source] = {
    "glue_dir": from_glue_dir,
    "hub": from_hub,
    "datasets_dir": from_datasets_dir,
    "files": from_files,
    "generated": _from_generated,
}
"""Every source by the name that `data.source` has for it."""
