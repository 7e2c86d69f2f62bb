"""A gang: the ranks of one training job in one placement group. Rank 0 is whoever makes the gang."""

from contextlib import ExitStack
from pkgutil import resolve_name
from typing import Any, Protocol

import ray
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

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


class Gang:
    """Calls a method on every rank at once: here for rank 0, in Ray actors on the other bundles for the rest.

    `member` names a class as `package.module:Class`, so that only the ranks import it; it is called as
    `member(rank, size, host, port, threads)`. Must be made inside a task or actor that runs in the
    first bundle of a placement group with one bundle a rank.
    """

    def __init__(self, member: str, size: int, cpus: int, gpus: float) -> None:
        host = get_node_ip_address() if size > 1 else "127.0.0.1"
        talk_over(host)
        self._first: Member = resolve_name(member)(0, size, host, None, cpus)
        group = get_current_placement_group()
        self._others = [
            _MemberActor.options(  # type: ignore[attr-defined]
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote(member, rank, size, host, self._first.port, cpus)
            for rank in range(1, size)
        ]
        self.call("join")

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method of every rank; returns what the first one's returned, raises what any of them raised."""
        answers = [actor.call.remote(method, *arguments) for actor in self._others]
        try:
            result = getattr(self._first, method)(*arguments)
        except RuntimeError:
            # a rank that lost its peer fails too: the peer's own error is the one to show
            ready, _ = ray.wait(answers, num_returns=len(answers), timeout=EXPLANATION_SECONDS) if answers else ([], [])
            ray.get(ready)
            raise
        ray.get(answers)
        return result

    def stop(self) -> None:
        """End the other ranks' processes; idempotent."""
        for actor in self._others:
            ray.kill(actor)
        self._others = []


@ray.remote
class _MemberActor:
    def __init__(self, member: str, *arguments: Any) -> None:
        talk_over(get_node_ip_address())
        self._member: Member = resolve_name(member)(*arguments)

    def call(self, method: str, *arguments: Any) -> None:
        with ExitStack() as on_failure:
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
