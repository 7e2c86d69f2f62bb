"""Gangs that no Tune trial owns: a placement group, waited for aloud, and an actor in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from stkd.cluster.capacity import Request
from stkd.cluster.gang import GangHost

LOOK_SECONDS = 5.0
"""Between two looks at what is waited for."""


@contextmanager
def hosted_gang(member: str, request: Request, waits: Callable[[], None]) -> Iterator[Any]:
    """A gang in a placement group of its own; yields the actor to call it through, and removes both at the end.

    `waits` is called now and then for as long as there is no room.
    """
    group = placement_group(request.bundles, strategy="PACK")
    try:
        _wait(group, waits)
        host = GangHost.options(  # type: ignore[attr-defined]
            num_cpus=request.cpus,
            num_gpus=request.gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        ).remote(member, request.ranks, request.cpus, request.gpus)
        yield host
    finally:
        remove_placement_group(group)


def _wait(group: PlacementGroup, waits: Callable[[], None]) -> None:
    while not group.wait(LOOK_SECONDS):
        waits()
