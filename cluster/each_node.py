"""Asking every node of a cluster, and what they must have in common: a folder that all of them see."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from stkd.cluster.errors import ClusterError

Found = TypeVar("Found")
ANSWER_SECONDS = 120.0
"""How long nodes may take: one that is new to this stkd installs it first."""
SEEN_SECONDS = 15.0
"""After so long, what one node wrote is seen on the others: NFS keeps what it knows for some seconds."""
DRIVER = "driver"


@dataclass(frozen=True)
class Answer(Generic[Found]):
    """What a node found, or why it did not answer."""

    node: str
    """Its address."""
    found: Found | None = None
    problem: str = ""


def ask_each(
    nodes: Iterable[Mapping[str, Any]], question: Callable[..., Found], *arguments: Any, seconds: float = ANSWER_SECONDS
) -> list[Answer[Found]]:
    """Run a function once on every node, at the same time, whatever else runs there."""
    ask = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            *arguments
        ): (node["NodeManagerAddress"])
        for node in nodes
    }
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
    for reference in late:
        ray.cancel(reference, force=True)
    answers = [_answer(asked[reference], reference) for reference in ready]
    return answers + [Answer(asked[reference], problem=f"no answer within {seconds:.0f} s") for reference in late]


def _answer(node: str, reference: Any) -> Answer[Any]:
    try:
        return Answer(node, ray.get(reference))
    except RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Answer(node, problem=lines[-1].strip())


@dataclass(frozen=True)
class Surroundings:
    """What a node sees of what the driver sees."""

    written: str = ""
    problem: str = ""
    missing: tuple[str, ...] = ()


def check_shared(nodes: Iterable[Mapping[str, Any]], folder: Path, models: Sequence[str]) -> None:
    """Raise ClusterError unless every node sees what is written in `folder` here, and the other way round.

    `models` are folders that every node must see, too.
    """
    for answer in seen_together(partial(ask_each, list(nodes)), folder, models):
        if answer.found is None:
            raise ClusterError(f"node {answer.node} does not work: {answer.problem}")
        if answer.found.problem:
            raise ClusterError(
                f"storage {folder}, node {answer.node}: {answer.found.problem}; give a folder that all nodes share, "
                "such as NFS, with --storage"
            )
        if answer.found.missing:
            raise ClusterError(
                f"node {answer.node}: there is no model folder {answer.found.missing[0]}; put it where all nodes see it"
            )


def seen_together(
    ask: Callable[..., list[Answer[Surroundings]]], folder: Path, models: Sequence[str] = ()
) -> list[Answer[Surroundings]]:
    """What each node sees of what is written in `folder` here, and this machine of what they write.

    `ask` asks the nodes a question. Raises OSError where nothing can be written here.
    """
    word = token_hex(16)
    with TemporaryDirectory(prefix=".probe-", dir=folder) as name:
        probe = Path(name)
        probe.chmod(0o777)  # nodes may run as other users, in containers
        (probe / DRIVER).write_text(word, encoding="utf-8")
        return [_seen_from_here(answer, probe, word) for answer in ask(look_around, probe, word, list(models))]


def _seen_from_here(answer: Answer[Surroundings], probe: Path, word: str) -> Answer[Surroundings]:
    found = answer.found
    if found is None or found.problem or _shows(probe / found.written, word):
        return answer
    return Answer(answer.node, replace(found, problem="what is written there is not seen here"))


def look_around(probe: Path, word: str, models: Sequence[str]) -> Surroundings:
    """Read what the driver wrote and write something back; runs on a node."""
    if not _shows(probe / DRIVER, word):
        return Surroundings(problem="what is written here is not seen there")
    name = token_hex(8)
    try:
        (probe / name).write_text(word, encoding="utf-8")
    except OSError as error:
        return Surroundings(problem=f"nothing can be written there ({error.strerror})")
    return Surroundings(name, missing=tuple(model for model in models if not Path(model).is_dir()))


def _shows(file: Path, word: str) -> bool:
    """Whether the file comes to be seen with this content."""
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            if file.read_text(encoding="utf-8") == word:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
