"""What is stuck is named and ended; what is only slow is left alone."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest
import ray
from sweeping import write_space
from victims import Driver, begun, results_text

from stkd.cluster import hearts
from stkd.cluster.capacity import Request
from stkd.cluster.cluster import Cluster
from stkd.cluster.hearts import Beat
from stkd.cluster.placing import hosted_gang
from stkd.orchestrator.events import Observer
from stkd.orchestrator.interruption import Interruption
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import read_results
from stkd.orchestrator.stages import LostError, ray_caller
from stkd.orchestrator.watchdog import END, END_FIRST, SLOWER, Ranks, Watchdog
from stkd.trainers.patience import PATIENCE, StorageError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's sockets and subprocesses
AFTER = 10.0
BEAT = Beat("g", 0, "t", "10.0.0.7", "node", 4711, "run_epoch", 0, "", 0)


class Story:
    """A rank that beats once a second, as far as it is told to."""

    def __init__(self) -> None:
        self.ranks, self.beat, self.now = Ranks(AFTER), BEAT, 0.0

    def lives(self, seconds: float, step_every: float = 0.0, **changes: Any) -> None:
        """It beats; with a step now and then."""
        self.beat = replace(self.beat, **changes)
        end, stepped = self.now + seconds, self.now
        while self.now < end:
            self.now += 1
            if step_every and self.now - stepped >= step_every:
                self.beat, stepped = replace(self.beat, steps=self.beat.steps + 1), self.now
            self.beat = replace(self.beat, number=self.beat.number + 1)
            self.ranks.hear([self.beat], self.now)

    @property
    def verdict(self) -> str:
        """fine, named or ended."""
        found = self.ranks.stuck(self.now).get("g", [])
        return "fine" if not found else "ended" if found[0].is_over else "named"


def test_who_beats_and_steps_is_fine() -> None:
    story = Story()
    story.lives(100, step_every=5)
    assert story.verdict == "fine"


def test_silence_is_named_and_then_ended() -> None:
    story = Story()
    story.lives(20, step_every=1)
    story.now += AFTER + 1
    assert story.verdict == "named"
    story.now += (END - 1) * AFTER
    assert story.verdict == "ended"
    (trouble,) = story.ranks.stuck(story.now)["g"]
    assert str(trouble) == "rank 0, process 4711 on 10.0.0.7, shows no sign of life for 31 s, in run_epoch"


def test_no_step_is_measured_by_the_slowest_one_before() -> None:
    story = Story()
    story.lives(60, step_every=4)
    story.lives(SLOWER * 4 - 2)
    assert story.verdict == "fine"
    story.lives(4)
    assert story.verdict == "named"
    story.lives(END * SLOWER * 4)
    assert story.verdict == "ended"


def test_a_slow_first_step_is_named_but_not_ended() -> None:
    story = Story()
    story.lives(END * AFTER + 5)
    assert story.verdict == "named"
    story.lives(END_FIRST * AFTER)
    assert story.verdict == "ended", "but not for ever"


def test_what_took_long_once_may_take_long_again() -> None:
    story = Story()
    story.lives(END * AFTER)
    story.lives(2, step_every=1)
    story.lives(SLOWER * END * AFTER - 3)
    assert story.verdict == "fine"


def test_nobody_must_get_on_who_has_nothing_to_do_or_waits_for_storage() -> None:
    story = Story()
    story.lives(20, step_every=1)
    story.lives(200, phase="")
    assert story.verdict == "fine"
    story.lives(200, phase="save", problem="/data: no space left")
    assert story.verdict == "fine"


def test_of_a_gang_only_those_are_named_that_the_others_wait_for() -> None:
    ranks = Ranks(AFTER)
    for second in range(60):
        first = replace(BEAT, number=second)
        ranks.hear([first, replace(BEAT, rank=1, pid=4712, name="", number=min(second, 20))], float(second))
    (trouble,) = ranks.stuck(60.0)["g"]
    assert (trouble.beat.rank, trouble.what, trouble.is_over) == (1, "shows no sign of life", True)


def test_an_mlflow_that_is_away_is_told_once_and_so_is_its_return() -> None:
    told: list[str] = []
    watchdog = Watchdog(AFTER, 60.0, told.append)
    for second, problem in enumerate([None, "away", None, *["away"] * 40, None, None]):
        watchdog._look_at_tracking(problem, float(second))
    assert told == ["MLflow does not answer (away); the sweep goes on, and tells it later", "MLflow answers again"]


def test_who_is_no_more_waits_for_no_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage may end as soon as its last write has succeeded: what it said before that is no news."""
    told: list[str] = []
    waiting, living = replace(BEAT, problem="/data: no space left"), {(BEAT.node, BEAT.pid)}
    monkeypatch.setattr(hearts, "beats", lambda: [waiting])
    monkeypatch.setattr(hearts, "unborn", lambda beats: [])
    monkeypatch.setattr(hearts, "living_processes", lambda: living)
    monkeypatch.setattr(hearts, "forget", lambda beat: None)  # it asks Ray, which would begin a cluster of its own
    watchdog = Watchdog(AFTER, 60.0, told.append)
    for second in range(100):
        if second == 50:
            living.clear()
        watchdog._look(float(second))
        watchdog.check_storage()
    refused, again = (line for line in told if line.startswith("storage"))
    assert refused == "storage refuses writes: /data: no space left; it is tried again for 60 s"
    assert again == "storage takes writes again"


