"""The stages of a task that all its trials share: data, teacher, trial student, scores."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from stkd.orchestrator.artifacts import ArtifactStore, MadeWith, seconds_of, write_json
from stkd.orchestrator.events import Observer
from stkd.orchestrator.history import HISTORY, epoch_entry, trial_inputs
from stkd.orchestrator.results import StageResult
from stkd.search_spaces.schema import Space
from stkd.trainers.config import DistillationConfig, StudentConfig
from stkd.trainers.errors import UserError
from stkd.trainers.model_files import model_fingerprint
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import Distillation, EpochReport, JobSpec
from stkd.trainers.stopwatch import as_metrics

METRICS = "metrics.json"
DENSE = "dense"
"""Names the mask that removes nothing."""
T = TypeVar("T")

GONE = (RayActorError, OutOfMemoryError)
"""What Ray raises where a process is gone; the second where its memory monitor ended it."""
CallGang = Callable[..., Any]
"""Runs a worker's method on all ranks: `call(method, *arguments)`."""


class StageError(ValueError):
    """A stage cannot be finished with these settings."""


class LostError(StageError):
    """A process that computes was lost; the same may work in another one."""


@dataclass(frozen=True)
class StudentStages:
    """What belongs to one kind of student: folders of its finished stages."""

    inputs: Mapping[str, Any]
    """What the student starts from, for whoever hashes it."""
    data: Path
    """The splits in the student's own tokens: the teacher's, unless it has a tokenizer of its own."""
    importance: Path | None
    trial_student: Path
    scores: Path


@dataclass(frozen=True)
class Shared:
    """What a task's trials share: folders of the finished stages."""

    data: Path
    teacher: Path
    students: Mapping[str, StudentStages]

    def of(self, student: StudentConfig) -> StudentStages:
        """The stages of one of the sweep's students."""
        return self.students[student.model_dump_json()]


class Stages:
    """Runs a task's stages in order, each only where its artifact is missing.

    What depends on the student is done for every student that the search can meet. `host` gives the means to compute,
    and is asked for them only when there is something to compute.
    """

    def __init__(
        self, space: Space, data: TaskData, store: ArtifactStore, observer: Observer, host: Callable[[], CallGang]
    ) -> None:
        self._space, self._data, self._store, self._observer, self._host = space, data, store, observer, host

    def run(self) -> Shared:
        """All stages; raises what a stage raised."""
        data = self._encoded("data", self._space.teacher.model)
        teacher = self._teacher(data)
        logits = self._dense_logits(data, teacher)
        students = self._space.students()
        return Shared(
            data,
            teacher,
            {
                student.model_dump_json(): self._student(
                    student, data, teacher, logits, student_label(student, students)
                )
                for student in students
            },
        )

    def _encoded(self, stage: str, model: str, label: str = "") -> Path:
        longest = self._space.training.max_length
        inputs = {"data": self._data.fingerprint, "tokenizer": model_fingerprint(model), "max_length": longest}
        arguments = (self._data, model, longest)
        return self._stage(stage, inputs, lambda folder: self._host()("encode", *arguments, folder), label)

    def _student(self, student: StudentConfig, data: Path, teacher: Path, logits: Path, label: str) -> StudentStages:
        inputs: dict[str, Any] = {"settings": student.model_dump()}
        student_data, importance = data, None
        if student.init == "pretrained":
            assert student.model is not None, "the space was checked"
            inputs["model"] = model_fingerprint(student.model)
            student_data = self._encoded("student_data", student.model, label)
        elif student.init == "prune_units":
            importance = self._importance(data, teacher)
        inputs |= {"data": student_data.name, "importance": importance and importance.name}
        distillation = Distillation(teacher, logits, student, self._dense_settings(), importance)
        trial_student = self._trial_student(distillation, student_data, inputs, label)
        scores = self._scores(data, teacher, trial_student, student_data, label)
        return StudentStages(inputs, student_data, importance, trial_student, scores)

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

    def _trial_student(self, distillation: Distillation, data: Path, student: Mapping[str, Any], label: str) -> Path:
        space = self._space.model_copy(update={"distillation": distillation.settings})
        inputs = trial_inputs(space, self._data.task, distillation.teacher, DENSE, student)
        spec = JobSpec(self._data.task, data, space.training, distillation=distillation, deepspeed=space.deepspeed)
        train = partial(self._train_trial_student, label, spec, inputs)
        return self._stage("trial_student", inputs, train, label)

    def _train_trial_student(
        self, label: str, spec: JobSpec, inputs: Mapping[str, Any], folder: Path
    ) -> Mapping[str, float]:
        """Train it, and keep it as the trial that it is, too: the control with these settings need not run again."""
        reports: list[EpochReport] = []
        best = self._train(f"trial_student{label}", spec, folder, reports)
        student = self._store.path("trial_student", inputs).name
        with self._store.create("trial", inputs, self._made_with) as kept:
            write_json(kept / HISTORY, [epoch_entry(report, student, 0, report.seconds) for report in reports])
        return best

    def _dense_settings(self) -> DistillationConfig:
        changed = {"sparsity": 0.0, "temperature": self._space.scoring.temperature}
        return self._space.distillation.model_copy(update=changed)

    def _dense_logits(self, data: Path, teacher: Path) -> Path:
        inputs = {"data": data.name, "teacher": teacher.name, "mask": DENSE}

        def compute(folder: Path) -> Mapping[str, float]:
            return {"teacher_examples": self._host()("save_dense_logits", teacher, data, folder)}

        return self._stage("logits", inputs, compute)

    def _importance(self, data: Path, teacher: Path) -> Path:
        settings, seed = self._space.scoring, self._space.training.seed
        inputs = {"data": data.name, "teacher": teacher.name, "scoring": settings.model_dump(), "seed": seed}
        arguments = (teacher, None, self._data.task, data, None, settings, seed)
        return self._stage("importance", inputs, lambda folder: self._host()("save_scores", *arguments, folder))

    def _scores(self, data: Path, teacher: Path, trial_student: Path, student_data: Path, label: str) -> Path:
        settings, seed = self._space.scoring, self._space.training.seed
        inputs = {
            "data": data.name,
            "teacher": teacher.name,
            "trial_student": trial_student.name,
            "scoring": settings.model_dump(),
            "seed": seed,
        }
        arguments = (teacher, trial_student, self._data.task, data, student_data, settings, seed)
        return self._stage("scores", inputs, lambda folder: self._host()("save_scores", *arguments, folder), label)

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
            del reports[int(report.measured["epoch"]) - 1 :]  # of a training that had to begin again
            reports.append(report)
            if report.improved:
                call("save_model", folder)
                best = report.measured
            measured = {**report.measured, **as_metrics(report.seconds)}
            self._observer.stage_epoch(stage, int(measured["epoch"]), spec.training.epochs, measured)
            done = report.done
        call("end")
        return best

    def _stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        compute: Callable[[Path], Mapping[str, float] | None],
        label: str = "",
    ) -> Path:
        arguments = (self._store, self._observer, name, inputs, compute, label, self._made_with)
        work, attempts = partial(computed_stage, *arguments), self._space.trials.max_failures
        return despite_losses(name + label, work, attempts, self._observer.stage_lost)

    def _made_with(self) -> Mapping[str, Any]:
        return dict(self._host()("made_with"))


