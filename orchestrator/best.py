"""The best student of a sweep, shown."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage, SweepFolder, TaskFolder
from stkd.orchestrator.results import TaskResults, TrialResult, read_results
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space
from stkd.trainers.errors import UserError


@dataclass(frozen=True)
class BestStudent:
    """The best student of one task, and the models it is measured against."""

    sweep: str
    results: TaskResults
    trial: TrialResult
    folder: Path
    space: Path
    """The search space, as the sweep was run."""

    def as_dict(self) -> dict[str, Any]:
        """Everything known of it, for machines. Scores are in 0..1."""
        return {
            "sweep": self.sweep,
            "task": self.results.task,
            "trial": self.trial.trial,
            "values": dict(self.trial.values),
            "score": self.trial.score,
            "test_score": self.test_score,
            "metrics": dict(self.trial.metrics),
            "teacher_score": self.teacher_score,
            "teacher_test_score": self.teacher_test_score,
            "dense_student_score": self.dense_score,
            "verdict": self.results.evidence.verdict if self.results.evidence else None,
            "student": str(self.folder),
        }

    @property
    def test_score(self) -> float | None:
        """On the test split; this and all other scores are in 0..1, and None where they are not known."""
        return self._test_score(self.trial.student)

    @property
    def teacher_score(self) -> float | None:
        """The teacher's, on the split that students are chosen by."""
        return self._stage_score("teacher")

    @property
    def teacher_test_score(self) -> float | None:
        """The teacher's, on the test split."""
        return self._stage_test_score("teacher")

    @property
    def dense_score(self) -> float | None:
        """That of the student of the dense teacher, on the split that students are chosen by."""
        return self._stage_score("trial_student")

    @property
    def dense_test_score(self) -> float | None:
        """The same on the test split."""
        return self._stage_test_score("trial_student")

    def _test_score(self, model: str) -> float | None:
        test = self.results.tests.get(model)
        return None if test is None else test.score

    def _stage_test_score(self, stage: str) -> float | None:
        found = self.results.stages.get(stage)
        return None if found is None else self._test_score(found.artifact)

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

    def student(self, trial: TrialResult) -> BestStudent:
        """The student of a trial."""
        folder = self.storage.artifacts / trial.student
        return BestStudent(self.sweep.sweep_id, self.results, trial, folder, self.sweep.space)


def find_task(storage: Path, sweep_id: str, task: str | None) -> FoundTask:
    """A task of a sweep; raises UserError where there is none, or several and none was named."""
    root = Storage(storage.expanduser().absolute())
    sweep = root.find_sweep(sweep_id)
    by_task = read_results(sweep)
    if not by_task:
        raise UserError(f"sweep {sweep.sweep_id} has no results yet")
    if task is None and len(by_task) > 1:
        raise UserError(f"sweep {sweep.sweep_id} has several tasks; choose one with --task: {', '.join(by_task)}")
    name = task or next(iter(by_task))
    if name not in by_task:
        raise UserError(f"sweep {sweep.sweep_id} has no task {name!r}; it has: {', '.join(by_task)}")
    return FoundTask(root, sweep, by_task[name])


def best_student(storage: Path, sweep_id: str, task: str | None) -> BestStudent:
    """The student to take; raises UserError where there is no such sweep or task, or no student yet."""
    found = find_task(storage, sweep_id, task)
    chosen = chosen_trial(found.results)
    if chosen is None:
        raise UserError(f"sweep {found.sweep.sweep_id} has no student for task {found.results.task} yet")
    return found.student(chosen)


def percentage(score: float | None) -> str:
    """A score in 0..1 as a percentage."""
    return "not known" if score is None else f"{100 * score:.1f}"
