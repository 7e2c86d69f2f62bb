"""The search space: everything that one sweep is told, typed, and checked as a whole when it is made."""

import re
from collections.abc import Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from stkd.search_spaces.budgets import Budget
from stkd.search_spaces.distributions import Choice, Distribution, QUniform, Value
from stkd.search_spaces.documents import Key
from stkd.search_spaces.messages import explain
from stkd.search_spaces.sections import (
    ConfirmConfig,
    ResourcesConfig,
    TeacherConfig,
    TrackingConfig,
    TrialsConfig,
)
from stkd.trainers.config import Config, DataConfig, DistillationConfig, ScoringConfig, StudentConfig, TrainingConfig
from stkd.trainers.errors import MisplacedError, UserError
from stkd.trainers.generated import NAME as GENERATED_TASK
from stkd.trainers.tasks import TASKS, Task, did_you_mean, find_task

SEARCHED_SECTIONS: dict[str, type[Config]] = {
    "distillation": DistillationConfig,
    "training": TrainingConfig,
    "student": StudentConfig,
}
BARE_KEYS = tuple(DistillationConfig.model_fields)
"""Search keys that may stand without their section `distillation`."""
BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
"""What DeepSpeed would take from its own section, past the training settings."""
FIXED_KEYS = ("training.max_length", "student.init", "student.keep", "student.model")
"""Not searched: a task is tokenised once, and a sweep has one kind of student."""
STUDENT_KEYS = {"drop_layers": "student.layers", "prune_units": "student.sparsity", "pretrained": None}
"""What of a student of each kind can be searched."""
SEARCH_KEYS = (
    *BARE_KEYS,
    *sorted({f"{name}.{key}" for name, kind in SEARCHED_SECTIONS.items() for key in kind.model_fields} - {*FIXED_KEYS}),
)


def _known_search_key(key: str) -> str:
    if key in SEARCH_KEYS:
        return key
    near = did_you_mean(key, SEARCH_KEYS)
    sections = " or ".join(f"{name}.<key>" for name in SEARCHED_SECTIONS)
    raise ValueError(f"nothing to search has this name{near}; valid keys: {', '.join(BARE_KEYS)}, {sections}")


def _without_nulls(search: object) -> object:
    """Leaves out keys that were set to null, so that `--set search.sparsity=null` takes one out of a search."""
    return {key: value for key, value in search.items() if value is not None} if isinstance(search, dict) else search


def _file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError("must be letters, digits, '.', '_' or '-', since it names folders, and at most 64 of them")
    return name


def _plain_folder(storage: str) -> str:
    if "://" in storage:
        raise ValueError("must be a plain folder (local or NFS); other kinds of storage are not there yet")
    if not storage.strip():
        raise ValueError("must be a folder, not empty")
    return storage


