"""Starting a local Ray, and taking it down with everything in it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from stkd.cluster.gang import GangHost

LOOPBACK = "127.0.0.2"
"""Of the loopback addresses, one that Ray takes as it is: it replaces 127.0.0.1 by the address that others see."""


class PlacementError(ValueError):
    """What was asked for can never be placed."""


@contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of this machine alone, on loopback, gone when the context ends. Never joins one that already runs."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address=LOOPBACK,
    )
    try:
        yield
    finally:
        ray.shutdown()


def bundles(ranks: int, cpus: int, gpus: float) -> list[dict[str, float]]:
    """The placement group of one job: a bundle for each rank."""
    return [{"CPU": float(cpus)} | ({"GPU": gpus} if gpus else {}) for _ in range(ranks)]


def refuse_impossible(ranks: int, cpus: int, gpus: float) -> None:
    """Raise PlacementError where the cluster can never hold one job: Ray itself would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = sum(_fits(node, cpus, gpus) for node in nodes)
    if fitting < ranks:
        largest = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise PlacementError(
            f"resources: {ranks} ranks of {cpus} CPUs and {gpus:g} GPUs never fit this cluster ({largest}); "
            f"lower resources.ranks, resources.cpus_per_rank or resources.gpus_per_rank"
        )


def _fits(node: dict[str, float], cpus: int, gpus: float) -> int:
    by_cpu = node.get("CPU", 0.0) // cpus
    return int(min(by_cpu, node.get("GPU", 0.0) // gpus) if gpus else by_cpu)


@contextmanager
def hosted_gang(member: str, ranks: int, cpus: int, gpus: float) -> Iterator[Any]:
    """A gang in a placement group of its own; yields the actor to call it through, and removes both at the end."""
    group = placement_group(bundles(ranks, cpus, gpus), strategy="PACK")
    try:
        host = GangHost.options(  # type: ignore[attr-defined]
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        ).remote(member, ranks, cpus, gpus)
        yield host
    finally:
        remove_placement_group(group)


def concurrent_jobs(ranks: int, cpus: int, gpus: float) -> int:
    """How many jobs of so many ranks the cluster holds at a time; at least one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(1, sum(_fits(node, cpus, gpus) for node in nodes) // ranks)


def largest_node() -> dict[str, float]:
    """The resources of the node that has most: GPUs first, then CPUs."""
    nodes: list[dict[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)))


def most_cpus_per_rank(ranks: int) -> int:
    """How many CPUs each rank of a job can have where the job has the whole cluster."""
    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return max(cpus for cpus in range(1, max(counts) + 1) if sum(count // cpus for count in counts) >= ranks)
