"""The sections of a search-space file that are not a training job's own settings."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from stkd.trainers.config import Config, TrainingConfig
from stkd.trainers.errors import MisplacedError


def model_name(model: str) -> str:
    """Any name but a malformed package; `~` becomes the home folder, since `from_pretrained` does not know it."""
    if not re.fullmatch(r"(?!package:).+|package:[A-Za-z_]\w*/.+", model):
        raise ValueError("must be a hub id, a folder, or package:NAME/FOLDER")
    return str(Path(model).expanduser()) if model.startswith("~") else model


class TeacherConfig(Config):
    """The model to compress, and how it is fine-tuned on each task first."""

    model: Annotated[str, AfterValidator(model_name)]
    """A hub id, a local folder, or `package:NAME/FOLDER`, a folder inside an installed package."""
    finetune: TrainingConfig | None = TrainingConfig()
    """null takes the model as it is: it is fine-tuned already."""


class AshaConfig(Config):
    """Asynchronous successive halving: weak trials stop early."""

    grace_period: PositiveInt = 1
    """Epochs that every trial may run."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Of so many trials, one goes on past each rung."""


class SchedulerConfig(Config):
    """What ends trials early."""

    asha: AshaConfig
    """Weak trials stop early, whenever they are weak among those that have come as far."""


class TrialsConfig(Config):
    """How many students are tried, and who chooses their settings."""

    count: PositiveInt = 12
    """How many, at most; the controls and confirmations come on top."""
    searcher: Literal["optuna", "random", "grid"] = "optuna"
    """Who chooses: Optuna, which learns from the trials before; chance; or every point of a grid, one after another."""
    scheduler: Annotated[SchedulerConfig | None, BeforeValidator(lambda value: None if value == "none" else value)] = (
        SchedulerConfig(asha=AshaConfig())
    )
    """null or `none` lets every trial run to its end."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a trial may be started again from its checkpoint after a worker was lost."""
    stuck_after: Annotated[float, Field(gt=0.0)] = 300.0
    """Seconds without a sign of life, or without a step, after which a stage or a trial is named as stuck, unless its
    steps took a tenth of that before; after three times as long (twelve times, before its first step) it is ended."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what the searcher draws."""
    concurrent: PositiveInt | None = None
    """Trials at a time; null runs as many as the machine has room for."""


class ResourcesConfig(Config):
    """What one trial occupies: `ranks` processes, each with these GPUs and CPUs."""

    ranks: PositiveInt = 1
    """Processes that share each batch."""
    gpus_per_rank: Annotated[float, Field(ge=0.0)] = 0.0
    """Whole GPUs, or for a single rank a share below 1, so that trials sit side by side on one."""
    cpus_per_rank: PositiveInt = 2
    """Cores; a rank computes with so many threads."""
    storage_patience: Annotated[float, Field(gt=0.0)] = 300.0
    """Seconds for which a storage that refuses writes is tried again, before the sweep stops."""
    pack: bool = False
    """Try how many trials one GPU, or one node's cores, serve best, and give each trial its share."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        whole = float(self.gpus_per_rank).is_integer()
        if not whole and (self.ranks > 1 or self.gpus_per_rank > 1):
            raise MisplacedError(
                ("gpus_per_rank",), "must be a whole number; only a single rank can take a share of one GPU"
            )
        if self.pack and self.ranks > 1:
            raise MisplacedError(("pack",), "must be false where a trial has several ranks: those have whole devices")
        return self


class TrackingConfig(Config):
    """Where MLflow writes."""

    uri: Annotated[str | None, Field(repr=False)] = None
    """null: MLFLOW_TRACKING_URI, else an SQLite file in the storage folder."""
    experiment: str | None = None
    """null: the name of the space."""


class ConfirmConfig(Config):
    """The finalists and the controls are trained again over fresh seeds, and only those are compared."""

    top: PositiveInt = 3
    """How many of the search's best students are finalists."""
    seeds: Annotated[int, Field(ge=2)] = 5
    """Seeds for each finalist and control; a single one says nothing about chance."""
