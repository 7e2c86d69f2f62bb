"""A gang: the ranks of one training job in one placement group. Rank 0 is whoever makes the gang."""

import gc
from contextlib import AbstractContextManager, ExitStack
from pkgutil import resolve_name
from typing import Any, Protocol
from uuid import uuid4

import ray
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from stkd.cluster.hearts import Heart
from stkd.cluster.network import talk_over

EXPLANATION_SECONDS = 5.0
"""How long a failed first rank waits to hear whether another rank failed before it."""


class Member(Protocol):
    """One rank, as a gang sees it."""

    @property
    def port(self) -> int | None:
        """Where the first rank waits for the others."""
        ...

    def join(self) -> None:
        """Meet the other ranks."""
        ...

    def abandon(self) -> None:
        """Cut the ties to the other ranks after a failure."""
        ...

    def progress(self) -> tuple[int, str]:
        """How it gets on, see `stkd.cluster.hearts.Progress`; asked by another thread."""
        ...


class Gang:
    """Calls a method on every rank at once: here for rank 0, in Ray actors on the other bundles for the rest.

    `member` names a class as `package.module:Class`, so that only the ranks import it; it is called as
    `member(rank, size, host, port, threads)`. `name` is what the gang works for, for whoever watches it. Must be made
    inside a task or actor that runs in the first bundle of a placement group with one bundle a rank. The ranks start
    with the first call: who never calls has not waited for what they import.
    """

    def __init__(self, member: str, size: int, cpus: int, gpus: float, name: str = "") -> None:
        self._member, self._size, self._cpus, self._gpus = member, size, cpus, gpus
        self._identity = uuid4().hex
        self._first: Member | None = None
        self._others: list[Any] = []
        self._heart = Heart(self._identity, 0, name)
        self._heart.started(self._progress)

    def _progress(self) -> tuple[int, str]:
        return (0, "") if self._first is None else self._first.progress()

    def start(self) -> None:
        """Start the ranks, unless they have started."""
        if self._first is None:
            with self._heart.during("start"):
                self._first = self._started()
            self.call("join")

    def _started(self) -> Member:
        host = get_node_ip_address() if self._size > 1 else "127.0.0.1"
        talk_over(host)
        first: Member = _found(self._member)(0, self._size, host, None, self._cpus)
        group = get_current_placement_group()
        self._others = [
            _MemberActor.options(  # type: ignore[attr-defined]
                num_cpus=self._cpus,
                num_gpus=self._gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote(self._identity, self._member, rank, self._size, host, first.port, self._cpus)
            for rank in range(1, self._size)
        ]
        return first

    @property
    def has_started(self) -> bool:
        """Whether there are ranks."""
        return self._first is not None

    def works_for(self, name: str) -> None:
        """Say what the gang works for, to whoever watches it."""
        self._heart.name = name

    def during(self, phase: str) -> AbstractContextManager[None]:
        """The first rank does something between two calls that must get on, too."""
        return self._heart.during(phase)

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method of every rank; returns what the first one's returned, raises what any of them raised."""
        self.start()
        answers = [actor.call.remote(method, *arguments) for actor in self._others]
        try:
            with self._heart.during(method):
                result = getattr(self._first, method)(*arguments)
        except RuntimeError:
            # a rank that lost its peer fails too: the peer's own error is the one to show
            ready, _ = ray.wait(answers, num_returns=len(answers), timeout=EXPLANATION_SECONDS) if answers else ([], [])
            ray.get(ready)
            raise
        with self._heart.during(method):
            ray.get(answers)
        return result

    def stop(self) -> None:
        """End the other ranks' processes; idempotent."""
        self._heart.stop()
        for actor in self._others:
            ray.kill(actor)
        self._others = []


def _found(member: str) -> Any:
    gc.disable()  # what thousands of modules make stays: to look for garbage in it takes a sixth of their import
    try:
        return resolve_name(member)
    finally:
        gc.enable()


@ray.remote
class _MemberActor:
    def __init__(self, gang: str, member: str, rank: int, *arguments: Any) -> None:
        self._heart = Heart(gang, rank)
        talk_over(get_node_ip_address())
        self._member: Member = _found(member)(rank, *arguments)
        self._heart.started(self._member.progress)

    def call(self, method: str, *arguments: Any) -> None:
        with self._heart.during(method), ExitStack() as on_failure:
            on_failure.callback(self._member.abandon)
            getattr(self._member, method)(*arguments)
            on_failure.pop_all()


@ray.remote
class GangHost:
    """An actor that makes a gang and passes calls on to it: for work that no Tune trial owns."""

    def __init__(self, member: str, size: int, cpus: int, gpus: float) -> None:
        self._gang = Gang(member, size, cpus, gpus)
        self._gang.start()

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method on every rank."""
        return self._gang.call(method, *arguments)
