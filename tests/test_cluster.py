"""Gangs of ranks and placement, on a real local Ray."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.util import placement_group_table

from stkd.cluster.capacity import Request
from stkd.cluster.cluster import Cluster
from stkd.cluster.errors import PlacementError
from stkd.cluster.gang import Gang
from stkd.cluster.placing import hosted_gang

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and subprocesses
]
WORKER = "ranks_for_tests:FaultyWorker"
TWO_RANKS = Request(ranks=2, cpus=1)


def impatient() -> None:
    raise AssertionError("there is room")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with Cluster() as cluster:
            yield cluster


@pytest.mark.usefixtures("cluster")
def test_nothing_runs_that_serves_a_clusters_operators() -> None:
    commands = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
    programs = ("gcs_server", "raylet", "monitor.py", "dashboard.py")
    assert [name for name in programs if any(name in command for command in commands)] == ["gcs_server", "raylet"]


@pytest.mark.usefixtures("cluster")
def test_two_ranks_meet_and_leave_no_placement_group() -> None:
    with hosted_gang(WORKER, TWO_RANKS, impatient) as host:
        assert ray.get(host.call.remote("group_size")) == 2
        assert ray.get(host.call.remote("summed")) == 3.0
    deadline = time.monotonic() + 10
    while any(group["state"] != "REMOVED" for group in placement_group_table().values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("cluster")
def test_failure_of_one_rank_is_raised_as_its_own_and_soon() -> None:
    with hosted_gang(WORKER, TWO_RANKS, impatient) as host:
        ray.get(host.call.remote("group_size"))
        start = time.monotonic()
        with pytest.raises(RuntimeError, match="the second rank has failed"):
            ray.get(host.call.remote("fail_on_second_rank"))
        assert time.monotonic() - start < 30


@pytest.mark.usefixtures("cluster")
def test_death_of_one_rank_ends_the_call_of_the_others() -> None:
    with hosted_gang(WORKER, TWO_RANKS, impatient) as host:
        ray.get(host.call.remote("group_size"))
        start = time.monotonic()
        with pytest.raises((RuntimeError, ray.exceptions.RayError)):
            ray.get(host.call.remote("die_on_second_rank"))
        assert time.monotonic() - start < 30


def asked_only_in_the_end() -> tuple[bool, bool, int, bool]:
    """Whether the ranks' class was loaded and there were ranks before the first call; its answer; and then."""
    gang = Gang("light_rank:LightRank", 1, 1, 0.0)
    before = "light_rank" in sys.modules, gang.has_started
    answer = gang.call("count", 3, 0.0)
    after = gang.has_started
    gang.stop()
    return (*before, answer, after)


@pytest.mark.usefixtures("cluster")
def test_ranks_start_with_the_first_call() -> None:
    assert ray.get(ray.remote(asked_only_in_the_end).remote()) == (False, False, 3, True)


def test_what_can_never_be_placed_is_refused(cluster: Cluster) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    capacity = cluster.capacity()
    capacity.refuse_impossible(Request(1, cpus))
    assert capacity.jobs_now(Request(1, 1)) == capacity.jobs_at_most(Request(1, 1)) == cpus
    assert capacity.most_cpus_per_rank(1) == cpus
    with pytest.raises(PlacementError, match="never fits this cluster"):
        capacity.refuse_impossible(Request(cpus + 1, 1))
    with pytest.raises(PlacementError, match=r"lower resources\.ranks"):
        capacity.refuse_impossible(Request(1, 1, 9.0))
