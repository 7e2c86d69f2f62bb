"""A student rebuilt from its record: equal to the bit, or with what has changed since."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file
from stored import SPACE, store, trial
from sweeping import Swept, stkd

from stkd.orchestrator.artifacts import RECORD, ArtifactStore, record_of
from stkd.orchestrator.cli import main
from stkd.orchestrator.finding import find_run
from stkd.orchestrator.rebuilding import Rebuilt
from stkd.orchestrator.records import as_csv
from stkd.orchestrator.reproduction import Reproduction, judge
from stkd.orchestrator.results import TrialResult
from stkd.orchestrator.runs import Run

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated")  # MLflow and SQLAlchemy

CPU = {"device": "CPU one", "threads": 1, "torch": "2.13.0", "code": "abc"}
SCORE = {"epoch": 1.0, "score": 0.7, "loss": 0.5}


def made(store: ArtifactStore, name: str, weights: float, made_with: dict[str, Any]) -> Path:
    with store.create(name, {"of": weights, **made_with}, made_with.copy) as folder:
        save_file({"weight": np.full(3, weights, np.float32)}, folder / "model.safetensors")
        (folder / "metrics.json").write_text(json.dumps({"seconds": len(list(store.root.iterdir()))}))
    return store.path(name, {"of": weights, **made_with})


def reproduction(
    folder: Path,
    weights: float = 1.0,
    made_with: dict[str, Any] = CPU,
    recorded: dict[str, Any] = CPU,
    score: float = 0.7,
) -> Reproduction:
    """A student of weights 1 and score 0.7 that was rebuilt with these."""
    kept = ArtifactStore(folder / "artifacts")
    student = made(kept, "student", 1.0, recorded)
    result = trial("a", 0.7, student=student.name, metrics=SCORE)
    run = find_run(store(folder, result, space=SPACE), "a")
    rebuilt = made(ArtifactStore(folder / "fresh"), "student", weights, made_with)
    metrics = {**SCORE, "score": score, "seconds_start": 9.0}
    return judge(run, Rebuilt({"student": rebuilt}, "dense", metrics), False, 0.02)


def test_equal_bits_are_equal_whatever_they_were_made_with(tmp_path: Path) -> None:
    found = reproduction(tmp_path)
    assert (found.verdict, found.surroundings, found.parts[0].equal) == ("equal to the bit", [], True)
    assert set(found.metrics) == {"epoch", "score", "loss"}
    other = reproduction(tmp_path / "other", made_with={**CPU, "torch": "2.14.0"})
    assert other.verdict == "equal to the bit"
    assert [str(change) for change in other.surroundings] == ["torch was 2.13.0, and is 2.14.0 now"]


def test_other_bits_are_a_failure_where_nothing_has_changed(tmp_path: Path) -> None:
    found = reproduction(tmp_path, weights=1.25)
    assert (found.verdict, found.parts[0].difference) == ("different", 0.25)
    rows = list(csv.DictReader(StringIO(as_csv(found.as_records()))))
    assert [row["kind"] for row in rows] == ["verdict", "part", "metric", "metric", "metric"]
    assert (rows[0]["now"], rows[1]["remark"]) == ("different", "differs, numbers by 2.5e-01 at most")


@pytest.mark.parametrize(
    ("made_with", "score", "verdict"),
    [
        ({**CPU, "threads": 2}, 0.715, "within the tolerance"),
        ({**CPU, "threads": 2}, 0.73, "different"),
        ({**CPU, "code": "abd"}, 0.69, "within the tolerance"),
        (CPU, 0.7, "different"),
    ],
)
def test_other_bits_are_excused_by_what_has_changed(
    tmp_path: Path, made_with: dict[str, Any], score: float, verdict: str
) -> None:
    assert reproduction(tmp_path, 1.25, made_with, score=score).verdict == verdict


def test_a_gpu_gives_no_equal_bits(tmp_path: Path) -> None:
    gpu = {**CPU, "device": "GPU one"}
    assert reproduction(tmp_path, 1.25, gpu, gpu).verdict == "within the tolerance"


def test_a_training_that_failed_is_not_reproduced(tmp_path: Path) -> None:
    found = Reproduction(reproduction(tmp_path).run, 0.02, failure="the loss is nan")
    assert found.verdict == "different"
    assert json.loads(json.dumps(found.as_dict(), default=str))["failure"] == "the loss is nan"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (TrialResult("a", {}, "failed", reason="the loss is nan"), "has no student: it failed, the loss is nan"),
        (trial("a", 0.7), "its student student-a is gone from"),
        (trial("a", 0.7, "running"), "is still running, or its sweep was stopped"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused(tmp_path: Path, result: TrialResult, message: str) -> None:
    storage = store(tmp_path, result, space=SPACE)
    if result.status == "running":
        (storage.artifacts / "student-a").mkdir(parents=True)
        (storage.artifacts / "student-a" / RECORD).write_text('{"inputs": {}}')
    done = CliRunner().invoke(main, ["reproduce", "a", "--storage", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


# On a real sweep


def sparse_trial(swept: Swept) -> Run:
    found = next(trial for trial in swept.trials("finished") if trial.values["sparsity"])
    return find_run(swept.storage, f"{swept.sweep.sweep_id}/remarks/{found.trial}")


def reproduced(swept: Swept, *arguments: str) -> Result:
    name = sparse_trial(swept).name
    return CliRunner().invoke(main, ["reproduce", name, "--storage", str(swept.storage.root), *arguments])


@pytest.mark.slow
def test_a_student_comes_back_to_the_bit_and_its_teacher_too(swept: Swept, tmp_path: Path) -> None:
    out = tmp_path / "rebuilt"
    run = sparse_trial(swept)
    done = stkd("reproduce", run.name, "--storage", swept.storage.root, "--from-scratch", "--out", out, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["surroundings_changed"]) == ("equal to the bit", [])
    parts = {part["name"]: part for part in found["parts"]}
    assert set(parts) == {"data", "teacher", "trial student", "scores", "logits", "student"}
    assert [name for name, part in parts.items() if not part["equal"] or part["taken_over"]] == []
    assert found["metrics"]["score"]["recorded"] == found["metrics"]["score"]["now"] == run.trial.score
    (rebuilt,) = (out / "artifacts").glob("student-*")
    weights = [load_file(folder / "model.safetensors") for folder in (rebuilt, run.artifact(run.trial.student))]
    assert all(np.array_equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert rebuilt.stat().st_ino != run.artifact(run.trial.student).stat().st_ino


@pytest.mark.slow
def test_the_best_student_is_rebuilt_on_its_teacher(swept: Swept) -> None:
    before = {path.name for path in swept.storage.artifacts.iterdir()}
    name = find_run(swept.storage, swept.sweep.sweep_id).name
    done = stkd("reproduce", name, "--storage", swept.storage.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced: the student is equal to the bit" in done.stdout
    assert "taken over, as it was recorded" in done.stdout
    assert {path.name for path in swept.storage.artifacts.iterdir()} == before
    assert list(swept.storage.root.glob(".reproduce-*")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("data.train_examples=150", "the data (its fingerprint) was "),
        ("training.epochs=3", "student: training.epochs was 2, and is 3 now"),
        ("teacher.finetune.epochs=2", "teacher: finetune.epochs was 1, and is 2 now"),
        ("scoring.examples=32", "scores: scoring.examples was 64, and is 32 now"),
    ],
)
def test_a_changed_input_is_named_before_anything_is_computed(swept: Swept, setting: str, named: str) -> None:
    done = reproduced(swept, "--set", setting)
    assert done.exit_code == 1
    assert named in done.stdout
    assert "not reproduced: nothing was computed" in done.stdout


@pytest.mark.slow
def test_a_teacher_that_was_written_over_is_named(swept: Swept) -> None:
    run = sparse_trial(swept)
    weights = run.artifact(run.stage("teacher")) / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"\0\0\0\1")
    try:
        done = reproduced(swept)
    finally:
        weights.write_bytes(kept)
    assert done.exit_code == 1
    assert "the teacher's file: model.safetensors was " in done.stdout


@pytest.mark.slow
def test_records_lead_back_to_the_base_model(swept: Swept) -> None:
    run = sparse_trial(swept)
    student = run.record(run.trial.student)
    teacher = run.record(student["inputs"]["teacher"])
    data = run.record(teacher["inputs"]["data"])
    assert len(teacher["inputs"]["model"]) == len(data["inputs"]["data"]) == 16
    for record in (student, teacher):
        assert {"code", "torch", "device", "threads", "ranks"} <= set(record["made_with"])
        assert len(record["files"]["model.safetensors"]) == 64
    assert record_of(run.artifact(run.trial.student))["method"] == student["method"]


@pytest.mark.slow
def test_the_sweep_has_left_its_report_with_mlflow(swept: Swept) -> None:
    from mlflow import MlflowClient

    assert f"report    {swept.sweep.report}" in swept.screen
    page = swept.sweep.report.read_text(encoding="utf-8")
    assert "This sweep" not in page  # it is finished
    assert page.count("<figure") >= 8
    client = MlflowClient(f"sqlite:///{swept.storage.root}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    key = f"{swept.sweep.sweep_id}/remarks"
    parents = [run for run in client.search_runs([experiment]) if run.data.tags["stkd.key"] == key]
    assert [file.path for run in parents for file in client.list_artifacts(run.info.run_id)] == ["report.html"]
    listed = json.loads(CliRunner().invoke(main, ["list", "--storage", str(swept.storage.root), "--json"]).stdout)
    assert {sweep["state"] for sweep in listed} == {"finished"}