class Space(Config):
    """One search-space file."""

    # The inputs that pydantic would show in a traceback can hold a tracking address with a password.
    model_config = ConfigDict(hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_file_name)]
    """What the sweeps and MLflow's experiment are called: letters, digits, `.`, `_` and `-`."""
    tasks: Annotated[tuple[str, ...], Field(strict=False)]
    """Names of known tasks; with `data.source: files` one name of your own."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig
    student: StudentConfig = StudentConfig()
    scoring: ScoringConfig = ScoringConfig()
    distillation: DistillationConfig = DistillationConfig()
    search: Annotated[
        dict[Annotated[str, AfterValidator(_known_search_key)], Distribution], BeforeValidator(_without_nulls)
    ] = Field(default={})
    """What differs between trials, by key, and what it is drawn from."""
    trials: TrialsConfig = TrialsConfig()
    controls: bool = True
    """Whether the students that the best one must beat are trained, too: without a teacher, of the dense teacher, and
    of a teacher that lost units by chance."""
    confirm: ConfirmConfig | None = None
    """null compares single trainings."""
    budget: Budget | None = None
    """What the student may cost; null limits nothing."""
    training: TrainingConfig = TrainingConfig()
    resources: ResourcesConfig = ResourcesConfig()
    deepspeed: dict[str, JsonValue] = Field(default={})
    """Keys of DeepSpeed's own configuration, passed on as they are."""
    tracking: TrackingConfig = TrackingConfig()
    storage: Annotated[str, AfterValidator(_plain_folder)] = "./stkd-runs"
    """A folder for artifacts, sweeps and MLflow's store; on a cluster one that all nodes see."""

    @property
    def storage_folder(self) -> Path:
        """The storage folder as an absolute path."""
        return Path(self.storage).expanduser().absolute()

    @property
    def experiment(self) -> str:
        """The name of the MLflow experiment."""
        return self.tracking.experiment or self.name

    @property
    def longest_training(self) -> int:
        """The most epochs that a trial can be given."""
        return max(_possible(self, "epochs"))

    @property
    def trial_count(self) -> int:
        """How many trials a task has: `trials.count`, or every point of a grid."""
        return self.grid_points if self.trials.searcher == "grid" else self.trials.count

    def students(self) -> list[StudentConfig]:
        """Every student that a trial can be given: one, unless `student.layers` or `student.sparsity` is searched."""
        grids = {key: searched.grid() or () for key, searched in self.search.items() if key.startswith("student.")}
        return [self.with_values(dict(zip(grids, point, strict=True))).student for point in product(*grids.values())]

    @property
    def grid_points(self) -> int:
        """How many points the search has where every key has a list of values."""
        return prod(len(distribution.grid() or ()) for distribution in self.search.values())

    def with_values(self, values: Mapping[str, Value]) -> Self:
        """Returns the space with one trial's `values` in its sections, by the keys of `search`."""
        sections: dict[str, Config] = {
            "training": self.training,
            "distillation": self.distillation,
            "student": self.student,
        }
        for key, value in values.items():
            section, setting = setting_of(key)
            old = sections[section]
            sections[section] = type(old).model_validate({**old.model_dump(), setting: value})
        return self.model_copy(update=sections)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for check in CHECKS:
            check(self)
        return self


def setting_of(key: str) -> tuple[str, str]:
    """Returns the section and the setting that a search key means: `sparsity` is `distillation`, `sparsity`."""
    section, _, setting = key.rpartition(".")
    return section or "distillation", setting


def _check_tasks(space: Space) -> None:
    if space.data.source == "files":
        _check_own_task(space)
        return
    if not space.tasks:
        raise MisplacedError(("tasks",), f"needs at least one; the tasks are {', '.join(TASKS)}")
    for index, name in enumerate(space.tasks):
        if name in space.tasks[:index]:
            raise MisplacedError(("tasks", index), f"task '{name}' stands twice; remove one")
        try:
            find_task(name)
        except UserError as error:
            raise MisplacedError(("tasks", index), str(error)) from error
        fitting = [task.name for task in TASKS.values() if _in_source(task, space.data.source)]
        if name not in fitting:
            raise MisplacedError(
                ("tasks", index), f"is not in data.source {space.data.source}, which has {', '.join(fitting)}"
            )


def _check_own_task(space: Space) -> None:
    """The user's own files are one task, which may have any name that can name a folder."""
    if len(space.tasks) != 1:
        raise MisplacedError(("tasks",), "must be one name of your choice, since data.source files reads one task")
    try:
        _file_name(space.tasks[0])
    except ValueError as error:
        raise MisplacedError(("tasks", 0), str(error)) from error


def _in_source(task: Task, source: str) -> bool:
    return {
        "generated": task.name == GENERATED_TASK,
        "glue_dir": task.tsv is not None,
        "hub": task.hub is not None,
        "datasets_dir": task.hub is not None,
    }[source]


NEEDED_PATHS = {
    "glue_dir": "data.source glue_dir needs the folder here that holds MRPC/train.tsv, ...",
    "datasets_dir": "data.source datasets_dir needs the folder here that save_to_disk wrote",
}
"""What `data.path` must be, by source."""


def _check_data(space: Space) -> None:
    if space.data.source in NEEDED_PATHS and space.data.path is None:
        raise MisplacedError(("data", "path"), NEEDED_PATHS[space.data.source])
    if space.data.source == "generated" and space.data.path is not None:
        raise MisplacedError(("data", "path"), "data.source generated reads no files; leave the path out")


def _check_search(space: Space) -> None:
    meanings: dict[tuple[str, str], str] = {}
    for key, distribution in space.search.items():
        section, setting = setting_of(key)
        if (section, setting) in meanings:
            raise MisplacedError(("search", key), f"means the same setting as {meanings[section, setting]}; keep one")
        meanings[section, setting] = key
        for value in distribution.extremes():
            _check_limits(key, section, setting, value)


