"""Results, where they lie, what is best, and what the screen says of them."""

import io
from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError
from rich.console import Console
from stored import store, trial

from stkd.orchestrator.callback import failure_reason
from stkd.orchestrator.finding import best_run, find_task
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import (
    Confirmed,
    Evidence,
    FinalScore,
    Interval,
    ResultsFile,
    StageResult,
    TrialResult,
    describe,
    describe_as,
    read_results,
)
from stkd.orchestrator.tables import print_whole, results_table, size_line
from stkd.trainers.errors import UserError


def test_later_lines_replace_earlier_ones_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "task" / "results.jsonl")
    stage = StageResult("teacher", "teacher-1", 3.0, False, {"score": 0.9})
    file.append(stage)
    file.append(trial("a", 0.5, "running"))
    file.append(trial("a", 0.6))
    with (tmp_path / "task" / "results.jsonl").open("a") as raw:
        raw.write('{"kind": "trial", "trial": "b", "val')
    results = file.read("mrpc")
    assert results.stages == {"teacher": stage}
    assert results.trials == {"a": trial("a", 0.6)}


def test_ranked_by_score_and_without_trials_that_have_no_student() -> None:
    results = ResultsFile(Path("nowhere")).read("mrpc")
    failed = TrialResult("f", {}, "failed", reason="boom")
    results.trials = {t.trial: t for t in (trial("a", 0.5), trial("b", 0.7), failed, trial("c", 0.7))}
    assert [t.trial for t in results.ranked()] == ["b", "c", "a"]


def test_best_student_of_the_newest_sweep(tmp_path: Path) -> None:
    store(tmp_path, trial("a", 0.99))
    storage = store(tmp_path, trial("a", 0.5), trial("b", 0.7))
    student = best_run(find_task(tmp_path, "latest", None))
    assert student.trial.trial == "b"
    assert student.student == storage.artifacts / "student-b"
    assert student.as_dict()["score"] == 0.7
    assert student.trial.name == "lambda=0.416 s=0.3 T=2.63"


@pytest.mark.parametrize(
    ("sweep", "task", "message"),
    [
        ("latest", "rte", "has no task 'rte'; it has: mrpc"),
        ("tinny-1", None, "no sweep 'tinny-1'"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, sweep: str, task: str | None, message: str) -> None:
    store(tmp_path, trial("a", 0.5))
    with pytest.raises(UserError, match=message):
        find_task(tmp_path, sweep, task)


def test_storage_without_sweeps_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stkd sweep"):
        best_run(find_task(tmp_path, "latest", None))


def test_evidence_comes_back_as_it_was_written_and_is_told_with_the_best(tmp_path: Path) -> None:
    found = Confirmed("s=0.3 T=2", "candidate", 3, Interval(0.8, 0.7, 0.9), Interval(0.79, 0.7, 0.88), 0.02)
    evidence = Evidence([found], Interval(0.01, -0.02, 0.04), "no difference is shown")
    confirmed = trial("c", 0.4, phase="confirm", values={"distillation.sparsity": 0.3, "training.seed": 777})
    storage = store(tmp_path, trial("a", 0.9), confirmed, evidence)
    assert read_results(storage.find_sweep())["mrpc"].evidence == evidence
    student = best_run(find_task(tmp_path, "latest", None))
    assert student.trial.trial == "c"
    assert student.as_dict()["verdict"] == "no difference is shown"


def test_test_scores_stand_beside_the_best(tmp_path: Path) -> None:
    teacher = StageResult("teacher", "teacher-1", 1.0, False, trial("x", 0.9).metrics)
    tests = [FinalScore("student-a", "test-1", {"score": 0.61}), FinalScore("teacher-1", "test-2", {"score": 0.87})]
    store(tmp_path, teacher, trial("a", 0.7), *tests)
    student = best_run(find_task(tmp_path, "latest", None))
    assert (student.as_dict()["test_score"], student.as_dict()["teacher_test_score"]) == (0.61, 0.87)
    assert (student.as_dict()["score"], student.as_dict()["teacher_score"]) == (0.7, 0.9)


def test_two_sweeps_in_one_second_get_two_folders(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sweeps = [storage.new_sweep("tiny") for _ in range(3)]
    assert len({sweep.root for sweep in sweeps}) == 3
    for sweep in sweeps:
        sweep.space.write_text("")
    assert storage.find_sweep().root == sweeps[-1].root
    assert read_results(sweeps[0]) == {}


def test_describe() -> None:
    assert describe({"interpolation": 0.41999, "distillation.sparsity": 0.3}) == "lambda=0.42 s=0.3"
    assert describe({"training.batch_size": 16}) == "training.batch_size=16"
    assert describe({}) == "the only setting"
    assert describe({"distillation.hard_weight": 1.0, "distillation.scorer": "random"}) == "hard_weight=1 scorer=random"
    assert describe_as("no teacher", {"distillation.hard_weight": 1.0}) == "no teacher"
    assert describe_as("no teacher", {"training.seed": 3}) == "no teacher, training.seed=3"
    assert describe_as("dense teacher", {"distillation.sparsity": 0.0}) == "dense teacher, s=0"


def test_failure_reason_is_the_last_line_of_the_cause() -> None:
    assert failure_reason(RuntimeError("a\n  b \n")) == "RuntimeError: b"
    assert failure_reason(None) == "no reason was recorded"
    gone = failure_reason(OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."))
    assert gone == "a process of it is gone: its host ran low on memory, and Ray ended it"


def test_a_narrow_screen_gets_whole_lines() -> None:
    results = ResultsFile(Path("nowhere")).read("mrpc")
    results.trials = {"a": trial("a", 0.5)}
    wide, narrow = io.StringIO(), io.StringIO()
    print_whole(Console(file=wide, width=100), results_table(results))
    print_whole(Console(file=narrow, width=30), results_table(results))
    assert [line.rstrip() for line in narrow.getvalue().splitlines()] == [
        line.rstrip() for line in wide.getvalue().splitlines()
    ]


def test_table_puts_the_teacher_and_the_dense_student_beside_the_best() -> None:
    results = ResultsFile(Path("nowhere")).read("mrpc")
    metrics = trial("x", 0.836).metrics
    results.stages["teacher"] = StageResult("teacher", "t", 1.0, False, metrics)
    results.stages["trial_student"] = StageResult("trial_student", "s", 1.0, False, trial("y", 0.791).metrics)
    results.trials = {t.trial: t for t in (trial("a", 0.5), trial("b", 0.8))}
    screen = io.StringIO()
    Console(file=screen, width=80).print(results_table(results))
    text = screen.getvalue()
    assert text.index("83.6") < text.index("79.1") < text.index("80.0") < text.index("50.0")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "17.2M parameters, 69 MB, 3.1 ms" in size_line(results)
