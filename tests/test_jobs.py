"""Sweeps on a cluster: as jobs from afar, with the stkd that runs here, and what is refused before it begins."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, Node, RayCluster, wait_for
from sweeping import write_space

from stkd.cluster.cluster import Cluster
from stkd.cluster.each_node import ask_each
from stkd.cluster.errors import ClusterError
from stkd.orchestrator.admission import admit
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import read_results
from stkd.search_spaces.reading import read_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and subprocesses
]
HEAD, WORKER = Host("127.0.0.9"), Host("127.0.0.10")
SECRET = "open-sesame"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head that serves jobs. Its Python finds another stkd, one that would not get far."""
    other = tmp_path_factory.mktemp("other")
    for package in ("cluster", "orchestrator", "search_spaces", "trainers"):
        (other / "stkd" / package).mkdir(parents=True)
        (other / "stkd" / package / "__init__.py").write_text("raise ImportError('this is another stkd')")
    path = f"{other}{os.pathsep}{Path(__file__).parent}"
    with RayCluster() as started, pytest.MonkeyPatch.context() as patch:
        started.start_head(HEAD, "--num-cpus=2", jobs=True, PYTHONPATH=path, MLFLOW_TRACKING_PASSWORD=SECRET)
        patch.setenv("RAY_AUTH_TOKEN", str(started.token))
        patch.delenv("RAY_AUTH_MODE", raising=False)
        yield started


def assert_runs(command: "subprocess.Popen[str]") -> None:
    assert command.poll() is None, command.communicate()[0]


def test_a_job_outlives_who_follows_it_stops_cleanly_and_is_resumed(cluster: RayCluster, tmp_path: Path) -> None:
    epochs = {"epochs": 30, "max_length": 32, "learning_rate": 1.0e-3}
    trials = {"count": 1, "searcher": "random", "scheduler": None}
    space = write_space(tmp_path, training=epochs, trials=trials, search={}, controls=False)
    storage = Storage(tmp_path / "runs")
    at = {"RAY_API_SERVER_ADDRESS": cluster.dashboard}

    submitted = cluster.begin_stkd("submit", "--space", space, **at)
    wait_for(lambda: any(storage.root.glob("sweeps/*/remarks/results.jsonl")), lambda: assert_runs(submitted))
    os.killpg(submitted.pid, signal.SIGINT)
    screen, _ = submitted.communicate(timeout=60)
    assert submitted.returncode == 130, screen
    sweep = storage.find_sweep()
    assert "the job goes on without you" in screen
    assert f"job {sweep.sweep_id} is submitted" in screen
    shown = cluster.stkd("status", **at).stdout
    assert f"{sweep.sweep_id}  running" in shown, shown

    stopped = cluster.stkd("stop", **at)
    assert stopped.returncode == 0, stopped.stderr
    assert f"--resume {sweep.sweep_id} --storage {storage.root}" in stopped.stdout
    log = cluster.stkd("logs", **at).stdout
    assert "stopped; everything finished is kept" in log

    resumed = cluster.stkd("submit", "--resume", **at)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "taken over from an earlier sweep" in resumed.stdout
    assert "has succeeded" in resumed.stdout
    (trial,) = read_results(sweep)["remarks"].trials.values()
    assert (trial.status, trial.epochs) == ("finished", 30)
    assert "\nstkd" not in resumed.stderr
    job = cluster.stkd("status", f"{sweep.sweep_id}", **at).stdout
    assert "status    stopped" in job
    for text in (screen, shown, log, resumed.stdout, job):
        assert SECRET not in text


def test_what_the_user_has_to_change_ends_the_job_and_the_command_alike(cluster: RayCluster, tmp_path: Path) -> None:
    space = write_space(tmp_path, resources={"gpus_per_rank": 4})
    done = cluster.stkd("submit", "--space", space, "--address", cluster.dashboard)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "a trial takes 2 CPUs and 4 GPUs, which never fits this cluster, which has a node with 2 CPUs" in done.stdout
    assert "was refused, as its log says" in done.stderr
    assert list((tmp_path / "runs" / "sweeps").iterdir()) == []


def test_nodes_run_the_stkd_that_is_here(cluster: RayCluster) -> None:
    from ranks_for_tests import where_stkd_is

    with Cluster(cluster.address) as joined:
        (answer,) = ask_each(joined.nodes(), where_stkd_is)
    assert answer.found is not None, answer.problem
    assert "runtime_resources/py_modules_files/stkd-" in answer.found


@pytest.fixture
def blind_worker(cluster: RayCluster, tmp_path: Path) -> Iterator[Node]:
    """A second node, on which the folder `unshared` is one of its own."""
    (tmp_path / "unshared").mkdir()
    mount = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path / "unshared"))
    if os.geteuid() != 0:
        pytest.skip("a mount of its own needs root")
    node = cluster.start_worker(Host(WORKER.address, mount), "--num-cpus=1")
    yield node
    node.stop()


def test_several_nodes_need_a_server_and_a_folder_that_all_see(
    cluster: RayCluster, blind_worker: Node, tmp_path: Path
) -> None:
    shared, unshared = (
        read_space(write_space(tmp_path), storage=str(tmp_path / name)) for name in ("runs", "unshared")
    )
    (tmp_path / "runs").mkdir()
    with Cluster(cluster.address) as joined:
        assert str(joined.capacity()) == "a node with 2 CPUs, a node with 1 CPU"
        with pytest.raises(ClusterError, match="a sweep on several nodes needs an MLflow server"):
            admit(shared, joined, "sqlite:////tmp/mlflow.db")
        with pytest.raises(ClusterError, match=r"127\.0\.0\.10: what is written here is not seen there; give a folder"):
            admit(unshared, joined, "http://127.0.0.1:5000")
        admit(shared, joined, "http://127.0.0.1:5000")
        assert list((tmp_path / "runs").iterdir()) == []