def _check_limits(key: str, section: str, setting: str, value: Value) -> None:
    try:
        SEARCHED_SECTIONS[section].model_validate({setting: value})
    except ValidationError as error:
        limit = explain(error.errors()[0])
        raise MisplacedError(("search", key), f"would set {section}.{setting} to {value}: {limit}") from error


def _check_trials(space: Space) -> None:
    count, searcher = space.trials.count, space.trials.searcher
    if not space.search and count > 1:
        raise MisplacedError(("trials", "count"), "must be 1, since search is empty and all trials would be the same")
    if searcher == "grid":
        _check_grid(space)
    longest = space.longest_training
    if space.trials.scheduler and space.trials.scheduler.asha.grace_period > longest:
        raise MisplacedError(
            ("trials", "scheduler", "asha", "grace_period"), f"must be at most training.epochs, which is {longest}"
        )


def _check_student(space: Space) -> None:
    student = space.student
    if (student.init == "pretrained") != (student.model is not None):
        right = "names the encoder that the student starts from" if student.model is None else "is for init: pretrained"
        raise MisplacedError(("student", "model"), f"{right}; student.init is {student.init}")
    for key, searched in space.search.items():
        if not key.startswith("student."):
            continue
        if key != STUDENT_KEYS[student.init]:
            raise MisplacedError(("search", key), f"changes nothing for a student with init: {student.init}")
        if searched.grid() is None:
            raise MisplacedError(
                ("search", key),
                f"has endlessly many values, and each needs a trial student; use {Choice.shape} or {QUniform.shape}",
            )


def _possible(space: Space, setting: str) -> list[int]:
    """Returns the whole numbers that trials can get for a setting of `training`: all, or the extremes of very many."""
    searched = space.search.get(f"training.{setting}")
    values = (searched.grid() or searched.extremes()) if searched else (space.training.model_dump()[setting],)
    return [value for value in values if isinstance(value, int)]


def _check_grid(space: Space) -> None:
    for key, distribution in space.search.items():
        if distribution.grid() is None:
            raise MisplacedError(
                ("search", key),
                f"has endlessly many values, which trials.searcher grid cannot try one by one; use {Choice.shape} or "
                f"{QUniform.shape}, or searcher optuna",
            )
    if space.grid_points > space.trials.count:
        raise MisplacedError(
            ("trials", "count"), f"must be at least {space.grid_points}, the number of points of the grid"
        )


def _check_batches(space: Space) -> None:
    """Every optimizer step shares its batch evenly among ranks and micro-batches."""
    ranks = space.resources.ranks
    settings = product(_possible(space, "batch_size"), _possible(space, "accumulation"))
    for batch_size, accumulation in settings:
        _check_batch(("training", "batch_size"), batch_size, accumulation, ranks)
    finetune = space.teacher.finetune
    if finetune:
        _check_batch(("teacher", "finetune", "batch_size"), finetune.batch_size, finetune.accumulation, ranks)

    for key in BATCH_KEYS:
        if key in space.deepspeed:
            raise MisplacedError(
                ("deepspeed", key), "follows from training.batch_size and training.accumulation; set those"
            )


def _check_lengths(space: Space) -> None:
    """A task is tokenised once, for its teacher and all its students."""
    finetune, longest = space.teacher.finetune, space.training.max_length
    if finetune and finetune.max_length != longest:
        raise MisplacedError(
            ("teacher", "finetune", "max_length"),
            f"must equal training.max_length, which is {longest}, since teacher and students read the same tokens",
        )


def _check_batch(key: Key, batch_size: int, accumulation: int, ranks: int) -> None:
    if batch_size % (ranks * accumulation):
        raise MisplacedError(
            key,
            f"a batch of {batch_size} cannot be shared evenly by resources.ranks ({ranks}) times accumulation "
            f"({accumulation}); use a multiple of {ranks * accumulation}",
        )


CHECKS = (
    _check_tasks,
    _check_data,
    _check_search,
    _check_trials,
    _check_batches,
    _check_lengths,
    _check_student,
)
"""What must hold of a space as a whole; each raises MisplacedError."""
