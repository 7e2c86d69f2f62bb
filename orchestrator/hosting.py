"""The gang of ranks that computes a task's stages."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from stkd.cluster.connection import hosted_gang, most_cpus_per_rank
from stkd.orchestrator.stages import CallGang, ray_caller
from stkd.search_spaces.schema import Space

WORKER = "stkd.trainers.worker:Worker"


@contextmanager
def stage_host(space: Space) -> Iterator[Callable[[], CallGang]]:
    """Gives the way to a gang, which starts when it is first asked for and is gone when the context ends."""
    with ExitStack() as stack:

        @cache
        def caller() -> CallGang:
            resources = space.resources
            cpus = resources.cpus_per_rank
            if not resources.gpus_per_rank:  # stages run one after the other: on CPUs, each has the machine to itself
                cpus = most_cpus_per_rank(resources.ranks)
            host = hosted_gang(WORKER, resources.ranks, cpus, resources.gpus_per_rank)
            return ray_caller(stack.enter_context(host))

        yield caller
