"""What a training is, and what became of it epoch by epoch, so that nobody trains the same thing twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stkd.search_spaces.schema import Space
from stkd.trainers.specs import EpochReport
from stkd.trainers.stopwatch import Phase, as_metrics
from stkd.trainers.tasks import Task

HISTORY = "history.json"
SCORE = "best_score"
"""What trials are compared by: the task's score of a trial's best epoch so far."""
WORST_SCORE = -1.0
"""Of a failed trial: no metric of any task goes below it, and searchers need a number."""


def trial_inputs(space: Space, task: Task, teacher: Path, mask: str, student: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides what a distillation comes to.

    `teacher` is an artifact of the data that it has learned from, `mask` names the units that it has lost, and
    `student` is what the student starts from. A regression's losses have no temperature.
    """
    settings = {"hard_weight"} if task.kind == "regression" else {"hard_weight", "temperature"}
    return {
        "teacher": teacher.name,
        "mask": mask,
        "student": student,
        "training": space.training.model_dump(),
        "distillation": space.distillation.model_dump(include=settings),
        "deepspeed": space.deepspeed,
        "ranks": space.resources.ranks,
    }


def epoch_entry(
    report: EpochReport, student: str, teacher_examples: int, seconds: Mapping[Phase, float]
) -> dict[str, Any]:
    """An epoch as it is reported to Ray Tune and kept. `student` is the artifact of the best student so far."""
    measured: Mapping[str, float] = report.measured
    if report.failure:
        return {
            SCORE: WORST_SCORE,
            "measured": {},
            "student": student,
            "finished": False,
            "failure": report.failure,
            "note": "",
        }
    return {
        SCORE: measured["best_score"],
        "measured": {**measured, "teacher_examples": teacher_examples, **as_metrics(seconds)},
        "improved": report.improved,
        "student": student,
        "finished": report.done,
        "failure": "",
        "note": report.note,
    }
