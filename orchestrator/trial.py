"""A trial: one student, distilled from one sparse teacher, inside a Ray Tune trainable that stays warm for the next."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from stkd.cluster.gang import Gang
from stkd.orchestrator.artifacts import ArtifactStore, write_json
from stkd.orchestrator.layout import Storage, TaskFolder
from stkd.search_spaces.schema import Space
from stkd.trainers.specs import Distillation, EpochReport, JobSpec
from stkd.trainers.tasks import Task

WORKER = "stkd.trainers.worker:Worker"
POINTER = "checkpoint.json"
HISTORY = "history.json"
SCORE = "best_score"
"""What trials are compared by: the task's score of a trial's best epoch so far."""
WORST_SCORE = -1.0
"""Of a failed trial: no metric of any task goes below it, and schedulers need a number."""


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a task have in common."""

    space: Space
    task: Task
    storage: Storage
    folder: TaskFolder
    data: Path
    teacher: Path
    scores: Path

    @property
    def store(self) -> ArtifactStore:
        """The artifacts that trials share."""
        return ArtifactStore(self.storage.artifacts)

    def inputs(self, space: Space, mask: str) -> dict[str, Any]:
        """What a trial's student follows from: the space with the trial's values, and the units that its teacher lacks.

        The temperature belongs to it where there are classes; a regression's losses have none.
        """
        settings = {"temperature", "hard_weight"} if self.task.kind == "classification" else {"hard_weight"}
        return {
            "data": self.data.name,
            "teacher": self.teacher.name,
            "mask": mask,
            "student": space.student.model_dump(),
            "training": space.training.model_dump(),
            "distillation": space.distillation.model_dump(include=settings),
            "deepspeed": space.deepspeed,
            "ranks": space.resources.ranks,
        }


class Trial(tune.Trainable):  # type: ignore[misc]
    """One trial after another in one process: `reset_config` keeps the ranks, their imports and process group.

    `step` is one epoch. It reports `measured` (the job's metrics, and as `teacher_examples` how many examples a teacher
    had to read for this trial: none where the logits were there), `student` (the folder of the best student so far),
    and whether the trial is finished or why it failed. A failure that would come again is reported, not raised: Tune
    retries what is raised, in a new process.
    """

    def setup(self, config: dict[str, Any], plan: TrialPlan) -> None:
        """Start the ranks; the job itself begins with the first step, so that what goes wrong there is the trial's."""
        self._plan = plan
        resources = plan.space.resources
        self._gang = Gang(WORKER, resources.ranks, resources.cpus_per_rank, resources.gpus_per_rank)
        self._reset(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial's settings."""
        self._gang.call("end")
        self._reset(new_config)
        return True

    def _reset(self, config: Mapping[str, Any]) -> None:
        self._values = dict(config)
        self._inputs: dict[str, Any] = {}
        self._history: list[dict[str, Any]] = []
        self._known: list[dict[str, Any]] = []
        self._teacher_examples = 0
        self._begun = False

    def step(self) -> dict[str, Any]:
        """Train an epoch and report; where the same trial was run to its end before, report what it found."""
        self._begin()
        report = self._known[len(self._history)] if self._known else self._train()
        self._history.append(report)
        if report["finished"] and not self._known:
            with self._plan.store.create("trial", self._inputs) as folder:
                write_json(folder / HISTORY, self._history)
        return report | {"done": report["finished"] or bool(report["failure"])}

    def _begin(self) -> None:
        if self._begun:
            return
        plan, space = self._plan, self._plan.space.with_values(self._values)
        settings = space.distillation
        mask = self._gang.call("mask_fingerprint", plan.scores, settings.interpolation, settings.sparsity)
        self._inputs = plan.inputs(space, mask)
        finished = plan.store.find("trial", self._inputs)
        if finished is not None:
            self._known = json.loads((finished / HISTORY).read_text())
        else:
            self._begin_job(space, mask)
        self._begun = True

    def _begin_job(self, space: Space, mask: str) -> None:
        plan, settings = self._plan, space.distillation
        inputs = {"data": plan.data.name, "teacher": plan.teacher.name, "mask": mask}
        if plan.store.find("logits", inputs) is None:
            with plan.store.create("logits", inputs) as folder:
                self._teacher_examples = self._gang.call(
                    "save_sparse_logits",
                    plan.teacher,
                    plan.scores,
                    settings.interpolation,
                    settings.sparsity,
                    plan.data,
                    folder,
                )
        distillation = Distillation(plan.teacher, plan.store.path("logits", inputs), space.student, settings)
        spec = JobSpec(plan.task, plan.data, space.training, distillation=distillation, deepspeed=space.deepspeed)
        self._gang.call("begin", spec)

    def _train(self) -> dict[str, Any]:
        report: EpochReport = self._gang.call("run_epoch")
        student = self._history[-1]["student"] if self._history else ""
        if report.failure:
            return {
                SCORE: WORST_SCORE,
                "measured": {},
                "student": student,
                "finished": False,
                "failure": report.failure,
            }
        if report.improved:
            student = self._publish(len(self._history) + 1, student)
        return {
            SCORE: report.measured["best_score"],
            "measured": {**report.measured, "teacher_examples": self._teacher_examples},
            "improved": report.improved,
            "student": student,
            "finished": report.done,
            "failure": "",
        }

    def _publish(self, epoch: int, previous: str) -> str:
        """Store the student as it stands; the one that it surpasses goes, which nobody else can know of."""
        inputs = self._inputs | {"epoch": epoch, "sweep": str(self._plan.folder.root), "trial": self.trial_id}
        with self._plan.store.create("student", inputs) as folder:
            self._gang.call("save_model", folder)
        if previous:
            shutil.rmtree(self._plan.storage.artifacts / previous, ignore_errors=True)
        return self._plan.store.path("student", inputs).name

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the ranks' state to storage that all nodes see, for Tune a pointer to it; the last two are kept."""
        epoch = len(self._history)
        folder = self._checkpoints / f"epoch-{epoch}"
        if not self._known:
            self._gang.call("save", folder)
            shutil.rmtree(self._checkpoints / f"epoch-{epoch - 2}", ignore_errors=True)
        pointer = {"folder": str(folder), "history": self._history, "teacher_examples": self._teacher_examples}
        write_json(Path(checkpoint_dir) / POINTER, pointer)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a checkpoint."""
        pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text())
        self._begin()
        if not self._known:
            self._gang.call("load", Path(pointer["folder"]))
            self._teacher_examples = pointer["teacher_examples"]
        self._history = pointer["history"]

    @property
    def _checkpoints(self) -> Path:
        return self._plan.folder.checkpoints(self.trial_id)

    def cleanup(self) -> None:
        """End the other ranks."""
        self._gang.stop()
