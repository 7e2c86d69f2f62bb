"""Who is no better than the same answer to everything, and that it is said."""

from pathlib import Path

import numpy as np
import pytest

from stkd.orchestrator.guessing import Guessing
from stkd.orchestrator.results import StageResult, TaskResults, TrialResult
from stkd.search_spaces.reading import read_space
from stkd.trainers.metrics import guessing_score
from stkd.trainers.sources import TaskData, load_task
from stkd.trainers.tasks import TASKS, Task

LABELS = np.array([1, 1, 1, 0])


@pytest.mark.parametrize(
    ("name", "labels", "score"),
    [
        ("sst2", LABELS, 3 / 4),
        ("mrpc", LABELS, (3 / 4 + 6 / 7) / 2),
        ("mrpc", np.array([0, 0, 0, 1, 1]), (2 / 5 + 4 / 7) / 2),  # the rarer class, whose F1 counts
        ("cola", LABELS, 0.0),
        ("mnli", np.array([2, 2, 1, 0, 2]), 3 / 5),
        ("stsb", np.array([0.5, 4.0, 2.0]), 0.0),
    ],
)
def test_the_best_of_all_answers_that_never_change(name: str, labels: np.ndarray, score: float) -> None:
    assert guessing_score(TASKS[name], labels) == pytest.approx(score)


def test_several_labels_a_text_are_guessed_each_by_itself() -> None:
    labels = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0]])
    task = Task("topics", "multilabel", ("a", "b", "c"), ("exact_match",))
    assert guessing_score(task, labels) == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def data() -> TaskData:
    space = read_space(Path("quickstart"), ("data.train_examples=10",))
    return load_task("remarks", space.data)


def guessing(data: TaskData, *changes: str) -> Guessing:
    return Guessing(read_space(Path("quickstart"), changes), data)


def results(*scores: float, trial_student: float = 0.9) -> TaskResults:
    stage = StageResult("trial_student", "trial_student-1", 1.0, False, {"score": trial_student})
    trials = {
        str(number): TrialResult(str(number), {}, "finished", metrics={"score": score}, student=f"student-{number}")
        for number, score in enumerate(scores)
    }
    return TaskResults("remarks", {"trial_student": stage}, trials)


def test_a_trial_student_that_guesses_is_named_with_what_to_do(data: TaskData) -> None:
    said = guessing(data, "student.keep=first").of_trial_student(results(trial_student=0.51))
    assert said == (
        "the trial student (score 51.0) is no better than the same answer to every example (50.0): try --set "
        "student.keep=even, more than 2 training.epochs or a training.learning_rate above 0.0001"
    )
    even = guessing(data).of_trial_student(results(trial_student=0.51))
    assert even is not None
    assert "student.keep" not in even
    assert guessing(data).of_trial_student(results(trial_student=0.53)) is None  # 500 examples: 2.2 points by chance
    assert guessing(data).of_trial_student(TaskResults("remarks")) is None


def test_a_search_of_students_that_guess_is_named(data: TaskData) -> None:
    said = guessing(data).of_search(results(0.5, 0.9, 0.5, 0.5, trial_student=0.9))
    assert said is not None
    assert said.startswith("3 of 4 students, whose ranking therefore says little, are no better than the same answer")
    assert guessing(data).of_search(results(0.5, 0.9, 0.9)) is None
    assert guessing(data).of_search(results()) is None
