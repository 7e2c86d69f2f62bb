"""Rebuilds a trial's student in a fresh place, by the same stages and the same training as the sweep did."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from typing_extensions import override

from stkd.cluster.capacity import Request
from stkd.cluster.cluster import Cluster
from stkd.orchestrator.admission import admit
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.events import Observer, Observers
from stkd.orchestrator.hosting import worker_gang
from stkd.orchestrator.layout import Storage, TaskFolder
from stkd.orchestrator.runs import Run
from stkd.orchestrator.score_tables import print_line
from stkd.orchestrator.scoring import run_stages
from stkd.orchestrator.screen import people_watching
from stkd.orchestrator.session import quiet_libraries, sigterm_as_ctrl_c
from stkd.orchestrator.stages import CallGang, Shared, Stages, ray_caller, read_metrics
from stkd.orchestrator.tables import percent
from stkd.orchestrator.trial import TrialPlan
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import EpochReport

LOG = "reproduce.log"
STUDENT = "student"


class StageNames(Stages):
    """What the stages of a space follow from, and how their artifacts are called, found without running any."""

    def __init__(self, space: Space, data: TaskData, store: ArtifactStore) -> None:
        super().__init__(space, data, store, Observer(), _nobody)
        self.inputs: dict[str, Mapping[str, Any]] = {}
        """By stage."""

    @override
    def _stage(self, name: str, inputs: Mapping[str, Any], compute: Callable[[Path], Any], label: str = "") -> Path:
        self.inputs[name] = inputs
        return self._store.path(name, inputs)


def _nobody() -> CallGang:
    raise AssertionError("names are found without computing")


@dataclass(frozen=True)
class Rebuilt:
    """What has come out: artifacts by what they are, and the metrics of the student's epoch."""

    artifacts: Mapping[str, Path]
    mask: str
    metrics: Mapping[str, float]
    failure: str = ""


def stage_space(space: Space, run: Run) -> Space:
    """What the stages of a trial see: the sweep's own settings, with the trial's kind of student alone."""
    student = {key: value for key, value in run.trial.values.items() if key.startswith("student.")}
    return space.model_copy(update={"search": {}}).with_values(student)


def parts_of(shared: Shared, space: Space) -> dict[str, Path]:
    """The artifacts that a trial of these settings builds on."""
    student = shared.of(space.student)
    parts = {"data": shared.data, "teacher": shared.teacher}
    if student.data != shared.data:
        parts["student's data"] = student.data
    if student.importance is not None:
        parts["importance"] = student.importance
    return {**parts, "trial student": student.trial_student, "scores": student.scores}


def rebuild(run: Run, space: Space, data: TaskData, folder: Path, teacher: Path | None, console: Console) -> Rebuilt:
    """Compute everything that leads to the student anew, into `folder`; only `teacher` is taken over, if given."""
    storage = Storage(folder)
    stages = stage_space(space, run).model_copy(update={"storage": str(folder)})
    store = ArtifactStore(storage.artifacts)
    if teacher is not None:
        storage.artifacts.mkdir(parents=True, exist_ok=True)
        names = StageNames(stages, data, store).run()
        names.teacher.symlink_to(teacher, target_is_directory=True)
    cluster = Cluster()
    with quiet_libraries(folder / LOG), cluster, sigterm_as_ctrl_c():
        admit(stages, cluster)
        shared = run_stages(stages, data, cluster, console, _cores(run.record(run.stage("trial_student"))))
        plan = TrialPlan(stages, data.task, storage, TaskFolder(folder), shared)
        return _distilled(run, plan, cluster, console)


def _cores(record: Mapping[str, Any]) -> int | None:
    """As many as the recorded work had, so that sums have the same order; None where it is not known, or too many."""
    threads: int | None = record.get("made_with", {}).get("threads")
    return threads if threads and threads <= (os.cpu_count() or 1) else None


def _distilled(run: Run, plan: TrialPlan, cluster: Cluster, console: Console) -> Rebuilt:
    """The student, by a gang as wide as the recorded one."""
    space, record = plan.space.with_values(run.trial.values), run.record(run.trial.student)
    parts, student = parts_of(plan.shared, space), plan.shared.of(space.student)
    cores, resources = _cores(record) or space.resources.cpus_per_rank, space.resources
    request = Request(resources.ranks, cores, resources.gpus_per_rank)
    with worker_gang(cluster, Observers(people_watching(console, space)), "the student waits", request) as host:
        call = ray_caller(host)
        settings = (space.distillation, space.training.seed)
        mask: str = call("mask_fingerprint", student.scores, *settings)
        if record.get("stage") == "trial_student":  # it is the trial student, and was not trained again
            return Rebuilt({**parts, STUDENT: student.trial_student}, mask, read_metrics(student.trial_student))
        inputs = plan.logits_inputs(mask)
        parts["logits"] = plan.store.path("logits", inputs)
        with plan.store.once("logits", inputs, lambda: dict(call("made_with"))) as folder:
            if folder is not None:
                call("save_sparse_logits", plan.shared.teacher, student.scores, *settings, plan.shared.data, folder)
        call("begin", plan.job(space, mask))
        report = _trained(call, int(run.trial.metrics["epoch"]), console)
        if report.failure:
            return Rebuilt(parts, mask, {}, report.failure)
        student_inputs = {**plan.inputs(space, mask), "epoch": int(report.measured["epoch"])}
        with plan.store.create("student", student_inputs, lambda: dict(call("made_with"))) as folder:
            call("save_model", folder)
        return Rebuilt({**parts, STUDENT: plan.store.path("student", student_inputs)}, mask, report.measured)


def _trained(call: CallGang, epochs: int, console: Console) -> EpochReport:
    """Train up to the epoch that the student is of; its report, or that of an earlier failure."""
    for epoch in range(1, epochs + 1):
        report: EpochReport = call("run_epoch")
        if report.failure:
            break
        score = percent(report.measured["score"])
        print_line(console, f"the student: epoch {epoch} of {epochs}, score {score}")
    return report
