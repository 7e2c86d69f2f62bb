"""Gangs of ranks and placement, on a real local Ray."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.util import placement_group_table

from stkd.cluster.connection import (
    PlacementError,
    bundles,
    concurrent_jobs,
    hosted_gang,
    local_ray,
    most_cpus_per_rank,
    refuse_impossible,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and subprocesses
]
WORKER = "ranks_for_tests:FaultyWorker"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with local_ray():
            yield


@pytest.mark.usefixtures("cluster")
def test_two_ranks_meet_and_leave_no_placement_group() -> None:
    with hosted_gang(WORKER, ranks=2, cpus=1, gpus=0.0) as host:
        assert ray.get(host.call.remote("group_size")) == 2
        assert ray.get(host.call.remote("summed")) == 3.0
    deadline = time.monotonic() + 10
    while any(group["state"] != "REMOVED" for group in placement_group_table().values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("cluster")
def test_failure_of_one_rank_is_raised_as_its_own_and_soon() -> None:
    with hosted_gang(WORKER, ranks=2, cpus=1, gpus=0.0) as host:
        ray.get(host.call.remote("group_size"))
        start = time.monotonic()
        with pytest.raises(RuntimeError, match="the second rank has failed"):
            ray.get(host.call.remote("fail_on_second_rank"))
        assert time.monotonic() - start < 30


@pytest.mark.usefixtures("cluster")
def test_death_of_one_rank_ends_the_call_of_the_others() -> None:
    with hosted_gang(WORKER, ranks=2, cpus=1, gpus=0.0) as host:
        ray.get(host.call.remote("group_size"))
        start = time.monotonic()
        with pytest.raises((RuntimeError, ray.exceptions.RayError)):
            ray.get(host.call.remote("die_on_second_rank"))
        assert time.monotonic() - start < 30


@pytest.mark.usefixtures("cluster")
def test_what_can_never_be_placed_is_refused() -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    refuse_impossible(ranks=1, cpus=cpus, gpus=0.0)
    assert concurrent_jobs(ranks=1, cpus=1, gpus=0.0) == cpus
    assert most_cpus_per_rank(1) == cpus
    with pytest.raises(PlacementError, match="never fit this cluster"):
        refuse_impossible(ranks=cpus + 1, cpus=1, gpus=0.0)
    with pytest.raises(PlacementError, match=r"lower resources\.ranks"):
        refuse_impossible(ranks=1, cpus=1, gpus=9.0)


def test_bundles() -> None:
    assert bundles(2, 3, 0.0) == [{"CPU": 3.0}, {"CPU": 3.0}]
    assert bundles(1, 4, 0.5) == [{"CPU": 4.0, "GPU": 0.5}]
