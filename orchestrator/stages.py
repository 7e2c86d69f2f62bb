"""The stages of a task that all its trials share: data, teacher, trial student, scores."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import ray
from ray.exceptions import RayTaskError

from stkd.orchestrator.artifacts import ArtifactStore, write_json
from stkd.orchestrator.events import Observer
from stkd.orchestrator.history import HISTORY, epoch_entry, trial_inputs
from stkd.orchestrator.results import StageResult
from stkd.search_spaces.schema import Space
from stkd.trainers.config import DistillationConfig
from stkd.trainers.errors import UserError
from stkd.trainers.model_files import model_fingerprint
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import Distillation, EpochReport, JobSpec

METRICS = "metrics.json"
DENSE = "dense"
"""Names the mask that removes nothing."""
CallGang = Callable[..., Any]
"""Runs a worker's method on all ranks: `call(method, *arguments)`."""


class StageError(ValueError):
    """A stage cannot be finished with these settings."""


@dataclass(frozen=True)
class Shared:
    """Folders of the finished stages."""

    data: Path
    teacher: Path
    trial_student: Path
    scores: Path


class Stages:
    """Runs a task's stages in order, each only where its artifact is missing.

    `host` gives the means to compute, and is asked for them only when there is something to compute.
    """

    def __init__(
        self, space: Space, data: TaskData, store: ArtifactStore, observer: Observer, host: Callable[[], CallGang]
    ) -> None:
        self._space, self._data, self._store, self._observer, self._host = space, data, store, observer, host

    def run(self) -> Shared:
        """All stages; raises what a stage raised."""
        data = self._encoded()
        teacher = self._teacher(data)
        trial_student = self._trial_student(data, teacher)
        return Shared(data, teacher, trial_student, self._scores(data, teacher, trial_student))

    def _encoded(self) -> Path:
        model = self._space.teacher.model
        longest = self._space.training.max_length
        inputs = {"data": self._data.fingerprint, "tokenizer": model_fingerprint(model), "max_length": longest}
        return self._stage("data", inputs, lambda folder: self._host()("encode", self._data, model, longest, folder))

    def _teacher(self, data: Path) -> Path:
        teacher = self._space.teacher
        inputs = {
            "data": data.name,
            "model": model_fingerprint(teacher.model),
            "finetune": teacher.finetune and teacher.finetune.model_dump(),
            "deepspeed": self._space.deepspeed,
            "ranks": self._space.resources.ranks,
        }
        return self._stage("teacher", inputs, lambda folder: self._make_teacher(data, folder))

    def _make_teacher(self, data: Path, folder: Path) -> Mapping[str, float]:
        teacher, task = self._space.teacher, self._data.task
        if teacher.finetune is None:
            return dict(self._host()("adopt", teacher.model, task, data, folder))
        spec = JobSpec(task, data, teacher.finetune, model=teacher.model, deepspeed=self._space.deepspeed)
        return self._train("teacher", spec, folder, [])

    def _trial_student(self, data: Path, teacher: Path) -> Path:
        space = self._space.model_copy(update={"distillation": self._dense_settings()})
        logits = self._dense_logits(data, teacher)
        inputs = trial_inputs(space, data, teacher, DENSE)
        distillation = Distillation(teacher, logits, space.student, space.distillation)
        spec = JobSpec(self._data.task, data, space.training, distillation=distillation, deepspeed=space.deepspeed)
        return self._stage("trial_student", inputs, lambda folder: self._train_trial_student(spec, inputs, folder))

    def _train_trial_student(self, spec: JobSpec, inputs: Mapping[str, Any], folder: Path) -> Mapping[str, float]:
        """Train it, and keep it as the trial that it is, too: the control with these settings need not run again."""
        reports: list[EpochReport] = []
        best = self._train("trial_student", spec, folder, reports)
        student = self._store.path("trial_student", inputs).name
        with self._store.create("trial", inputs) as kept:
            write_json(kept / HISTORY, [epoch_entry(report, student, teacher_examples=0) for report in reports])
        return best

    def _dense_settings(self) -> DistillationConfig:
        changed = {"sparsity": 0.0, "temperature": self._space.scoring.temperature}
        return self._space.distillation.model_copy(update=changed)

    def _dense_logits(self, data: Path, teacher: Path) -> Path:
        inputs = {"data": data.name, "teacher": teacher.name, "mask": DENSE}
        if self._store.find("logits", inputs) is None:
            with self._store.create("logits", inputs) as folder:
                self._host()("save_dense_logits", teacher, data, folder)
        return self._store.path("logits", inputs)

    def _scores(self, data: Path, teacher: Path, trial_student: Path) -> Path:
        settings, seed = self._space.scoring, self._space.training.seed
        inputs = {
            "data": data.name,
            "teacher": teacher.name,
            "trial_student": trial_student.name,
            "scoring": settings.model_dump(),
            "seed": seed,
        }
        arguments = (teacher, trial_student, self._data.task, data, settings, seed)
        return self._stage("scores", inputs, lambda folder: self._host()("save_scores", *arguments, folder))

    def _train(self, stage: str, spec: JobSpec, folder: Path, reports: list[EpochReport]) -> Mapping[str, float]:
        """Train to the end, adding to `reports`; the best epoch's model lies in the folder, its metrics come back."""
        call = self._host()
        call("begin", spec)
        best: Mapping[str, float] = {}
        done = False
        while not done:
            report: EpochReport = call("run_epoch")
            if report.failure:
                raise StageError(f"{stage.replace('_', ' ')}: {report.failure}; lower its learning_rate")
            reports.append(report)
            if report.improved:
                call("save_model", folder)
                best = report.measured
            self._observer.stage_epoch(stage, int(report.measured["epoch"]), spec.training.epochs, report.measured)
            done = report.done
        call("end")
        return best

    def _stage(
        self, name: str, inputs: Mapping[str, Any], compute: Callable[[Path], Mapping[str, float] | None]
    ) -> Path:
        """The stage's artifact, computed where it is missing; observers hear of it either way."""
        start = perf_counter()
        found = self._store.find(name, inputs)
        if found is None:
            self._observer.stage_started(name)
            with self._store.create(name, inputs) as folder:
                write_json(folder / METRICS, compute(folder) or {})
        path = self._store.path(name, inputs)
        result = StageResult(name, path.name, perf_counter() - start, found is not None, read_metrics(path))
        self._observer.stage_finished(result)
        return path


def read_metrics(artifact: Path) -> dict[str, float]:
    """What a stage measured of its model; empty for stages without one."""
    metrics: dict[str, float] = json.loads((artifact / METRICS).read_text())
    return metrics


def ray_caller(host: Any) -> CallGang:
    """Calls through a `GangHost` actor; what a user can mend is raised as the UserError that the worker raised."""

    def call(method: str, *arguments: Any) -> Any:
        try:
            return ray.get(host.call.remote(method, *arguments))
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise

    return call
