"""Where `stkd doctor` looks: the nodes of a cluster, or this machine alone."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from threading import Event, RLock, Thread
from time import monotonic
from typing import Any, Self

from stkd.cluster.capacity import Capacity, Machine
from stkd.cluster.cluster import Cluster
from stkd.cluster.each_node import Answer, ask_each
from stkd.cluster.errors import TokenError
from stkd.cluster.joining import wants_token
from stkd.orchestrator.findings import Finding
from stkd.orchestrator.node_questions import NodeFacts, look
from stkd.orchestrator.preflight import count_gpus
from stkd.orchestrator.requirements import needed

ANSWER_SECONDS = 47.0
"""After so long nodes have answered, or do not: one that is new to this stkd installs it first."""
LEAVE_SECONDS = 3.0


class Site:
    """The nodes, and what they answer, for as long as the context is open.

    A thread of its own joins the cluster, and stays in it. Where it cannot, all questions are put to this machine.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._until = monotonic() + ANSWER_SECONDS
        self._settled, self._told, self._closed, self._asking = Event(), Event(), Event(), RLock()
        self._cluster: Cluster | None = None
        self._answers: list[Answer[NodeFacts]] | None = None
        self._wanted: bool | None = None
        self._error: Exception | None = None
        self._found = ""
        self._visit = Thread(target=self._stay, name="site", daemon=True)

    def __enter__(self) -> Self:
        if self.address is None:
            self._settled.set()
        else:
            self._visit.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self.address is not None:
            self._visit.join(LEAVE_SECONDS)

    @property
    def is_left(self) -> bool:
        """Whether nothing of the visit goes on."""
        return not self._visit.is_alive()

    def _stay(self) -> None:
        try:
            assert self.address is not None, "there is nothing to join without an address"
            self._join(self.address)
        except Exception as error:  # noqa: BLE001 - raised again by whoever asks what came of it
            self._error = error
        finally:
            self._settled.set()
            self._told.set()

    def _join(self, address: str) -> None:
        self._wanted = wants_token(address)
        with Cluster(address) as cluster:
            self._cluster, self._found = cluster, str(cluster.capacity())
            self._settled.set()
            self._told.set()
            self._closed.wait()

    def joined(self) -> Iterator[Finding]:
        """Whether the cluster was joined."""
        self._told.wait()
        if isinstance(self._error, TokenError):
            yield Finding("FAIL", f"{self.address} was not joined", "see the token")
        elif self._error is not None:
            raise self._error
        else:
            yield Finding("ok", self._found)

    def started(self) -> Iterator[Finding]:
        """Whether a Ray of this machine starts, and runs something."""
        with Cluster() as cluster:
            (answer,) = ask_each(cluster.nodes(), _nothing, seconds=self.left())
        if answer.problem:
            yield Finding("FAIL", f"Ray starts, and runs nothing: {answer.problem}", "see its newest logs in /tmp/ray")
        else:
            yield Finding("ok", "a Ray of this machine starts, and runs a task")

    def left(self) -> float:
        """Seconds in which nodes may still answer."""
        return max(1.0, self._until - monotonic())

    def ask(self, question: Callable[..., Any], *arguments: Any) -> list[Answer[Any]]:
        """What each node answers; this machine has no name where it is alone.

        One question after the other: each that comes beside another has every node start a process for it.
        """
        with self._asking:
            return self.ask_aside(question, *arguments)

    def ask_aside(self, question: Callable[..., Any], *arguments: Any) -> list[Answer[Any]]:
        """The same for a question that takes long, beside the others."""
        self._settled.wait()
        if self._cluster is None:
            return [Answer("", question(*arguments))]
        return ask_each(self._cluster.nodes(), question, *arguments, seconds=self.left())

    @cached_property
    def here(self) -> NodeFacts:
        """What this process runs with."""
        return look(list(needed()))

    def facts(self) -> Mapping[str, NodeFacts]:
        """Of each node that answers."""
        return {answer.node: answer.found for answer in self.answers() if answer.found is not None}

    def answers(self) -> list[Answer[NodeFacts]]:
        """Of each node, asked once."""
        with self._asking:
            if self._answers is None:
                self._answers = self.ask(look, list(needed()))
            return self._answers

    def machines(self) -> Mapping[str, Machine]:
        """What Ray says that each node has; empty without a cluster."""
        self._settled.wait()
        nodes = self._cluster.nodes() if self._cluster else []
        return {node["NodeManagerAddress"]: Machine.of(node["Resources"]) for node in nodes}

    def capacity(self) -> Capacity:
        """What there is room for."""
        self._settled.wait()
        if self._cluster is not None:
            return self._cluster.capacity()
        return Capacity.of([Machine(self.here.cpus, count_gpus())])

    def has_several_nodes(self) -> bool:
        """Whether there are more nodes than this one, or may come to be."""
        self._settled.wait()
        return self._cluster is not None and self._cluster.may_have_several_nodes()

    def token(self) -> Iterator[Finding]:
        """Whether the cluster keeps strangers out, and lets this machine in."""
        self._settled.wait()
        if isinstance(self._error, TokenError):
            yield Finding.of_error(self._error)
        elif self._wanted:
            yield Finding("ok", "asked for, and the one that is here is right")
        elif self._wanted is not None:
            says = f"{self.address} asks for none: who reaches its ports may run anything on its nodes"
            yield Finding("warn", says, "start it with RAY_AUTH_MODE=token and a RAY_AUTH_TOKEN")


def _nothing() -> None:
    """Runs on a node."""
