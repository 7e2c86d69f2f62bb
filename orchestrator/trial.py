"""A trial: one student, distilled from one sparse teacher, inside a Ray Tune trainable that stays warm for the next."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.util import get_node_ip_address

from stkd.cluster.gang import Gang
from stkd.orchestrator.artifacts import ArtifactStore, seconds_of, write_json
from stkd.orchestrator.history import HISTORY, epoch_entry, trial_inputs
from stkd.orchestrator.hosting import WORKER
from stkd.orchestrator.layout import Storage, TaskFolder
from stkd.orchestrator.phases import name_of, values_of
from stkd.orchestrator.stages import Shared, StudentStages
from stkd.orchestrator.writing import remove_whole
from stkd.search_spaces.schema import Space
from stkd.trainers.patience import patiently, probe
from stkd.trainers.ranking import UnitScores, mask_name
from stkd.trainers.specs import SCORES, Distillation, EpochReport, JobSpec, is_whole
from stkd.trainers.stopwatch import from_metrics, wall_clock
from stkd.trainers.tasks import Task

POINTER = "checkpoint.json"


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a task have in common."""

    space: Space
    task: Task
    storage: Storage
    folder: TaskFolder
    shared: Shared

    @property
    def store(self) -> ArtifactStore:
        """The artifacts that trials share."""
        return ArtifactStore(self.storage.artifacts)

    def inputs(self, space: Space, mask: str) -> dict[str, Any]:
        """What a trial's student follows from: the space with its values, and the name of its teacher's mask."""
        return trial_inputs(space, self.task, self.shared.teacher, mask, self.shared.of(space.student).inputs)

    def logits_inputs(self, mask: str) -> dict[str, Any]:
        """What the logits of a sparse teacher follow from."""
        return {"data": self.shared.data.name, "teacher": self.shared.teacher.name, "mask": mask}

    def job(self, space: Space, mask: str) -> JobSpec:
        """The training of a trial, whose teacher's logits are there."""
        student, logits = self.shared.of(space.student), self.store.path("logits", self.logits_inputs(mask))
        distillation = Distillation(self.shared.teacher, logits, space.student, space.distillation, student.importance)
        return JobSpec(self.task, student.data, space.training, distillation=distillation, deepspeed=space.deepspeed)


