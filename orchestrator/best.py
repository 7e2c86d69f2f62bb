"""The best student of a sweep: shown, and written as a folder of its own."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stkd.orchestrator.artifacts import RECORD
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import TaskResults, TrialResult, read_results
from stkd.trainers.errors import UserError


@dataclass(frozen=True)
class BestStudent:
    """The best student of one task, and the models it is measured against."""

    sweep: str
    results: TaskResults
    trial: TrialResult
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """Everything known of it, for machines. Scores are in 0..1."""
        return {
            "sweep": self.sweep,
            "task": self.results.task,
            "trial": self.trial.trial,
            "values": dict(self.trial.values),
            "score": self.trial.score,
            "test_score": self._test_score(self.trial.student),
            "metrics": dict(self.trial.metrics),
            "teacher_score": self._stage_score("teacher"),
            "teacher_test_score": self._teacher_test_score(),
            "dense_student_score": self._stage_score("trial_student"),
            "verdict": self.results.evidence.verdict if self.results.evidence else None,
            "student": str(self.folder),
        }

    def as_text(self) -> str:
        """The same for a person. Scores are percentages."""
        metrics = self.trial.metrics
        rows = [
            ("sweep", f"{self.sweep}, task {self.results.task}"),
            ("best student", f"{self.trial.name} (trial {self.trial.trial}, epoch {metrics['epoch']:.0f})"),
            ("score", f"{100 * self.trial.score:.1f}; test {_percent(self._test_score(self.trial.student))}"),
            ("teacher", f"{_percent(self._stage_score('teacher'))}; test {_percent(self._teacher_test_score())}"),
            ("dense student", f"{_percent(self._stage_score('trial_student'))} (student of the dense teacher)"),
            ("size", f"{metrics['parameters'] / 1e6:.1f}M parameters, {metrics['megabytes']:.0f} MB"),
            ("speed", f"{metrics['milliseconds_per_example']:.1f} ms per example, one at a time"),
            ("folder", str(self.folder)),
        ]
        if self.results.evidence:
            rows.insert(-1, ("verdict", self.results.evidence.verdict))
        return "\n".join(f"{name:<14}{value}" for name, value in rows)

    def _test_score(self, model: str) -> float | None:
        test = self.results.tests.get(model)
        return None if test is None else test.score

    def _teacher_test_score(self) -> float | None:
        teacher = self.results.stages.get("teacher")
        return None if teacher is None else self._test_score(teacher.artifact)

    def _stage_score(self, stage: str) -> float | None:
        found = self.results.stages.get(stage)
        return None if found is None else found.metrics.get("score")


def best_student(storage: Path, sweep_id: str, task: str | None) -> BestStudent:
    """The student with the highest score; raises UserError where there is no such sweep or task, or no student yet."""
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
    chosen = chosen_trial(by_task[name])
    if chosen is None:
        raise UserError(f"sweep {sweep.sweep_id} has no student for task {name} yet")
    return BestStudent(sweep.sweep_id, by_task[name], chosen, root.artifacts / chosen.student)


def export_student(student: BestStudent, target: Path) -> None:
    """Copy the student's folder; raises UserError where something lies there already."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--export {target}: already there and not empty; choose another folder")
    if not student.folder.is_dir():
        raise UserError(f"the student's folder {student.folder} is gone from the artifacts")
    try:
        shutil.copytree(student.folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RECORD))
    except OSError as error:
        raise UserError(f"--export {target}: cannot be written: {error.strerror}") from error


def _percent(score: float | None) -> str:
    return "not known" if score is None else f"{100 * score:.1f}"
