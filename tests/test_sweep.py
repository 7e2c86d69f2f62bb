"""Whole sweeps on a real local Ray cluster with a real MLflow store, through the command line."""

import csv
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from optuna import load_study
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sweeping import STKD, TIMEOUT, Swept, environment, stkd, write_space
from tiny import tiny_examples

from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import Evidence, read_results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated"),  # MLflow's use of SQLAlchemy
]


def test_every_trial_ends(swept: Swept) -> None:
    assert len(swept.results.of_phase("search")) == 8
    assert len(swept.trials("finished")) == 4
    assert {trial.epochs for trial in swept.trials("finished")} == {2}


def test_the_best_student_is_set_against_controls_of_equal_budget(swept: Swept) -> None:
    controls = swept.trials("finished", "control")
    assert [trial.role for trial in controls] == ["no teacher", "dense teacher", "random teacher"]
    assert {trial.epochs for trial in controls} == {2}
    assert controls[1].student == swept.results.stages["trial_student"].artifact  # the same training, not done again
    assert {trial.values["training.learning_rate"] for trial in controls} == {1e-3}


def test_finalists_and_controls_are_trained_again_over_fresh_seeds(swept: Swept) -> None:
    confirmed = swept.trials("finished", "confirm")
    assert len(swept.results.of_phase("confirm")) == len(confirmed) == (1 + 3) * 2
    assert {trial.values["training.seed"] for trial in confirmed} == {777, 778}
    # a finalist of sparsity 0 is the dense teacher's student, and trained once
    assert len({trial.student for trial in confirmed}) == (8 if evidence_of(swept).difference else 6)


def test_the_test_split_is_read_once_for_the_teacher_and_each_confirmed_student(swept: Swept) -> None:
    students = {trial.student for trial in swept.trials("finished", "confirm")}
    teacher = swept.results.stages["teacher"].artifact
    assert set(swept.results.tests) == students | {teacher}
    assert len(list(swept.storage.artifacts.glob("test-*"))) == len(students) + 1
    assert all(0 <= tested.score <= 1 for tested in swept.results.tests.values())


def evidence_of(swept: Swept) -> Evidence:
    assert swept.results.evidence is not None
    return swept.results.evidence


def test_the_end_says_what_several_seeds_say(swept: Swept) -> None:
    evidence = evidence_of(swept)
    assert len(evidence.confirmed) == 4
    assert {found.seeds for found in evidence.confirmed} == {2}
    for found in evidence.confirmed:
        assert found.test.low <= found.test.mean <= found.test.high
    assert evidence.verdict in swept.screen
    assert "finalists and controls over fresh seeds" in swept.screen


def test_the_account_of_the_devices_agrees_with_the_watches_of_the_trials(swept: Swept) -> None:
    (session,) = swept.results.sessions.values()
    assert sum(session.held.values()) == pytest.approx(session.seconds * session.devices, rel=0.02)
    trained = [trial for trial in swept.trials("finished") if not trial.saved]
    assert trained
    for trial in trained:
        assert {"data", "forward", "backward", "step", "evaluation", "checkpoint"} <= trial.phases.keys()
    # the first one's watch starts with its ranks, before Tune says so; after its last report a trial has no watch
    watched = sum(sum(trial.phases.values()) for trial in trained[1:])
    assert watched <= sum(session.held[trial.trial] for trial in trained[1:]) * session.trial_devices * 1.02
    assert "core-hours on" in swept.screen


def test_a_loss_that_is_not_finite_fails_its_trial_with_the_reason(swept: Swept) -> None:
    failed = swept.trials("failed")
    assert len(failed) == 4
    assert all(trial.values["training.learning_rate"] == 1e30 for trial in failed)
    assert all("the loss is nan at step" in trial.reason for trial in failed)