def test_where_storage_refuses_for_too_long_no_trial_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    monkeypatch.setattr(PATIENCE, "seconds", 60.0)
    monkeypatch.setattr(Interruption, "active", None)  # which is this test's, and no later one's
    told: list[str] = []
    watchdog, interruption = Watchdog(AFTER, 60.0, told.append), Interruption(Observer())
    with interruption.heard():
        for second in range(62):
            watchdog._look_at_storage(["/data: no space left"], float(second))
        assert sent == [signal.SIGTERM]
        interruption._press()
        watchdog._look_at_storage(["/data: no space left"], 62.0)
        assert sent == [signal.SIGTERM] * 2
    watchdog._look_at_storage([], 63.0)
    assert sent == [signal.SIGTERM] * 2
    assert len(told) == 1
    with pytest.raises(StorageError, match="no space left"):
        watchdog.check_storage()


# With real processes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with Cluster() as made:
            yield made


@contextmanager
def watched(after: float) -> Iterator[tuple[Watchdog, list[str]]]:
    told: list[str] = []
    with Watchdog(after, 60.0, told.append) as watchdog:
        yield watchdog, told


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_is_stopped_is_named_and_its_gang_ended(cluster: Cluster, stopped: int) -> None:
    with (
        hosted_gang("light_rank:LightRank", Request(2, 1), lambda: None) as host,
        watched(after=3.0) as (watchdog, told),
    ):
        call = ray_caller(host)
        assert call("count", 1, 0.01) == 1
        watchdog.stage_started("trial_student")
        victim = next(beat for beat in hearts.beats() if beat.rank == stopped)
        Timer(hearts.BEAT_SECONDS + 1, os.kill, (victim.pid, signal.SIGSTOP)).start()
        start = time.monotonic()
        with pytest.raises(LostError, match="a process of it is gone"):
            call("count", 10_000, 0.01)
        assert 3 * 3.0 < time.monotonic() - start < 60
    who = f"rank {stopped}, process {victim.pid} on {victim.host}, shows no sign of life for"
    *named, ended = told  # on a busy machine, who starts slowly is named, too
    assert [line for line in named if line.startswith(f"stage trial student is stuck: {who}")]
    assert ended.startswith(f"stage trial student is ended: stuck: {who}")
    assert ended.endswith("s, in count")
    assert watchdog.reasons[""] in ended
    assert hearts.beats() == []


class Unborn:
    def __init__(self) -> None:
        time.sleep(600)


@pytest.mark.slow
def test_a_process_that_hangs_before_it_has_a_heart_is_named_and_ended(cluster: Cluster) -> None:
    with watched(after=0.5) as (_, told):
        actor = ray.remote(num_cpus=0)(Unborn).remote()
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(actor.__ray_ready__.remote(), timeout=90)
    assert len(told) == 2
    assert told[0].startswith("trial that starts is stuck: rank 0, process ")
    assert told[1].endswith("s, in start")


@pytest.mark.slow
def test_a_gang_that_is_only_slow_finishes(cluster: Cluster) -> None:
    with (
        hosted_gang("light_rank:LightRank", Request(1, 1), lambda: None) as host,
        watched(after=4.0) as (watchdog, told),
    ):
        assert ray_caller(host)("count", 1, 10.0) == 1
        assert ray.get(host.call.remote("count", 2, 0.01)) == 3
    assert all("does not get on" in line for line in told)  # named at most
    assert watchdog.reasons == {}


@pytest.mark.cluster
def test_a_sweep_gets_over_a_stage_and_a_rank_of_a_trial_that_hang(tmp_path: Path) -> None:
    """Two ranks each. Whoever is stopped is named with its process, ended, and what it did is done again."""
    space = write_space(
        tmp_path,
        search={"sparsity": {"choice": [0.0, 0.5]}},
        trials={"count": 2, "searcher": "grid", "scheduler": None, "concurrent": 1, "stuck_after": 6.0},
        training={"epochs": 8, "max_length": 32, "learning_rate": 1.0e-3},
        resources={"ranks": 2, "cpus_per_rank": 1},
        controls=False,
    )
    storage = Storage(tmp_path / "runs")
    with begun(tmp_path, "--space", str(space)) as driver:
        stopped = [stop_when(driver, storage, '"data"', "GangHost", "stage teacher")]
        stopped += [stop_when(driver, storage, '"epochs": 2', "_MemberActor", "trial ")]
        text = driver.finish()
    ranks = [int(re.findall(rf"is ended: stuck: rank (\d), process {pid} on", text)[0]) for pid in stopped]
    assert ranks == [0, 1]
    assert re.search(r"stage teacher: a process of it is gone: .*; it begins anew", text)
    trials = read_results(storage.find_sweep())["remarks"].of_phase("search")
    assert [(trial.status, trial.epochs) for trial in trials] == [("finished", 8)] * 2
    assert "is stuck: rank" in storage.find_sweep().log.read_text()


def stop_when(driver: Driver, storage: Storage, reached: str, who: str, named: str) -> int:
    """Stop a process of this kind when the results say so, and wait until that is dealt with; returns its id."""
    driver.wait_until(lambda: reached in results_text(storage))
    driver.wait_until(lambda: bool(driver.processes(who)))
    time.sleep(hearts.BEAT_SECONDS)
    victim = driver.processes(who)[0]
    victim.suspend()
    parts = (named, f"process {victim.pid} on")
    driver.wait_until(lambda: all(part in driver.log.read_text() for part in parts))
    driver.wait_until(lambda: not psutil.pid_exists(victim.pid) or victim.status() == psutil.STATUS_ZOMBIE)
    return int(victim.pid)