def computed_stage(
    store: ArtifactStore,
    observer: Observer,
    name: str,
    inputs: Mapping[str, Any],
    compute: Callable[[Path], Mapping[str, float] | None],
    label: str = "",
    made_with: MadeWith = dict,
) -> Path:
    """A stage's artifact, computed where it is missing; the observer hears of it either way, with its label."""
    start = perf_counter()
    found = store.find(name, inputs) is not None
    if not found:
        observer.stage_started(name + label)
        with store.once(name, inputs, made_with) as folder:
            found = folder is None
            if folder is not None:
                write_json(folder / METRICS, compute(folder) or {})
    path = store.path(name, inputs)
    took, saved = perf_counter() - start, seconds_of(path) if found else 0.0
    observer.stage_finished(StageResult(name + label, path.name, took, found, read_metrics(path), saved))
    return path


def despite_losses(stage: str, work: Callable[[], T], attempts: int, told: Callable[[str, str], None]) -> T:
    """Do the work of a stage, and so many times anew where a process was lost, of which `told` hears stage and reason.

    Raises LostError where that was not enough.
    """
    for _ in range(attempts):
        try:
            return work()
        except LostError as error:
            told(stage, str(error))
    try:
        return work()
    except LostError as error:
        raise LostError(f"stage {stage}: {error}") from error


def student_label(student: StudentConfig, students: Sequence[StudentConfig]) -> str:
    """What tells a student's stages from those of the others, for their names; nothing where it is the only one."""
    if len(students) == 1:
        return ""
    setting = {"drop_layers": f"layers={student.layers}", "prune_units": f"sparsity={student.sparsity:g}"}
    return f"-{setting[student.init]}"


def read_metrics(artifact: Path) -> dict[str, float]:
    """What a stage measured of its model; empty for stages without one."""
    metrics: dict[str, float] = json.loads((artifact / METRICS).read_text())
    return metrics


def ray_caller(host: Any, lost: Callable[[], object] = lambda: None) -> CallGang:
    """Calls through a `GangHost` actor; what a user can mend is raised as the UserError that the worker raised.

    Raises LostError where a process of the gang is no more, which `lost` hears of.
    """

    def call(method: str, *arguments: Any) -> Any:
        try:
            return ray.get(host.call.remote(method, *arguments))
        except GONE as error:
            if not is_gone(error):
                raise
            lost()
            raise LostError(f"a process of it is gone: {loss_in_words(error)}") from error
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            if isinstance(error.cause, GONE):
                lost()
                raise LostError(f"a process of it is gone: {loss_in_words(error.cause)}") from error
            raise

    return call


def is_gone(error: BaseException) -> bool:
    """Whether a process that had begun is gone; one that never began has an error of its own to tell."""
    return isinstance(error, GONE) and not (isinstance(error, RayActorError) and error.actor_init_failed)


def loss_in_words(error: BaseException) -> str:
    """Why a process is gone, as far as Ray knows."""
    if "running low on memory" in str(error):
        return "its host ran low on memory, and Ray ended it"
    if "node has died" in str(error) or "node was terminated" in str(error):
        return "its host was lost"
    return "it was killed, as the system does where memory runs out, or its host was"  # which Ray learns later
