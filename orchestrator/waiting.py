"""What is said while work waits for room in the cluster: never nothing, and not too much."""

from collections.abc import Callable
from time import monotonic

from stkd.cluster.capacity import Request
from stkd.cluster.cluster import Cluster
from stkd.orchestrator.events import Observer

QUIET_SECONDS = 30.0
"""Between two such lines."""
LOOK_SECONDS = 5.0
PASSING_SECONDS = 15.0
"""A trial may wait for so long, without a word, for the room that another has just left."""


class Waiting:
    """Says what work waits for: once, and again when that has changed."""

    def __init__(self, cluster: Cluster, observer: Observer, clock: Callable[[], float] = monotonic) -> None:
        self._cluster, self._observer, self._clock = cluster, observer, clock
        self._told, self._told_at = "", float("-inf")

    def tell(self, who: str, request: Request) -> None:
        """`who` (as in "the stage waits") for room for this request."""
        if self._told and self._clock() - self._told_at < QUIET_SECONDS:
            return
        capacity = self._cluster.capacity()
        why = "what has that is taken" if capacity.jobs_now(request) else "no node has that yet"
        reason = f"{who} for {request}; {why}: the cluster has {capacity}"
        if reason != self._told:
            self._told, self._told_at = reason, self._clock()
            self._observer.waiting(reason)

    def over(self) -> None:
        """There is room again."""
        self._told = ""


class Queue:
    """Whether trials wait for room. Those whose processes just start do not: their room is theirs already."""

    def __init__(
        self, request: Request, cluster: Cluster, observer: Observer, clock: Callable[[], float] = monotonic
    ) -> None:
        self._request, self._cluster, self._clock = request, cluster, clock
        self._waiting = Waiting(cluster, observer, clock)
        self._looked_at = float("-inf")
        self._waits_since: float | None = None

    def look(self, has_pending: Callable[[], bool]) -> None:
        """Say so where trials have been waiting for a while; called often, it looks now and then."""
        if self._clock() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = self._clock()
        if not (has_pending() and self._cluster.has_waiting(self._request)):
            self._waits_since = None
            self._waiting.over()
        elif self._waits_since is None:
            self._waits_since = self._clock()
        elif self._clock() - self._waits_since >= PASSING_SECONDS:
            self._waiting.tell("trials wait", self._request)
