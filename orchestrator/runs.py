"""What a storage holds of a sweep: one of its tasks, and one of its trials, with all that is recorded of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stkd.orchestrator.artifacts import RECORD, record_of
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage, SweepFolder, TaskFolder
from stkd.orchestrator.results import TaskResults, TrialResult
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space


@dataclass(frozen=True)
class Run:
    """A trial, and where it belongs. Scores are in 0..1, and None where they are not known."""

    storage: Storage
    sweep: SweepFolder
    results: TaskResults
    trial: TrialResult

    @property
    def name(self) -> str:
        """`SWEEP/TASK/TRIAL`."""
        return f"{self.sweep.sweep_id}/{self.results.task}/{self.trial.trial}"

    @cached_property
    def space(self) -> Space:
        """The space with the trial's values. Raises UserError where this version of stkd cannot read it."""
        return read_space(self.sweep.space).with_values(self.trial.values)

    @property
    def student(self) -> Path:
        """The folder of the trial's student."""
        return self.artifact(self.trial.student)

    def artifact(self, name: str) -> Path:
        """A folder of the storage's artifacts."""
        return self.storage.artifacts / name

    def record(self, name: str) -> Mapping[str, Any]:
        """An artifact's record; empty where it is gone."""
        folder = self.artifact(name)
        return record_of(folder) if name and (folder / RECORD).is_file() else {}

    def stage(self, name: str) -> str:
        """The artifact of a stage, of the trial's own kind of student; empty where it is not known."""
        settings = self.space.student
        labels = ("", f"-layers={settings.layers}", f"-sparsity={settings.sparsity:g}")
        found = next((stage for label in labels if (stage := self.results.stages.get(name + label))), None)
        return found.artifact if found else ""

    @property
    def test_score(self) -> float | None:
        """The student's, on the test split."""
        return self._test_score(self.trial.student)

    @property
    def teacher_score(self) -> float | None:
        """The teacher's, on the split that students are chosen by."""
        return self._stage_score("teacher")

    @property
    def teacher_test_score(self) -> float | None:
        """The teacher's, on the test split."""
        teacher = self.results.stages.get("teacher")
        return None if teacher is None else self._test_score(teacher.artifact)

    def as_dict(self) -> dict[str, Any]:
        """What it is and what it scored, for machines."""
        return {
            "sweep": self.sweep.sweep_id,
            "task": self.results.task,
            "trial": self.trial.trial,
            "values": dict(self.trial.values),
            "score": self.trial.score,
            "test_score": self.test_score,
            "metrics": dict(self.trial.metrics),
            "teacher_score": self.teacher_score,
            "teacher_test_score": self.teacher_test_score,
            "dense_student_score": self._stage_score("trial_student"),
            "verdict": self.results.evidence.verdict if self.results.evidence else None,
            "student": str(self.student),
        }

    def _test_score(self, model: str) -> float | None:
        test = self.results.tests.get(model)
        return None if test is None else test.score

    def _stage_score(self, stage: str) -> float | None:
        found = self.results.stages.get(stage)
        return None if found is None else found.metrics.get("score")


@dataclass(frozen=True)
class FoundTask:
    """One task of a sweep, with everything that was found."""

    storage: Storage
    sweep: SweepFolder
    results: TaskResults

    @property
    def folder(self) -> TaskFolder:
        """The task's files."""
        return self.sweep.task(self.results.task)

    @cached_property
    def space(self) -> Space:
        """The space as the sweep was run."""
        return read_space(self.sweep.space)

    def run(self, trial: TrialResult) -> Run:
        """One of its trials."""
        return Run(self.storage, self.sweep, self.results, trial)

    @property
    def best(self) -> Run | None:
        """The trial whose student the sweep has chosen; None while there is none."""
        chosen = chosen_trial(self.results)
        return None if chosen is None else self.run(chosen)