def test_a_teacher_runs_once_for_each_set_of_removed_units(swept: Swept) -> None:
    examples = {
        (trial.values["interpolation"], trial.values["sparsity"]): trial.metrics["teacher_examples"]
        for trial in swept.trials("finished")
    }
    logits = list(swept.storage.artifacts.glob("logits-*"))
    # dense, one for each interpolation at sparsity 0.5, and the control of random units at its three seeds
    assert len(logits) == 3 + 3
    assert examples[0.0, 0.0] == examples[1.0, 0.0] == 0  # the trial student's dense logits were there
    assert set(examples.values()) <= {0.0, 160.0}


def test_screen_shows_stages_progress_results_and_what_to_do_next(swept: Swept) -> None:
    expected = ("teacher: score", "trial student: score", "scores: ready", "trial 8 of 8", "dense teacher's student")
    assert [text for text in expected if text not in swept.screen] == []
    assert f"stkd pick --storage {swept.storage.root}" in swept.screen
    assert str(swept.sweep.root) in swept.screen
    assert "Traceback" not in swept.screen
    assert "warning" not in swept.screen.lower()


def test_mlflow_holds_a_parent_with_stages_and_trials(swept: Swept) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept.storage.root}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if run.data.tags["stkd.kind"] == "sweep"]
    assert len(parents) == 1
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    kinds = sorted(run.data.tags["stkd.kind"] for run in children)
    assert kinds == sorted(["data", "teacher", "logits", "trial_student", "scores", *["trial"] * (8 + 3 + 8)])
    statuses = sorted(run.info.status for run in runs)
    assert statuses == ["FAILED"] * 4 + ["FINISHED"] * (1 + 5 + 4 + 3 + 8)
    failed = [run for run in children if run.info.status == "FAILED"]
    assert all("loss is nan" in run.data.tags["stkd.failure"] for run in failed)
    finished = [run for run in children if run.data.tags.get("stkd.status") == "finished"]
    assert len(finished) == 4 + 3 + 8
    assert len([run for run in finished if "test_score" in run.data.metrics]) == 8
    for run in finished:
        points = client.get_metric_history(run.info.run_id, "score")
        assert [point.step for point in points] == [1, 2]
        assert {"parameters", "megabytes", "milliseconds_per_example", "best_score"} <= set(run.data.metrics)
        assert {"distillation.interpolation", "distillation.sparsity", "training.seed"} <= set(run.data.params)
        assert Path(run.data.tags["stkd.student"]).is_dir()
    assert len(client.search_logged_models([experiment.experiment_id])) == 4 + 3 + 8
    assert {"test_score", "score"} <= set(parents[0].data.metrics)


def test_the_best_student_is_exported_as_a_folder_that_transformers_loads(swept: Swept, tmp_path: Path) -> None:
    target = tmp_path / "student"
    done = stkd("export", target, "--storage", swept.storage.root, "--form", "pytorch")
    assert done.returncode == 0, done.stderr
    chosen = chosen_trial(swept.results)
    assert chosen is not None
    assert (chosen.phase, chosen.role) == ("confirm", "candidate")
    assert done.stdout.startswith(f"{chosen.name}, trial {chosen.trial} of {swept.sweep.sweep_id}, task remarks")
    assert "Verdict: " in (target / "README.md").read_text()
    from transformers import pipeline

    (answer,) = pipeline("text-classification", model=str(target))("the film was great")
    assert answer["label"] in ("happy", "unhappy")


