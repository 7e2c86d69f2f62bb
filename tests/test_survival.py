"""What a night brings to the hosts of a cluster, and that a sweep survives it."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from recorded import assert_little_was_lost, assert_one_run_each, last_losses, results_of, sweep_of, what_came_of
from sweeping import write_space
from team import Team, team
from victims import Driver, ended

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and subprocesses
]
EPOCHS = 10
STAGES = ("data", "teacher", "logits", "trial_student", "scores")
CUT_SECONDS = 30.0


@dataclass(frozen=True)
class Undisturbed:
    """A sweep that nothing happened to."""

    storage: Path
    outcomes: Mapping[str, Mapping[str, object]]
    losses: Mapping[str, float]

    def lend_stages(self, folder: Path) -> None:
        """Have the next sweep begin with its trials."""
        for artifact in (self.storage / "artifacts").iterdir():
            if artifact.name.rpartition("-")[0] in STAGES:
                shutil.copytree(artifact, folder / "runs" / "artifacts" / artifact.name)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team(tmp_path_factory.mktemp("team")) as made:
        yield made


@pytest.fixture
def hosts(machines: Team) -> Team:
    """All of them up, whatever happened before."""
    machines.complete()
    return machines


def space_of(folder: Path, team: Team, **changes: object) -> Path:
    training = {"epochs": EPOCHS, "max_length": 32, "learning_rate": 1.0e-3}
    trials = {"count": 4, "searcher": "grid", "scheduler": None, "max_failures": 2}
    settings = {"controls": False, "training": training, "trials": trials, "tracking": {"uri": team.tracking}}
    return write_space(folder, name=folder.name, **settings | changes)


@contextmanager
def begun(hosts: Team, folder: Path, *options: str | Path) -> Iterator[Driver]:
    """`stkd sweep` where the head is; killed if it is still there at the end."""
    log = folder / "driver.log"
    process = hosts.cluster.begin_stkd_into(log, "sweep", *options, "--address", hosts.cluster.address)
    with ended(Driver(process, log)) as driver:
        yield driver


@pytest.fixture(scope="module")
def undisturbed(machines: Team, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    with begun(machines, folder, "--space", space_of(folder, machines)) as driver:
        driver.finish()
    outcomes = what_came_of(results_of(folder))
    assert {outcome["status"] for outcome in outcomes.values()} == {"finished"}
    assert len(outcomes) == 4
    assert_one_run_each(machines.runs(folder.name), results_of(folder))
    return Undisturbed(folder / "runs", outcomes, last_losses(machines.runs(folder.name)))


def under_way(folder: Path, trials: int = 2, epochs: int = 2) -> Callable[[], bool]:
    """Whether so many trials run, so many epochs after each has begun."""

    def look() -> bool:
        with suppress(FileNotFoundError, ValueError):  # no sweep yet, or half a line
            running = [trial for trial in results_of(folder).trials.values() if trial.status == "running"]
            return sum(trial.epochs >= epochs for trial in running) >= trials
        return False

    return look


def assert_as_undisturbed(folder: Path, hosts: Team, undisturbed: Undisturbed) -> None:
    """The same trials with the same final metrics; little was trained twice; each has one run, which has ended."""
    assert what_came_of(results_of(folder)) == undisturbed.outcomes
    assert last_losses(hosts.runs(folder.name)) == undisturbed.losses
    assert_little_was_lost(folder)
    assert_one_run_each(hosts.runs(folder.name), results_of(folder))


def retried(folder: Path) -> int:
    return sum(trial.lost > 0 for trial in results_of(folder).trials.values())


def test_a_worker_that_is_lost(hosts: Team, undisturbed: Undisturbed, tmp_path: Path) -> None:
    undisturbed.lend_stages(tmp_path)
    with begun(hosts, tmp_path, "--space", space_of(tmp_path, hosts)) as driver:
        driver.wait_until(under_way(tmp_path))
        hosts.workers[-1].kill()
        driver.finish()
    assert retried(tmp_path) == 1
    assert_as_undisturbed(tmp_path, hosts, undisturbed)


def test_a_worker_that_is_lost_in_a_stage(hosts: Team, tmp_path: Path) -> None:
    finetune = {"epochs": 20, "max_length": 32}
    teacher = {"model": str(tmp_path / "base"), "finetune": finetune}
    trials = {"count": 1, "searcher": "random", "scheduler": None}
    space = space_of(tmp_path, hosts, teacher=teacher, search={}, trials=trials)
    with begun(hosts, tmp_path, "--space", space) as driver:
        driver.wait_until(lambda: any((tmp_path / "runs" / "artifacts").glob(".teacher-*/*")))
        (busy,) = (node for node in hosts.workers if node.runs("GangHost"))
        busy.kill()
        screen = driver.finish()
    assert "it begins anew" in screen
    assert {trial.status for trial in results_of(tmp_path).trials.values()} == {"finished"}
    assert_one_run_each(hosts.runs(tmp_path.name), results_of(tmp_path))


def test_a_link_that_is_down_for_a_while(hosts: Team, undisturbed: Undisturbed, tmp_path: Path) -> None:
    undisturbed.lend_stages(tmp_path)
    with begun(hosts, tmp_path, "--space", space_of(tmp_path, hosts)) as driver:
        driver.wait_until(under_way(tmp_path))
        hosts.hosts[2].plug("down")
        time.sleep(CUT_SECONDS)
        hosts.hosts[2].plug("up")
        driver.finish()
    assert_as_undisturbed(tmp_path, hosts, undisturbed)


def test_a_link_that_stays_down(hosts: Team, undisturbed: Undisturbed, tmp_path: Path) -> None:
    undisturbed.lend_stages(tmp_path)
    lost = hosts.workers[-1]
    with begun(hosts, tmp_path, "--space", space_of(tmp_path, hosts)) as driver:
        driver.wait_until(under_way(tmp_path))
        lost.host.plug("down")
        driver.finish()
    lost.kill()
    lost.host.plug("up")
    assert retried(tmp_path) == 1
    assert_as_undisturbed(tmp_path, hosts, undisturbed)


def test_a_head_that_is_lost_with_all_else(hosts: Team, undisturbed: Undisturbed, tmp_path: Path) -> None:
    undisturbed.lend_stages(tmp_path)
    with begun(hosts, tmp_path, "--space", space_of(tmp_path, hosts)) as driver:
        driver.wait_until(under_way(tmp_path))
        driver.kill()
        hosts.lose()
    hosts.complete()
    resume: list[str | Path] = ["--resume", sweep_of(tmp_path).sweep_id, "--storage", tmp_path / "runs"]
    with begun(hosts, tmp_path, *resume) as driver:
        driver.finish()
    assert_as_undisturbed(tmp_path, hosts, undisturbed)
