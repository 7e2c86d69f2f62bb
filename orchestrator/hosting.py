"""Where a sweep runs: the gang that computes stages, the trials side by side, and the devices that both take."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from stkd.cluster.connection import concurrent_jobs, hosted_gang, most_cpus_per_rank
from stkd.orchestrator.ledger import DevicePlan
from stkd.orchestrator.stages import CallGang, ray_caller
from stkd.search_spaces.schema import Space

WORKER = "stkd.trainers.worker:Worker"


@contextmanager
def stage_host(space: Space, cores: int | None = None) -> Iterator[Callable[[], CallGang]]:
    """Gives the way to a gang, which starts when it is first asked for and is gone when the context ends.

    On CPUs each of its ranks has so many `cores`, or as many as there are.
    """
    with ExitStack() as stack:

        @cache
        def caller() -> CallGang:
            resources = space.resources
            host = hosted_gang(WORKER, resources.ranks, cores or stage_cores(space), resources.gpus_per_rank)
            return ray_caller(stack.enter_context(host))

        yield caller


def stage_cores(space: Space) -> int:
    """Cores of a stage's rank: stages run one after the other, so on CPUs each has the machine to itself."""
    resources = space.resources
    return resources.cpus_per_rank if resources.gpus_per_rank else most_cpus_per_rank(resources.ranks)


def concurrent_trials(space: Space) -> int:
    """How many trials run at a time: as many as there is room for, or as the space allows."""
    resources = space.resources
    room = concurrent_jobs(resources.ranks, resources.cpus_per_rank, resources.gpus_per_rank)
    return min(room, space.trials.concurrent or room)


def device_plan(space: Space) -> DevicePlan:
    """The devices that a sweep holds in the cluster at hand."""
    return DevicePlan.of(space, concurrent_trials(space), stage_cores(space))