def test_second_sweep_takes_everything_over(swept: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed, so that nothing even loads torch."""
    (tmp_path / "torch.py").write_text("raise ImportError('who loads torch?')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = stkd(
        "sweep", "--space", swept.space, "--set", "search.training.learning_rate=null", "--set", "trials.count=4"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("taken over from an earlier sweep") == 5
    second = read_results(swept.storage.find_sweep())["remarks"]
    assert all(stage.taken_over for stage in second.stages.values())
    assert len(second.stages) == 5
    first = {(t.values["interpolation"], t.values["sparsity"]): t for t in swept.trials("finished")}
    for trial in second.of_phase("search"):
        twin = first[trial.values["interpolation"], trial.values["sparsity"]]
        assert (trial.score, trial.student) == (twin.score, twin.student)


def test_a_trial_that_raises_fails_with_its_reason_and_the_sweep_goes_on(swept: Swept) -> None:
    sparse = next(trial for trial in swept.trials("finished") if trial.values["sparsity"])
    histories = {path: path.read_text() for path in swept.storage.artifacts.glob("trial-*/history.json")}
    (damaged,) = (path for path, history in histories.items() if sparse.student in history)
    kept = histories[damaged]
    damaged.write_text("")
    try:
        changes = ("search.training.learning_rate=null", "trials.count=4", "trials.max_failures=0")
        done = stkd("sweep", "--space", swept.space, *(part for change in changes for part in ("--set", change)))
    finally:
        damaged.write_text(kept)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = read_results(swept.storage.find_sweep())["remarks"].of_phase("search")
    assert sorted(trial.status for trial in trials) == ["failed", "finished", "finished", "finished"]
    (failed,) = (trial for trial in trials if trial.status == "failed")
    assert "JSONDecodeError" in failed.reason
    assert failed.reason in " ".join(done.stdout.split())

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept.storage.root}/mlflow.db")
    runs = client.search_runs(
        [client.get_experiment_by_name("tiny").experiment_id],
        f"tags.`stkd.sweep` = '{swept.storage.find_sweep().sweep_id}'",
    )
    assert [run.data.tags["stkd.failure"] for run in runs if run.info.status == "FAILED"] == [failed.reason]


def test_a_search_ends_where_everything_that_differs_is_trained(swept: Swept) -> None:
    search = ("search.training.learning_rate=null", "search.sparsity={choice: [0.0]}")
    changes = (*search, "trials.searcher=optuna", "trials.count=4")
    done = stkd("sweep", "--space", swept.space, *(part for change in changes for part in ("--set", change)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was left to try after 1 of 4 trials" in done.stdout
    sweep = swept.storage.find_sweep()
    (trial,) = read_results(sweep)["remarks"].of_phase("search")
    assert trial.status == "finished"

    study = load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(sweep.task("remarks").study))))
    assert [told.state.name for told in study.trials] == ["COMPLETE", "COMPLETE"]
    assert [told.value for told in study.trials] == [trial.score] * 2
    assert {told.params["interpolation"] for told in study.trials} == {0.0, 1.0}

    again = stkd("sweep", "--resume", sweep.sweep_id, "--storage", swept.storage.root)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(read_results(sweep)["remarks"].of_phase("search")) == 1


@contextmanager
def running_sweep(folder: Path) -> Iterator[tuple[Storage, subprocess.Popen[str]]]:
    """A sweep of four trials whose first one has just ended; killed if it is still there afterwards."""
    space = write_space(folder, training={"epochs": 12, "max_length": 32, "learning_rate": 1.0e-3})
    storage = Storage(folder / "runs")
    command = [*STKD, "sweep", "--space", str(space)]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        _wait_for(lambda: _ended(storage) >= 1, process)
        yield storage, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def stopped_cleanly(process: subprocess.Popen[str], storage: Storage) -> None:
    """Stop the sweep as a batch system does; it says how to continue, keeps what ended, and leaves no process."""
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 3
    process.terminate()
    screen, _ = process.communicate(timeout=60)
    assert process.returncode == 130, screen
    assert f"--resume {storage.find_sweep().sweep_id}" in screen
    assert "Traceback" not in screen
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [process.name() for process in alive] == []


def test_sigterm_leaves_nothing_behind_and_resume_finishes(tmp_path: Path) -> None:
    with running_sweep(tmp_path) as (storage, process):
        stopped_cleanly(process, storage)
    sweep = storage.find_sweep()
    kept = {t.trial: t for t in read_results(sweep)["remarks"].trials.values() if t.status == "finished"}
    assert 1 <= len(kept) < 4

    done = stkd("sweep", "--resume", sweep.sweep_id, "--storage", storage.root)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(sweep)["remarks"]
    assert len(results.of_phase("search")) == 4
    assert len(results.of_phase("control")) == 3
    assert {trial.status for trial in results.trials.values()} == {"finished"}
    assert all(results.trials[trial] == before for trial, before in kept.items())
    assert all(trial.epochs == 12 for trial in results.trials.values())

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage.root}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert len(runs) == 1 + 5 + 4 + 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.data.tags["stkd.kind"] == "trial":
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
            assert sorted(set(steps)) == list(range(1, 13))


def test_on_shuffled_labels_nothing_is_claimed(tmp_path: Path) -> None:
    files = {}
    for number, split in enumerate(("train", "validation", "test")):
        examples = tiny_examples(160, seed=number)
        labels = random.Random(number).choices(("this", "that"), k=160)
        files[split] = str(tmp_path / f"{split}.csv")
        with Path(files[split]).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("text", "label"))
            rows.writerows(zip(examples.texts, labels, strict=True))
    space = write_space(
        tmp_path,
        tasks=["noise"],
        data={"source": "files", **files},
        search={"sparsity": {"choice": [0.3, 0.6]}},
        trials={"count": 2, "searcher": "grid", "scheduler": None, "concurrent": 1},
        confirm={"top": 1, "seeds": 3},
    )
    done = stkd("sweep", "--space", space)
    assert done.returncode == 0, done.stdout + done.stderr
    evidence = read_results(Storage(tmp_path / "runs").find_sweep())["noise"].evidence
    assert evidence is not None
    assert evidence.difference is not None
    assert evidence.difference.low <= 0 <= evidence.difference.high
    assert "no difference is shown" in done.stdout


def _ended(storage: Storage) -> int:
    sweeps = list(storage.sweeps.glob("*/remarks/results.jsonl"))
    if not sweeps:
        return 0
    results = read_results(SweepFolder(sweeps[0].parents[1]))["remarks"]
    return sum(trial.status != "running" for trial in results.trials.values())


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_sweep_over_own_files_with_several_classes_each(tmp_path: Path) -> None:
    topics = {
        "the film was good": "film",
        "a dull plot": "plot",
        "good plot and a long film": "film;plot",
        "we saw it": "",
        "a bad film": "film",
        "great plot": "plot",
    }
    for name, copies in (("train", 20), ("validation", 4)):
        rows = [f'{copy},"{text}, we saw",{topic}' for copy in range(copies) for text, topic in topics.items()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,remark,topics", *rows]))
    data = {
        "source": "files",
        "train": str(tmp_path / "train.csv"),
        "validation": str(tmp_path / "validation.csv"),
        "text": "remark",
        "label": "topics",
        "separator": ";",
    }
    space = write_space(
        tmp_path,
        tasks=["topics-1"],
        data=data,
        search={"sparsity": {"choice": [0.0, 0.5]}},
        trials={"count": 2, "searcher": "grid", "scheduler": None, "concurrent": 1},
    )
    done = stkd("sweep", "--space", space)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "topics-1 begins: 108 training, 24 validation, 12 test examples" in done.stdout
    storage = Storage(tmp_path / "runs")
    results = read_results(storage.find_sweep())["topics-1"]
    config = json.loads((storage.artifacts / results.ranked()[0].student / "config.json").read_text())
    assert config["id2label"] == {"0": "film", "1": "plot"}
    assert config["problem_type"] == "multi_label_classification"
    assert [trial.status for trial in results.of_phase("search")] == ["finished", "finished"]
    assert all({"micro_f1", "macro_f1", "score"} <= set(trial.metrics) for trial in results.trials.values())
