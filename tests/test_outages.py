"""MLflow away for a while, and for good: no trial fails, and after all the server holds every point once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killed_sender
import pytest
from killed_sender import KILLS, POINTS
from sweeping import TIMEOUT, environment, stkd, write_space
from victims import begun, results_text

from stkd.orchestrator import ui
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import read_results
from stkd.orchestrator.tracking import Tracker, default_uri

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


class Server:
    """An MLflow server on loopback that can be killed and comes back as it was."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, ui._free_port(None)
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", default_uri(self._folder)]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        log = self._folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ui._wait_until_it_answers(self._process, self._port, log)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    made = Server(folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def runs_of(uri: str, experiment: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    keyed = {run.data.tags["stkd.key"]: run for run in found}
    assert len(keyed) == len(found), "a run was made twice"
    return keyed


def points_of(uri: str, run: Any) -> Counter[tuple[str, int]]:
    """How often the server has each point of a run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return Counter((name, point.step) for name, history in histories.items() for point in history)


def test_a_kill_between_sending_and_acknowledging_repeats_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "sweep" / "journal.jsonl"
    command = [sys.executable, killed_sender.__file__, str(journal), default_uri(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["-9"] * KILLS + ["0"], done.stderr
    runs = runs_of(default_uri(tmp_path), "killed")
    assert set(runs) == {"s", "s/t"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    points = points_of(default_uri(tmp_path), runs["s/t"])
    assert points == {(name, epoch): 1 for name in ("score", "seconds") for epoch in range(1, POINTS + 1)}
    assert not journal.with_suffix(".refused.jsonl").exists()


def test_a_server_that_is_killed_and_comes_back_has_every_point_once(server: Server, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "journal.jsonl", server.uri, "away")
    tracker.start_run("s", "s", None, {}, {})
    for step in range(1, 4):
        tracker.log_metrics("s", {"score": step / 8, "loss": -step}, step)
    wait_for(lambda: tracker.pending == 0)
    server.kill()
    for step in range(4, 40):
        tracker.log_metrics("s", {"score": step / 8, "loss": -step}, step)
    wait_for(lambda: tracker.problem is not None)
    assert tracker.pending == 36
    server.start()
    tracker.end_run("s", "FINISHED")
    assert tracker.close(60), tracker.problem
    (run,) = runs_of(server.uri, "away").values()
    assert run.info.status == "FINISHED"
    assert points_of(server.uri, run) == {(name, step): 1 for name in ("score", "loss") for step in range(1, 40)}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.cluster
def test_a_sweep_whose_server_goes_comes_and_goes_for_good(server: Server, tmp_path: Path) -> None:
    """And whose driver is killed meanwhile. Two trials of six epochs, a teacher of one, a trial student of six."""
    space = write_space(
        tmp_path,
        search={"sparsity": {"choice": [0.0, 0.5]}},
        trials={"count": 2, "searcher": "grid", "scheduler": None, "concurrent": 1},
        training={"epochs": 6, "max_length": 32, "learning_rate": 1.0e-3},
        controls=False,
        tracking={"uri": server.uri},
    )
    storage = Storage(tmp_path / "runs")
    with begun(tmp_path, "--space", str(space)) as driver:
        driver.wait_until(lambda: "teacher" in results_text(storage))
        server.kill()
        driver.wait_until(lambda: "trial_student" in results_text(storage))
        server.start()
        driver.wait_until(lambda: all(part in results_text(storage) for part in ('"kind": "trial"', '"epochs": 2')))
        server.kill()
        driver.kill()
    sweep = storage.find_sweep()
    resumed = stkd("sweep", "--resume", "--storage", storage.root)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert f"send them with: stkd sync {sweep.sweep_id}" in resumed.stderr
    trials = read_results(sweep)["remarks"].trials.values()
    assert [(trial.status, trial.epochs) for trial in trials] == [("finished", 6)] * 2

    away = stkd("sync", "--storage", storage.root)
    assert away.returncode == 1, away.stdout + away.stderr
    assert "records wait for MLflow still" in away.stdout
    server.start()
    sent = stkd("sync", "--storage", storage.root)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert f"records sent to {server.uri}" in sent.stdout
    assert_every_point_once(server.uri, sweep)
    assert "nothing to send" in stkd("sync", sweep.sweep_id, "--storage", storage.root).stdout
    assert_every_point_once(server.uri, sweep)
    refused = stkd("sync", "--storage", copy_elsewhere(storage, "http://127.0.0.1:1"))
    assert refused.returncode == 2
    assert "is recorded in MLflow at" in refused.stderr


def assert_every_point_once(uri: str, sweep: SweepFolder) -> None:
    runs = runs_of(uri, "tiny")
    assert len(runs) == 1 + 5 + 2
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    lines = [json.loads(line) for line in sweep.journal.read_text().splitlines()]
    written = {
        (line["key"], name, line["step"]) for line in lines if line["kind"] == "measured" for name in line["metrics"]
    }
    found = Counter({(key, *point): n for key, run in runs.items() for point, n in points_of(uri, run).items()})
    assert found == dict.fromkeys(written, 1)
    assert sum(name == "loss" and step > 0 for _, name, step in written) == 1 + 6 + 2 * 6
    assert not sweep.journal.with_suffix(".refused.jsonl").exists()


def copy_elsewhere(storage: Storage, uri: str) -> Path:
    """The same storage, whose space names another server."""
    other = storage.root.with_name("other")
    shutil.copytree(storage.sweeps, other / "sweeps")
    (space,) = other.glob("sweeps/*/space.yaml")
    before = storage.find_sweep().space.read_text()
    line = next(line for line in before.splitlines() if "uri:" in line)
    space.write_text(before.replace(line, f"{line.partition(':')[0]}: {uri}"))
    return other