class Trial(tune.Trainable):  # type: ignore[misc]
    """One trial after another in one process: `reset_config` keeps the ranks, their imports and process group.

    What was trained before is told without ranks: where that is all, no process loads torch.

    `step` is one epoch. It reports `measured` (the job's metrics, and as `teacher_examples` how many examples a teacher
    had to read for this trial: none where the logits were there), `student` (the folder of the best student so far),
    and whether the trial is finished or why it failed. A failure that would come again is reported, not raised: Tune
    retries what is raised, in a new process.
    """

    def setup(self, config: dict[str, Any], plan: TrialPlan) -> None:
        """Take the first trial's settings; its ranks start with its first step, if it has to be trained at all."""
        if not plan.folder.root.is_dir():
            raise FileNotFoundError(f"node {get_node_ip_address()} does not see the storage {plan.storage.root}")
        self._plan = plan
        self._watch = wall_clock("start")
        needs, name = plan.space.resources, name_of(self.trial_id, config)
        self._gang = Gang(WORKER, needs.ranks, needs.cpus_per_rank, needs.gpus_per_rank, name)
        self._reset(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial's settings."""
        self._end_job()
        self._watch.read()
        self._reset(new_config)
        return True

    def _reset(self, config: Mapping[str, Any]) -> None:
        self._name = name_of(self.trial_id, config)
        self._gang.works_for(self._name)
        self._values = values_of(config, self._plan.space)
        self._inputs: dict[str, Any] = {}
        self._history: list[dict[str, Any]] = []
        self._known: list[dict[str, Any]] = []
        self._teacher_examples = 0
        self._saved = 0.0
        self._begun = False

    def step(self) -> dict[str, Any]:
        """Train an epoch and report; where the same trial was run to its end before, report what it found.

        `saved` are the seconds that it took others to make what was taken over for this epoch.
        """
        self._watch.enter("start")
        with self._gang.during("step"):
            return self._step()

    def _step(self) -> dict[str, Any]:
        self._begin()
        report = self._known[len(self._history)] if self._known else self._train()
        saved = sum(from_metrics(report["measured"]).values()) if self._known else self._saved
        self._saved = 0.0
        self._history.append(report)
        if report["finished"] and not self._known:
            with self._plan.store.create("trial", self._inputs, self._made_with) as folder:
                write_json(folder / HISTORY, self._history)
        self._watch.enter("waiting")
        done = report["finished"] or bool(report["failure"])
        told = {"done": done, "saved": saved, "taken_over": bool(self._known)}
        return report | told | {"training_iteration": len(self._history)}

    def _begin(self) -> None:
        if self._begun:
            return
        plan, space = self._plan, self._plan.space.with_values(self._values)
        student = plan.shared.of(space.student)
        mask = mask_name(*UnitScores.load(student.scores / SCORES).kept(space.distillation, space.training.seed))
        self._inputs = plan.inputs(space, mask)
        finished = plan.store.find("trial", self._inputs)
        if finished is not None:
            self._known = json.loads((finished / HISTORY).read_text())
        else:
            self._begin_job(space, mask, student)
        self._go_on()
        self._begun = True

    def _begin_job(self, space: Space, mask: str, student: StudentStages) -> None:
        shared, store, inputs = self._plan.shared, self._plan.store, self._plan.logits_inputs(mask)
        self._watch.enter("waiting")
        with store.once("logits", inputs, self._made_with) as folder:
            if folder is not None:
                self._watch.enter("teacher")
                settings = (space.distillation, space.training.seed)
                arguments = (shared.teacher, student.scores, *settings, shared.data, folder)
                self._teacher_examples = self._gang.call("save_sparse_logits", *arguments)
        self._watch.enter("start")
        self._saved = 0.0 if self._teacher_examples else seconds_of(store.path("logits", inputs))
        self._gang.call("begin", self._plan.job(space, mask))

    def _train(self) -> dict[str, Any]:
        seconds = Counter(self._watch.read())
        report: EpochReport = self._gang.call("run_epoch")
        self._watch.read()
        self._watch.enter("checkpoint")
        student = self._history[-1]["student"] if self._history else ""
        if report.improved and not report.failure:
            student = self._publish(len(self._history) + 1)
        seconds.update(report.seconds)
        seconds.update(self._watch.read())
        return epoch_entry(report, student, self._teacher_examples, seconds)

    def _publish(self, epoch: int) -> str:
        """Store the student as it stands."""
        inputs = self._inputs | {"epoch": epoch, "sweep": str(self._plan.folder.root), "trial": self._name}
        with self._plan.store.create("student", inputs, self._made_with) as folder:
            self._gang.call("save_model", folder)
        return self._plan.store.path("student", inputs).name

    def _made_with(self) -> Mapping[str, Any]:
        return dict(self._gang.call("made_with"))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Have the ranks' state written where all nodes see it; the last two are kept. Tune gets the folder's name."""
        self._watch.enter("checkpoint")
        with self._gang.during("save_checkpoint"):
            self._save(checkpoint_dir)
        self._watch.enter("waiting")

    def _save(self, checkpoint_dir: str) -> None:
        epoch = len(self._history)
        if not self._known and not self._history[-1]["finished"]:
            self._gang.call("save", self._checkpoints / f"epoch-{epoch}")
            remove_whole(self._checkpoints / f"epoch-{epoch - 2}")
            self._remove_surpassed()
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        known = {"history": self._history, "teacher_examples": self._teacher_examples}
        write_json(self._checkpoints / POINTER, known)
        write_json(Path(checkpoint_dir) / POINTER, {"folder": str(self._checkpoints)})
        root = self._plan.folder.root
        patiently(lambda: probe(root), root)  # Tune writes there next, and has no patience

    def _remove_surpassed(self) -> None:
        """The student goes that no checkpoint knows as the best any more, and so nobody can go back to."""
        if len(self._history) > 2:
            surpassed, *kept = [entry["student"] for entry in self._history[-3:]]
            if surpassed and surpassed not in kept:
                self._plan.store.remove(surpassed)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the next step looks for the trial's own last one, which Tune may not know after a kill."""

    def _go_on(self) -> None:
        """From the last checkpoint that was written to its end; from the start where there is none."""
        last = self._checkpoints / POINTER
        if not last.is_file():
            return
        pointer = json.loads(last.read_text())
        self._history = pointer["history"]
        if self._known:
            del self._history[len(self._known) - 1 :]  # its end is told again, which a killed driver has not heard
            return
        ranks = self._plan.space.resources.ranks
        while self._history and not is_whole(self._checkpoints / f"epoch-{len(self._history)}", ranks):
            self._history.pop()
        self._teacher_examples = pointer["teacher_examples"]
        if self._history:
            self._gang.call("load", self._checkpoints / f"epoch-{len(self._history)}")

    @property
    def _checkpoints(self) -> Path:
        return self._plan.folder.checkpoints(self._name)

    def cleanup(self) -> None:
        """End the other ranks, when the last checkpoint is written."""
        with suppress(RayError, RuntimeError):  # a rank that is gone has nothing left to write
            self._end_job()
        self._gang.stop()

    def _end_job(self) -> None:
        if self._gang.has_started:
            self._gang.call("end")
