"""Signs of life of the ranks of gangs, where the driver finds them: in the key-value store of the cluster's head."""

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import psutil
import ray
from ray._private.state import state
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list, _internal_kv_put
from ray.util import get_node_ip_address

from stkd.cluster.each_node import ask_each

BEAT_SECONDS = 2.0
END_SECONDS = 60.0
"""How long the end of a process on another node may take."""
NAMESPACE = b"stkd-hearts"
IDLE = ""
"""The phase of a rank that nobody has asked for anything."""
Progress = Callable[[], tuple[int, str]]
"""How many steps a rank has done in all, and what it waits for that is outside: storage; empty while it does not."""


@dataclass(frozen=True)
class Beat:
    """What one rank said last."""

    gang: str
    rank: int
    name: str
    """What the gang works for; only the first rank knows."""
    host: str
    node: str
    pid: int
    phase: str
    steps: int
    problem: str
    number: int
    """Grows with every beat; 0 of a process that has no heart yet."""


class Heart:
    """Tells of a rank, from a thread of its own, for as long as its process runs."""

    def __init__(self, gang: str, rank: int, name: str = "") -> None:
        self.name, self.progress = name, _nothing_yet
        self._gang, self._rank, self._phases = gang, rank, ["start"]
        context = ray.get_runtime_context()
        self._place = {"host": get_node_ip_address(), "node": context.get_node_id(), "pid": os.getpid()}
        self._key = f"{context.get_job_id()}/{gang}/{rank}".encode()
        self._number, self._stopped = 0, Event()
        self._beat()
        Thread(target=self._run, name="heart", daemon=True).start()

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """The rank does something that must get on."""
        self._phases.append(phase)
        try:
            yield
        finally:
            self._phases.pop()

    def started(self, progress: Progress) -> None:
        """The rank is ready; from now on it is asked how it gets on."""
        self.progress = progress
        self._phases[0] = IDLE

    def stop(self) -> None:
        """The rank has ended as it should."""
        self._stopped.set()
        _internal_kv_del(self._key, namespace=NAMESPACE)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                self._beat()
            except (RayError, RuntimeError, ConnectionError):  # the head is away, or gone: not this rank's to mend
                continue

    def _beat(self) -> None:
        self._number += 1
        steps, problem = self.progress()
        beat = {"gang": self._gang, "rank": self._rank, "name": self.name, "phase": self._phases[-1], "steps": steps}
        beat |= {"problem": problem, "number": self._number, **self._place}
        _internal_kv_put(self._key, json.dumps(beat).encode(), overwrite=True, namespace=NAMESPACE)


def _nothing_yet() -> tuple[int, str]:
    return 0, ""


def beats() -> list[Beat]:
    """The last beat of every rank of this driver's gangs, also of ranks that are no more."""
    keys = _internal_kv_list(_prefix(), namespace=NAMESPACE)
    found = [_internal_kv_get(key, namespace=NAMESPACE) for key in keys]
    return [Beat(**json.loads(content)) for content in found if content is not None]


def forget(beat: Beat) -> None:
    """Take away what a rank that is no more has left."""
    _internal_kv_del(_prefix() + f"{beat.gang}/{beat.rank}".encode(), namespace=NAMESPACE)


def unborn(beats: Iterable[Beat]) -> list[Beat]:
    """Of processes that have begun and have no heart yet; what they would say."""
    known = {(beat.node, beat.pid) for beat in beats}
    found = []
    for identity, actor in _actors("PENDING_CREATION").items():
        address, pid = actor["Address"], actor["Pid"]
        if pid and (address["NodeID"], pid) not in known:
            name = "" if actor["ActorClassName"] == "GangHost" else "that starts"
            found.append(Beat(identity, 0, name, address["IPAddress"], address["NodeID"], pid, "start", 0, "", 0))
    return found


def living_processes() -> set[tuple[str, int]]:
    """Node and process id of every actor that Ray holds for alive."""
    actors = [*_actors("ALIVE").values(), *_actors("PENDING_CREATION").values()]
    return {(actor["Address"]["NodeID"], actor["Pid"]) for actor in actors}


def _actors(condition: str) -> dict[str, Any]:
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    actors: dict[str, Any] = state.actor_table(None, job, condition)
    return actors


def end_process(beat: Beat) -> str:
    """End a rank's process at once, whatever it does; returns why that cannot be done, or nothing."""
    node = {"NodeID": beat.node, "NodeManagerAddress": beat.host}
    (answer,) = ask_each([node], _kill_worker, beat.pid, seconds=END_SECONDS)
    return answer.problem


def _kill_worker(pid: int) -> bool:
    """Only a worker of Ray is killed: the number may belong to somebody else by now."""
    try:
        if not " ".join(psutil.Process(pid).cmdline()).startswith("ray::"):
            return False
        os.kill(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


def _prefix() -> bytes:
    return f"{ray.get_runtime_context().get_job_id()}/".encode()
