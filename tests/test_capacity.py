"""What a cluster has room for, and how far it may grow; without a cluster."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stkd.cluster.capacity import Capacity, Growth, Limits, Machine, Request
from stkd.cluster.errors import PlacementError
from stkd.cluster.growth import from_config, from_raycluster

GPU_NODE, CPU_NODE, HEAD = Machine(8, 2), Machine(4), Machine(0)


def test_ranks_of_a_job_lie_on_one_node_or_on_several() -> None:
    capacity = Capacity.of([GPU_NODE, GPU_NODE, CPU_NODE, HEAD])
    assert capacity.jobs_now(Request(1, 4, 1.0)) == 4
    assert capacity.jobs_now(Request(3, 4, 1.0)) == 1
    assert capacity.jobs_now(Request(1, 4)) == 5
    assert capacity.jobs_now(Request(1, 1, 0.25)) == 16
    assert capacity.jobs_now(Request(5, 4, 1.0)) == 0


@pytest.mark.parametrize(("ranks", "cpus"), [(1, 8), (2, 8), (3, 4), (5, 4), (6, 2), (20, 1), (99, 1)])
def test_a_job_with_the_cluster_to_itself_gets_as_many_cpus_as_all_ranks_can_have(ranks: int, cpus: int) -> None:
    assert Capacity.of([GPU_NODE, GPU_NODE, CPU_NODE, HEAD]).most_cpus_per_rank(ranks) == cpus


@given(st.lists(st.integers(0, 9), max_size=5), st.integers(1, 4))
def test_the_most_cpus_fit_and_more_do_not(nodes: list[int], ranks: int) -> None:
    capacity = Capacity.of(Machine(cpus) for cpus in nodes)
    most = capacity.most_cpus_per_rank(ranks)
    assert capacity.jobs_now(Request(ranks, most)) or (most == 1 and sum(nodes) < ranks)
    assert not capacity.jobs_now(Request(ranks, most + 1))


def test_what_never_fits_is_refused_with_what_there_is() -> None:
    capacity = Capacity.of([GPU_NODE, GPU_NODE, HEAD])
    capacity.refuse_impossible(Request(4, 4, 1.0))
    with pytest.raises(PlacementError) as raised:
        capacity.refuse_impossible(Request(2, 4, 3.0))
    said = str(raised.value)
    assert "2 ranks of 4 CPUs and 3 GPUs each" in said
    assert "2 nodes with 8 CPUs and 2 GPUs, a node with 0 CPUs" in said


def test_nodes_that_may_come_count() -> None:
    growth = Growth({GPU_NODE: 3, CPU_NODE: 10})
    capacity = Capacity.of([HEAD], growth)
    request = Request(1, 4, 1.0)
    capacity.refuse_impossible(request)
    assert (capacity.jobs_now(request), capacity.jobs_at_most(request)) == (0, 6)
    assert capacity.largest == GPU_NODE
    with pytest.raises(PlacementError, match="may start 3 nodes with 8 CPUs and 2 GPUs, 10 nodes with 4 CPUs"):
        capacity.refuse_impossible(Request(1, 4, 4.0))


def test_a_limit_on_all_nodes_together_goes_to_those_that_serve() -> None:
    growth = Growth({CPU_NODE: 10, GPU_NODE: 3}, most=4)
    assert Capacity.of([], growth).jobs_at_most(Request(1, 4)) == 3 * 2 + 1
    assert Capacity.of([], growth).jobs_at_most(Request(1, 8)) == 3


def test_where_nothing_says_how_far_it_grows_nothing_is_refused() -> None:
    capacity = Capacity.of([HEAD], Growth(endless=True))
    assert capacity.jobs_at_most(Request(1, 4, 8.0)) is None
    capacity.refuse_impossible(Request(1, 4, 8.0))


def test_nodes_that_have_come_are_not_counted_twice() -> None:
    limits = Limits({GPU_NODE: 3, CPU_NODE: 1}, most=4)
    assert limits.beyond([]) == Growth({GPU_NODE: 3, CPU_NODE: 1}, 4)
    assert limits.beyond([GPU_NODE, GPU_NODE]) == Growth({GPU_NODE: 1, CPU_NODE: 1}, 2)
    assert limits.beyond([GPU_NODE] * 3 + [CPU_NODE]) == Growth({}, 0)


def test_kinds_of_nodes_of_which_nothing_is_known_may_be_anything_until_all_are_there() -> None:
    limits = from_config({"max_workers": 2, "available_node_types": {"local": {"max_workers": 2, "resources": {}}}})
    assert limits.beyond([CPU_NODE]).endless
    assert not limits.beyond([CPU_NODE, CPU_NODE]).endless


def test_the_limits_of_ray_up() -> None:
    config = {
        "max_workers": 40,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "gpus": {"resources": {"CPU": 8, "GPU": 2, "memory": 1e9}, "min_workers": 0, "max_workers": 30},
            "cpus": {"resources": {"CPU": 4}},
        },
    }
    assert from_config(config) == Limits(Counter({GPU_NODE: 30, CPU_NODE: 40}), 40)


def raycluster(autoscaling: bool) -> dict[str, Any]:
    """A RayCluster of KubeRay, as far as its autoscaler reads it."""

    def group(cpus: str, gpus: str | None) -> dict[str, Any]:
        limits = {"cpu": cpus, "memory": "8Gi"} | ({"nvidia.com/gpu": gpus} if gpus else {})
        template = {"spec": {"containers": [{"name": "ray", "resources": {"limits": limits, "requests": limits}}]}}
        return {"rayStartParams": {}, "template": template}

    head = group("4", None) | {"rayStartParams": {"num-cpus": "0"}}
    workers = group("8", "2") | {"groupName": "gpus", "replicas": 0, "minReplicas": 0, "maxReplicas": 20}
    spec = {"enableInTreeAutoscaling": autoscaling, "headGroupSpec": head, "workerGroupSpecs": [workers]}
    return {"metadata": {"name": "stkd", "namespace": "default"}, "spec": spec}


def test_the_limits_of_kuberay() -> None:
    config = from_raycluster(raycluster(autoscaling=True))
    assert config is not None
    assert from_config(config) == Limits(Counter({GPU_NODE: 20}), 20)
    assert from_raycluster(raycluster(autoscaling=False)) is None
