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
    inside a task or actor that runs in the first bundle of a placement group with one bundle a rank.
    """

    def __init__(self, member: str, size: int, cpus: int, gpus: float, name: str = "") -> None:
        identity = uuid4().hex
        self._heart = Heart(identity, 0, name)
        host = get_node_ip_address() if size > 1 else "127.0.0.1"
        talk_over(host)
        self._first: Member = _found(member)(0, size, host, None, cpus)
        group = get_current_placement_group()
        self._others = [
            _MemberActor.options(  # type: ignore[attr-defined]
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote(identity, member, rank, size, host, self._first.port, cpus)
            for rank in range(1, size)
        ]
        self.call("join")
        self._heart.started(self._first.progress)

    def works_for(self, name: str) -> None:
        """Say what the gang works for, to whoever watches it."""
        self._heart.name = name

    def during(self, phase: str) -> AbstractContextManager[None]:
        """The first rank does something between two calls that must get on, too."""
        return self._heart.during(phase)

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method of every rank; returns what the first one's returned, raises what any of them raised."""
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

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method on every rank."""
        return self._gang.call(method, *arguments)
