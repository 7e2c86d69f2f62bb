"""Processes of a sweep that die: a stage's, one rank of a trial, and one that runs out of memory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import psutil
import pytest
from recorded import assert_little_was_lost, assert_one_run_each, local_runs, results_of
from sweeping import write_space
from victims import TRIAL, begun

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated")  # MLflow and SQLAlchemy
EPOCHS = 12
LONG = 60
"""Epochs of a trial that is disturbed twice."""
ROOM = 4 << 30
"""Bytes that a host has left before it counts as low on memory."""
PIECE = 64 << 20
TRAINING = {"epochs": EPOCHS, "max_length": 32, "learning_rate": 1.0e-3}
MEMBER, STAGE = "_MemberActor", "GangHost"


def epochs_of(folder: Path) -> int:
    """How far the trial that runs has come; 0 where none does."""
    with suppress(FileNotFoundError, ValueError):  # no sweep yet, or half a line
        return max((one.epochs for one in results_of(folder).trials.values() if one.status == "running"), default=0)
    return 0


class Confinement:
    """A group of processes that have no memory left: the kernel kills whoever of them asks for more."""

    def __init__(self) -> None:
        lines = (line.split(":") for line in Path("/proc/self/cgroup").read_text().splitlines())
        own = {controllers: path for _, controllers, path in lines}
        if os.geteuid() != 0 or not os.access("/sys/fs/cgroup/memory", os.W_OK) or "memory" not in own:
            pytest.skip("taking memory from a process needs root, and the memory controller of cgroup v1")
        self.folder = Path("/sys/fs/cgroup/memory", own["memory"].strip("/"), f"test-{token_hex(4)}")
        self.folder.mkdir()

    def confine(self, process: psutil.Process) -> None:
        (self.folder / "memory.limit_in_bytes").write_text(str(1 << 20))
        (self.folder / "cgroup.procs").write_text(str(process.pid))


@pytest.fixture
def out_of_memory() -> Iterator[Confinement]:
    made = Confinement()
    yield made
    made.folder.rmdir()


@pytest.mark.cluster
def test_a_stage_begins_again_when_its_process_dies(tmp_path: Path) -> None:
    finetune = {"epochs": EPOCHS, "max_length": 32}
    teacher = {"model": str(tmp_path / "base"), "finetune": finetune}
    trials = {"count": 1, "searcher": "random", "scheduler": None}
    space = write_space(tmp_path, teacher=teacher, search={}, trials=trials, controls=False)
    with begun(tmp_path, "--space", str(space)) as driver:
        driver.wait_until(lambda: any((tmp_path / "runs" / "artifacts").glob(".claim-teacher-*")))
        driver.wait_until(lambda: bool(driver.processes(STAGE)))
        driver.processes(STAGE)[0].kill()
        screen = driver.finish()
    assert "a process of it is gone: it was killed" in screen
    assert "it begins anew" in screen
    assert "(raylet)" not in screen
    assert {trial.status for trial in results_of(tmp_path).trials.values()} == {"finished"}
    assert_one_run_each(local_runs(tmp_path), results_of(tmp_path))


@pytest.mark.cluster
def test_a_trial_goes_on_when_a_rank_dies_or_has_no_memory(tmp_path: Path, out_of_memory: Confinement) -> None:
    space = write_space(
        tmp_path,
        search={"sparsity": {"choice": [0.5]}},  # else it is the trial student, which is there already
        trials={"count": 1, "searcher": "random", "scheduler": None, "max_failures": 2},
        training=TRAINING | {"epochs": LONG},
        resources={"ranks": 2, "cpus_per_rank": 1},
        controls=False,
    )
    with begun(tmp_path, "--space", str(space)) as driver:
        driver.wait_until(lambda: epochs_of(tmp_path) >= 2)
        driver.processes(MEMBER)[0].kill()
        driver.wait_until(lambda: epochs_of(tmp_path) >= 6)
        driver.wait_until(lambda: bool(driver.processes(*TRIAL)))
        out_of_memory.confine(driver.processes(*TRIAL)[0])
        driver.finish()
    (trial,) = results_of(tmp_path).trials.values()
    assert (trial.status, trial.epochs) == ("finished", LONG)
    assert trial.lost > 0
    assert_little_was_lost(tmp_path)
    assert_one_run_each(local_runs(tmp_path), results_of(tmp_path))


@pytest.mark.cluster
def test_a_trial_that_may_not_fail_fails_with_its_reason(tmp_path: Path, out_of_memory: Confinement) -> None:
    trials = {"count": 4, "searcher": "grid", "scheduler": None, "concurrent": 1, "max_failures": 0}
    space = write_space(tmp_path, trials=trials, training=TRAINING, controls=False)
    with begun(tmp_path, "--space", str(space)) as driver:
        driver.wait_until(lambda: epochs_of(tmp_path) >= 2)
        out_of_memory.confine(driver.processes(*TRIAL)[0])
        driver.finish()
    results = results_of(tmp_path)
    (failed,) = (trial for trial in results.trials.values() if trial.status == "failed")
    assert failed.reason.startswith("a process of it is gone: it was killed, as the system does where memory runs out")
    assert len([trial for trial in results.trials.values() if trial.status == "finished"]) == 3
    assert_one_run_each(local_runs(tmp_path), results)


@pytest.mark.cluster
def test_a_host_that_runs_low_on_memory_costs_a_trial_little(tmp_path: Path) -> None:
    trials = {"count": 2, "searcher": "grid", "scheduler": None, "concurrent": 1, "max_failures": 3}
    search = {"sparsity": {"choice": [0.3, 0.5]}}
    space = write_space(tmp_path, search=search, trials=trials, training=TRAINING | {"epochs": LONG}, controls=False)
    memory = psutil.virtual_memory()
    low = (memory.total - memory.available + ROOM) / memory.total
    with begun(tmp_path, "--space", str(space), RAY_memory_usage_threshold=str(low)) as driver:
        driver.wait_until(lambda: epochs_of(tmp_path) >= 2)
        (trial,) = driver.processes(*TRIAL)
        taken: list[bytearray] = []

        def ended_for_its_memory() -> bool:
            if trial.is_running() and trial.status() != psutil.STATUS_ZOMBIE:
                taken.append(bytearray(b"x") * PIECE)
                assert len(taken) * PIECE < 2 * ROOM, "Ray's memory monitor does nothing"
            return not trial.is_running()

        driver.wait_until(ended_for_its_memory, pause=0.1)
        taken.clear()
        driver.finish()
    results = results_of(tmp_path)
    assert [each.status for each in results.trials.values()] == ["finished", "finished"]
    assert [each.epochs for each in results.trials.values()] == [LONG, LONG]
    assert sum(each.lost > 0 for each in results.trials.values()) == 1
    assert_little_was_lost(tmp_path)
    assert_one_run_each(local_runs(tmp_path), results)
