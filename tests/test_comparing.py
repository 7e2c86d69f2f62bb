"""Two trials beside each other: how they are named, what differs between them, and by how much."""

import csv
import json
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from stored import SPACE, scores_of, store, trial

from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.cli import main
from stkd.orchestrator.finding import find_run
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import FinalScore, ResultsFile, StageResult
from stkd.trainers.errors import UserError
from stkd.trainers.specs import SCORES


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A sweep of two tasks with a few trials, students whose records tell what they were made with, and scores."""
    values = {"interpolation": 0.416, "sparsity": 0.6, "temperature": 2.63}
    results = (
        StageResult("teacher", "teacher-1", 9.0, False, {"score": 0.9}),
        StageResult("scores", "scores-1", 9.0, False),
        trial("aab1", 0.61, epochs=2),
        trial("aac2", 0.74, epochs=2, values=values),
        trial("bbd3", 0.7, values={**values, "training.seed": 5}),
        FinalScore("student-aab1", "test-1", {"score": 0.6}),
    )
    storage = store(tmp_path, *results, space=SPACE.replace("[mrpc]", "[mrpc, rte]"))
    sweep = storage.find_sweep()
    ResultsFile(sweep.task("rte").results).append(trial("ccc4", 0.55))
    artifacts = ArtifactStore(storage.artifacts)
    for name, made_with in (("aab1", {"threads": 1}), ("aac2", {"threads": 2})):
        with artifacts.create("student", {"of": name}, made_with.copy):
            pass
        artifacts.path("student", {"of": name}).rename(storage.artifacts / f"student-{name}")
    (storage.artifacts / "scores-1").mkdir()
    scores_of(4, 6, 40).save(storage.artifacts / "scores-1" / SCORES)
    curves = {"aab1": (0.5, 0.61), "aac2": (0.6, 0.74)}
    lines = [
        {"key": f"{sweep.sweep_id}/mrpc/{name}", "kind": "measured", "metrics": metrics, "step": metrics["epoch"]}
        for name, scores in curves.items()
        for metrics in ({"epoch": epoch, "score": score} for epoch, score in enumerate(scores, start=1))
    ]
    sweep.journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    keys = {"": "f0", "/teacher": "f1", "/aab1": "9abc0", "/aac2": "9abd1"}
    ids = {f"{sweep.sweep_id}/mrpc{key}": run_id for key, run_id in keys.items()}
    sweep.journal.with_suffix(".state.json").write_text(json.dumps({"offset": 0, "run_ids": ids}))
    return storage


@pytest.mark.parametrize(
    ("called", "trial"),
    [
        ("aab1", "aab1"),
        ("aac", "aac2"),
        ("cc", "ccc4"),
        ("9abc", "aab1"),
        ("9abd1", "aac2"),
        ("latest/mrpc/aab", "aab1"),
        ("latest/rte", "ccc4"),
        ("latest/mrpc/best", "aac2"),
        ("tiny-/m/bb", "bbd3"),
    ],
)
def test_a_run_is_found_by_what_people_call_it(storage: Storage, called: str, trial: str) -> None:
    assert find_run(storage, called).trial.trial == trial


def test_best_is_that_of_the_latest_sweep(storage: Storage) -> None:
    newest = store(storage.root, trial("zz", 0.9), space=SPACE)
    run = find_run(storage, "best")
    assert (run.trial.trial, run.sweep) == ("zz", newest.find_sweep())
    assert find_run(storage, run.sweep.sweep_id).trial.trial == "zz"
    assert find_run(storage, "latest/zz").name == f"{run.sweep.sweep_id}/mrpc/zz"


@pytest.mark.parametrize(
    ("called", "message"),
    [
        ("aa", r"run 'aa' may be tiny-\S+/mrpc/aab1, tiny-\S+/mrpc/aac2; write more of it"),
        ("bbd4", r"no run 'bbd4' in \S+, did you mean 'bbd3'\?; give a trial's id, SWEEP/TASK/TRIAL, an MLflow"),
        ("f1", r"run f1 is of tiny-\S+/mrpc/teacher, which is no trial"),
        ("latest/mrcp/aab1", r"has no task 'mrcp', did you mean 'mrpc'\?; it has: mrpc, rte"),
        ("latest/mrpc/zz", r"mrpc has no trial 'zz'; it has: aab1, aac2, bbd3"),
        ("latest/mrpc/aa", r"trial 'aa' of \S+ may be aab1, aac2; write more of it"),
        ("latest", r"has several tasks; give tiny-\S+/TASK/best: mrpc, rte"),
        ("other/mrpc/aab1", r"no sweep 'other'"),
        ("a/b/c/d", r"has 4 parts"),
        ("", r"no run ''"),
    ],
)
def test_a_run_that_is_not_meant_clearly_is_refused(storage: Storage, called: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_run(storage, called)


def run(storage: Storage, *arguments: str) -> str:
    done = CliRunner().invoke(main, ["compare", *arguments, "--storage", str(storage.root)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_differs_in_input_and_outcome(storage: Storage) -> None:
    rows = {(row["kind"], row["name"]): row for row in json.loads(run(storage, "aab1", "aac2", "--epochs", "--json"))}
    assert {name for kind, name in rows if kind == "input"} == {
        *("distillation.sparsity", "heads removed", "neurons removed", "which heads", "which neurons", "threads")
    }
    assert (rows["input", "threads"]["left"], rows["input", "threads"]["right"]) == (1, 2)
    assert (rows["input", "heads removed"]["left"], rows["input", "heads removed"]["right"]) == ("7 of 24", "14 of 24")
    assert (rows["input", "which heads"]["left"], rows["input", "which heads"]["right"]) == (
        "0 only in A",
        "7 only in B",
    )
    score = rows["outcome", "score"]
    assert (score["left"], score["right"], score["difference"]) == (0.61, 0.74, pytest.approx(0.13))
    assert (rows["outcome", "test_score"]["left"], rows["outcome", "test_score"]["right"]) == (0.6, None)
    assert rows["epoch 1", "score"]["difference"] == pytest.approx(0.1)
    assert next(csv.DictReader(StringIO(run(storage, "aab1", "aac2", "--csv"))))["kind"] == "input"


def test_a_person_sees_the_same(storage: Storage) -> None:
    screen = " ".join(run(storage, "aab1", "aac2", "--epochs").split())
    assert "distillation.sparsity 0.3 0.6" in screen
    assert "score 61.0 74.0 +13" in screen
    assert "the same: task, teacher, scores; " in screen
    assert "1 50.0 60.0 2 61.0 74.0" in screen
    assert "training.seed" in run(storage, "aac2", "bbd3")


def test_a_trial_does_not_differ_from_itself(storage: Storage) -> None:
    screen = run(storage, "aab1", "aab1")
    assert "inputs: no difference is recorded" in screen
    assert json.loads(run(storage, "aab1", "aab1", "--json"))[0]["kind"] == "outcome"
