"""Where a sweep runs: the gang that computes stages, the trials side by side, and the devices that both take."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from time import monotonic
from typing import Any

from stkd.cluster.capacity import Capacity, Request
from stkd.cluster.cluster import Cluster
from stkd.orchestrator.events import Observer
from stkd.orchestrator.ledger import DevicePlan
from stkd.orchestrator.stages import CallGang, ray_caller
from stkd.orchestrator.waiting import Waiting
from stkd.search_spaces.schema import Space

WORKER = "stkd.trainers.worker:Worker"
LOOK_SECONDS = 5.0
"""Between two looks at the nodes of the cluster."""
FEWEST_AHEAD = 4
"""So many trials more than there is room for are begun at least, where nothing says how far a cluster grows: room comes
only for what waits."""


def trial_request(space: Space) -> Request:
    """What one trial asks the cluster for."""
    resources = space.resources
    return Request(resources.ranks, resources.cpus_per_rank, resources.gpus_per_rank)


class StageHost:
    """The gang that computes stages: starts when it is first asked for, and anew where its processes were lost."""

    def __init__(self, space: Space, cluster: Cluster, observer: Observer, cores: int | None) -> None:
        self._space, self._cluster, self._observer, self._cores = space, cluster, observer, cores
        self._stack = ExitStack()
        self._call: CallGang | None = None

    def __call__(self) -> CallGang:
        """The way to call the gang."""
        if self._call is None:
            space, cluster = self._space, self._cluster
            free = cluster.capacity() if cluster.is_local else cluster.free()
            resources = space.resources
            request = Request(resources.ranks, self._cores or stage_cores(space, free), resources.gpus_per_rank)
            gang = worker_gang(cluster, self._observer, "the stage waits", request)
            self._call = ray_caller(self._stack.enter_context(gang), self.end)
        return self._call

    def end(self) -> None:
        """Give the gang's place back."""
        self._call = None
        self._stack.close()


@contextmanager
def stage_host(
    space: Space, cluster: Cluster, observer: Observer, cores: int | None = None
) -> Iterator[Callable[[], CallGang]]:
    """Gives the way to a gang, which starts when it is first asked for and is gone when the context ends.

    Where a process of it is lost, another gang starts when it is asked for again. On CPUs each of its ranks has so many
    `cores`, or as many as there are.
    """
    host = StageHost(space, cluster, observer, cores)
    try:
        yield host
    finally:
        host.end()


def worker_gang(cluster: Cluster, observer: Observer, who: str, request: Request) -> AbstractContextManager[Any]:
    """A gang of workers; while there is no room for it, the observer hears that `who` for what."""
    waiting = Waiting(cluster, observer)
    return cluster.gang(WORKER, request, lambda: waiting.tell(who, request))


def stage_cores(space: Space, capacity: Capacity) -> int:
    """Cores of a stage's rank: stages run one after the other, so on CPUs each has all that are free to itself."""
    resources = space.resources
    if resources.gpus_per_rank:
        return resources.cpus_per_rank
    return max(resources.cpus_per_rank, capacity.most_cpus_per_rank(resources.ranks))


def concurrent_trials(space: Space, capacity: Capacity) -> int:
    """How many trials run at a time: as many as the cluster may come to have room for, or as the space allows."""
    request = trial_request(space)
    room = capacity.jobs_at_most(request)
    if room is None:
        now = capacity.jobs_now(request)
        room = now + max(now, FEWEST_AHEAD)
    return _allowed(space, room)


def device_plan(space: Space, capacity: Capacity) -> DevicePlan:
    """The devices that a sweep holds on the nodes that are there."""
    concurrent = _allowed(space, capacity.jobs_now(trial_request(space)))
    return DevicePlan.of(space, concurrent, stage_cores(space, capacity))


def _allowed(space: Space, room: int) -> int:
    return min(max(1, room), space.trials.concurrent or max(1, room))


class Room:
    """What there is room for, as nodes come and go."""

    def __init__(self, space: Space, cluster: Cluster, clock: Callable[[], float] = monotonic) -> None:
        self._space, self._cluster, self._clock = space, cluster, clock
        self._look()

    def trials(self) -> int:
        """How many trials may run at a time."""
        return concurrent_trials(self._space, self._now())

    def devices(self) -> DevicePlan:
        """The devices that the sweep holds."""
        return device_plan(self._space, self._now())

    def _now(self) -> Capacity:
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._look()
        return self._capacity

    def _look(self) -> None:
        self._capacity, self._looked = self._cluster.capacity(), self._clock()
