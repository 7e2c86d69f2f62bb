"""The tracker against real MLflow stores: a SQLite file, and (slow) a server on loopback."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow_places import Place, failing

from stkd.orchestrator import sender
from stkd.orchestrator.journal import Event, Journal, Measured, RunEnded, RunStarted, Tagged
from stkd.orchestrator.journal_reader import JournalReader
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.recording import Recorder
from stkd.orchestrator.results import StageResult
from stkd.orchestrator.sender import SenderThread, requests_of
from stkd.orchestrator.tracking import Tracker, default_artifact_location, default_uri
from stkd.search_spaces.reading import read_space
from stkd.trainers.ranking import UnitScores
from stkd.trainers.specs import SCORES

# Both come with the import of MLflow 3.17: it configures its tables in a way that SQLAlchemy 2.1 deprecates, and warns
# of its own type hints.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


def record_trial(tracker: Tracker, points: int = 3) -> None:
    tracker.start_run("s/mrpc", "mrpc", None, {"tasks": ["mrpc"]}, {"stkd.sweep": "s"})
    tracker.start_run("s/mrpc/t1", "t1", "s/mrpc", {"sparsity": 0.25}, {})
    for step in range(points):
        tracker.log_metrics("s/mrpc/t1", {"score": step / 8, "loss": -step}, step)
    tracker.end_run("s/mrpc/t1", "FINISHED")
    tracker.end_run("s/mrpc", "KILLED")


def test_a_sweep_becomes_nested_runs(any_place: Place, tmp_path: Path) -> None:
    picture = tmp_path / "heads.png"
    picture.write_bytes(b"png")
    before = int(time.time() * 1000)
    tracker = any_place.tracker()
    record_trial(tracker)
    tracker.set_tags("s/mrpc/t1", {"artifact": "artifacts/student-1", "long": "x" * 9000})
    tracker.log_file("s/mrpc/t1", picture, "maps")
    assert tracker.close(60), tracker.problem

    runs = any_place.runs()
    parent, trial = runs["mrpc"], runs["t1"]
    assert tracker.run_ids == {"s/mrpc": parent.info.run_id, "s/mrpc/t1": trial.info.run_id}
    assert (parent.info.status, trial.info.status) == ("KILLED", "FINISHED")
    assert parent.data.tags["stkd.sweep"] == "s"
    assert parent.data.params == {"tasks": "['mrpc']"}
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert trial.data.tags["artifact"] == "artifacts/student-1"
    assert len(trial.data.tags["long"]) == 5000
    assert before <= trial.info.start_time <= trial.info.end_time <= before + 5000
    assert any_place.points("t1", "score") == [(0, 0.0), (1, 0.125), (2, 0.25)]
    assert any_place.points("t1", "loss") == [(0, 0.0), (1, -1.0), (2, -2.0)]
    assert [file.path for file in any_place.client.list_artifacts(trial.info.run_id, "maps")] == ["maps/heads.png"]
    assert any_place.refused() == []


def test_many_and_long_parameters(any_place: Place) -> None:
    params = {f"p{number}": number for number in range(230)} | {"long": "y" * 7000}
    with any_place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, params, {})
    logged = any_place.runs()["t"].data.params
    assert len(logged) == 231
    assert (logged["p229"], len(logged["long"])) == ("229", 6000)


def test_a_loss_that_is_no_number(place: Place) -> None:
    with place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
        tracker.log_metrics("s/t", {"loss": float("nan"), "norm": float("inf")}, 1)
    assert place.refused() == []
    assert place.runs()["t"].data.metrics["loss"] != place.runs()["t"].data.metrics["loss"]


def test_a_run_that_goes_on_is_opened_again(any_place: Place) -> None:
    with any_place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {"a": 1}, {"host": "one"})
        tracker.log_metrics("s/t", {"score": 0.5}, 1)
        tracker.end_run("s/t", "FAILED")
    first = any_place.runs()["t"]
    with any_place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {"a": 2, "b": 3}, {"host": "two"})
        tracker.log_metrics("s/t", {"score": 0.75}, 2)
    again = any_place.runs()["t"]
    assert (first.info.status, again.info.status) == ("FAILED", "RUNNING")
    assert again.info.run_id == first.info.run_id
    assert again.data.params == {"a": "1", "b": "3"}
    assert again.data.tags["host"] == "two"
    assert any_place.points("t", "score") == [(1, 0.5), (2, 0.75)]
    with any_place.tracker() as tracker:
        tracker.end_run("s/t", "FINISHED")
    assert any_place.runs()["t"].info.status == "FINISHED"


@pytest.mark.slow
def test_a_report_is_one_request_or_shares_one(
    tracking_server: str, store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    asked: list[str] = []
    request = requests.Session.request

    def counted(session: requests.Session, method: str, url: str, **rest: Any) -> requests.Response:
        asked.append(url)
        return request(session, method, url, **rest)

    place = Place(store_folder, tracking_server, "mlflow-artifacts:/uploads")
    with place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
    monkeypatch.setattr(requests.Session, "request", counted)
    with place.tracker() as tracker:
        for step in range(20):
            tracker.log_metrics("s/t", {f"m{number}": number + step for number in range(30)}, step)
    reports = [url for url in asked if url.endswith("/runs/log-batch")]
    assert 1 <= len(reports) <= 20
    assert len(asked) == len(reports) + 1  # one for the experiment, once for each tracker
    assert place.points("t", "m7") == [(step, 7.0 + step) for step in range(20)]


def test_calls_return_while_mlflow_blocks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from stkd.orchestrator import mlflow_store

    entered, leave = threading.Event(), threading.Event()

    def block(*_: Any, **__: Any) -> None:
        entered.set()
        leave.wait()
        raise ConnectionError("blocked")

    monkeypatch.setattr(mlflow_store, "MlflowClient", block)
    tracker = place.tracker()
    began = time.perf_counter()
    tracker.start_run("s/t", "t", None, {"a": 1}, {})
    for step in range(30):
        tracker.log_metrics("s/t", {"score": 0.5, "loss": 1.0}, step)
    assert time.perf_counter() - began < 1.0
    assert entered.wait(10)
    assert not tracker.close(0.05)
    assert tracker.pending == 31
    leave.set()
    assert isinstance(tracker._sender, SenderThread)
    tracker._sender._thread.join(10)

    monkeypatch.undo()
    with place.tracker() as following:
        assert following.pending > 0
    assert len(place.points("t", "score")) == 30


def test_an_outage_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException, RestException

    class StrangeError(Exception):
        """What an artifact store of somebody else may raise."""

    failures: dict[str, Exception] = {
        "get_experiment_by_name": StrangeError("a database that does not open"),
        "create_run": MlflowException("API request failed"),
        "log_batch": RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}),
        "set_terminated": StrangeError("?"),
    }
    for name, error in failures.items():
        times = 3 if name == "set_terminated" else 20
        monkeypatch.setattr(MlflowClient, name, failing(times, error, vars(MlflowClient)[name]))
    monkeypatch.setattr(sender, "FIRST_DELAY", 0.0)
    tracker = place.tracker()
    record_trial(tracker, points=6)
    assert tracker.close(30), tracker.problem
    assert place.points("t1", "score") == [(step, step / 8) for step in range(6)]
    assert place.runs()["t1"].info.status == "FINISHED"
    assert place.refused() == []
    assert tracker.problem is None


def test_what_failed_half_way_makes_no_run_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of events that are sent together, the first were taken when a later one failed."""
    from mlflow import MlflowClient

    with place.tracker() as tracker:
        tracker.start_run("s", "s", None, {}, {})
    real, calls = MlflowClient.log_batch, iter(range(100))

    def away_in_the_midst(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise ConnectionError("away")
        return real(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", away_in_the_midst)
    monkeypatch.setattr(sender, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(sender, "GATHERING_SECONDS", 1.0)
    with place.tracker() as tracker:
        time.sleep(0.2)  # it waits for news
        for number in range(6):
            tracker.start_run(f"s/{number}", f"t{number}", "s", {"number": number}, {})
            tracker.log_metrics(f"s/{number}", {"score": 0.5}, 1)
    assert next(calls) >= 7
    assert len(place.runs()) == 7  # which also looks for names that are there twice
    assert all(place.points(f"t{number}", "score") == [(1, 0.5)] for number in range(6))
    assert place.refused() == []


def test_a_problem_is_told_without_credentials(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    error = ConnectionError("http://me:secret@host is away")
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", failing(1000, error, MlflowClient.log_batch))
    tracker = place.tracker()
    tracker.end_run("s/t", "KILLED")
    assert not tracker.close(0.5)
    assert tracker.problem == "ConnectionError: http://***@host is away"


@pytest.mark.parametrize("lost", [None, "half", "all"])
def test_a_restart_repeats_nothing(place: Place, lost: str | None) -> None:
    """The state file may be older than what was sent, as after a kill, or gone."""
    state = place.journal.with_suffix(".state.json")
    with place.tracker() as tracker:
        tracker.start_run("s/mrpc", "mrpc", None, {}, {})
    old = state.read_text()
    with place.tracker() as tracker:
        record_trial(tracker)
    if lost == "half":
        state.write_text(old)
    if lost == "all":
        state.unlink()
    with place.tracker() as tracker:
        assert (tracker.pending > 0) is (lost is not None)
        tracker.log_metrics("s/mrpc/t1", {"score": 1.0}, 3)
    runs = place.runs()
    assert set(runs) == {"mrpc", "t1"}
    assert [step for step, _ in place.points("t1", "score")] == [0, 1, 2, 3]
    assert {runs["mrpc"].info.status, runs["t1"].info.status} == {"KILLED", "FINISHED"}
    assert place.refused() == []


@pytest.mark.parametrize("drawable", [True, False])
def test_heat_maps_lie_with_the_scores_where_they_can_be_drawn(place: Place, tmp_path: Path, drawable: bool) -> None:
    storage = Storage(tmp_path / "runs")
    sweep = storage.new_sweep("tiny")
    artifact = storage.artifacts / "scores-1"
    artifact.mkdir(parents=True)
    UnitScores(*(np.ones((2, 3), dtype=np.float32) for _ in range(6))).save(artifact / SCORES)
    if not drawable:
        sweep.task("remarks").root.mkdir()
        (sweep.task("remarks").root / "heat-maps").write_text("in the way")
    with place.tracker() as tracker:
        recorder = Recorder(tracker, read_space(Path("quickstart")), sweep, storage, "remarks")
        tracker.start_run(f"{sweep.sweep_id}/remarks", "remarks", None, {}, {})
        recorder.stage_finished(StageResult("scores-layers=2", "scores-1", 1.0, taken_over=True))
        recorder.task_ended(finished=True)
    run = place.runs()["remarks scores-layers=2"]
    logged = [file.path for file in place.client.list_artifacts(run.info.run_id, "heat-maps")]
    assert sorted(logged) == (["heat-maps/heads.png", "heat-maps/neurons.png"] if drawable else [])
    assert ("cannot be drawn" in run.data.tags.get("stkd.heat_maps", "")) is not drawable
    assert run.info.status == "FINISHED"
    assert place.refused() == []


def test_events_that_mlflow_never_takes_are_set_aside(place: Place, tmp_path: Path) -> None:
    with place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
        tracker.log_metrics("s/t", {"what?": 1.0}, 1)
        tracker.set_tags("s/t", {"in one request": "with it"})
        tracker.log_metrics("s/unknown", {"score": 1.0}, 1)
        tracker.log_file("s/t", tmp_path / "missing.png", "maps")
        tracker.log_student("s/t", tmp_path)
        tracker.log_metrics("s/t", {"score": 1.0}, 2)
        tracker.end_run("s/t", "FINISHED")
    assert tracker.pending == 0
    assert place.points("t", "score") == [(2, 1.0)]
    assert place.runs()["t"].data.tags["in one request"] == "with it"
    assert place.runs()["t"].info.status == "FINISHED"
    reasons = [entry["reason"] for entry in place.refused()]
    assert len(reasons) == 4
    assert "what?" in reasons[0]
    assert "missing.png is no longer there" in reasons[1]
    assert "config.json is no longer there" in reasons[2]
    assert "there is no run s/unknown" in reasons[3]
    assert place.refused()[0]["event"]["metrics"] == {"what?": 1.0}


def test_an_event_that_fails_for_ever_does_not_hold_up_the_rest(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    error = RuntimeError("an artifact store without credentials")
    monkeypatch.setattr(MlflowClient, "log_artifact", failing(1000, error, MlflowClient.log_artifact))
    monkeypatch.setattr(sender, "FIRST_DELAY", 0.001)
    with place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
        tracker.log_file("s/t", Path(__file__), "maps")
        tracker.log_metrics("s/t", {"score": 1.0}, 1)
        assert tracker.close(30)
    assert place.points("t", "score") == [(1, 1.0)]
    assert [entry["reason"] for entry in place.refused()] == [f"RuntimeError: {error}"]


def test_what_goes_into_one_request(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    events: list[Event] = [
        RunStarted(key="a", name="a", parent=None, params={}, tags={}),
        Measured(key="a", metrics={"m": 1.0}, step=1),
        Tagged(key="a", tags={"x": "y"}),
        Measured(key="a", metrics={"m": 2.0}, step=2),
        Measured(key="b", metrics={"m": 1.0}, step=1),
        Tagged(key="b", tags={"x": "y"}),
        RunEnded(key="b", status="FINISHED"),
    ]
    reader = JournalReader(journal.path)
    for event in events:
        journal.append(event)
    assert journal.lines == len(events)
    assert reader.peek() == events[:1]
    seen: list[list[Event]] = []
    while peeked := reader.peek(3):
        assert reader.dealt_with == sum(len(each) for each in seen)
        seen.append(peeked)
        reader.advance()
    assert seen == [events[:3], events[3:6], events[6:]]
    assert reader.dealt_with == len(events)
    mixed = [events[index] for index in (0, 4, 1, 5, 6, 2, 3)]
    assert requests_of(mixed) == [events[:4], events[4:6], events[6:]]
    assert requests_of([events[6], events[4], events[5]]) == [events[6:], events[4:6]]


def test_a_torn_line_is_dropped_and_a_broken_one_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first, second = Measured(key="a", metrics={"m": 1.0}, step=1), RunEnded(key="a", status="FAILED")
    whole = first.model_dump_json().encode() + b"\n"
    path.write_bytes(whole + b'{"kind": "nothing"}\n' + whole[:20])
    journal, reader = Journal(path), JournalReader(path)
    assert journal.lines == 2
    journal.append(second)
    assert reader.peek() == [first]
    reader.advance({"a": "1"})
    assert reader.peek() == [second]
    assert reader.dealt_with == 2
    assert "not an event" in reader.refused.read_text()

    again = JournalReader(path)
    assert again.peek() == [second]
    assert again.dealt_with == 2
    assert again.run_ids == {"a": "1"}


def test_an_experiment_says_what_it_is_and_keeps_what_its_user_says(place: Place) -> None:
    from stkd.orchestrator.mlflow_view import EXPERIMENT_NOTE, NOTE, VIEW_TAG

    def tags() -> dict[str, str]:
        found: dict[str, str] = place.client.get_experiment_by_name(place.experiment).tags
        return found

    with place.tracker() as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
    assert tags()[NOTE] == EXPERIMENT_NOTE
    assert json.loads(tags()[VIEW_TAG])["selectedColumns"][:2] == ["metrics.`score`", "metrics.`test_score`"]
    experiment = place.client.get_experiment_by_name(place.experiment).experiment_id
    place.client.set_experiment_tag(experiment, NOTE, "mine")
    place.client.set_experiment_tag(experiment, VIEW_TAG, "of an older stkd")
    with place.tracker() as tracker:
        tracker.log_metrics("s/t", {"score": 1.0}, 1)
    assert tags()[NOTE] == "mine"
    assert "selectedColumns" in tags()[VIEW_TAG]


def test_every_stage_says_what_it_is() -> None:
    from stkd.orchestrator.mlflow_view import STAGE_NOTES, stage_note
    from stkd.orchestrator.progress import STAGES

    assert set(STAGE_NOTES) == set(STAGES)
    assert stage_note("scores-layers=2").endswith("For students with layers=2.")


def test_the_default_store_lies_in_the_storage_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_uri(Path("runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert default_artifact_location(Path("runs")) == f"file://{tmp_path}/runs/mlflow-artifacts"


def test_tracking_imports_neither_mlflow_nor_ray() -> None:
    code = "import sys, stkd.orchestrator.tracking; print({'mlflow', 'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
