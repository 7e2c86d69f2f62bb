"""What is wrong with what a sweep leans on: storage, MLflow, the hub, ports."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from stkd.cluster.each_node import Answer, Surroundings, seen_together
from stkd.orchestrator.findings import Finding
from stkd.orchestrator.node_findings import size
from stkd.orchestrator.node_questions import Room
from stkd.orchestrator.preflight import existing
from stkd.orchestrator.ui import USUAL_PORT, is_free
from stkd.search_spaces.values import without_secrets

MLFLOW_SECONDS = 8.0
HEAD_PORTS = {6379: "--port", 8265: "--dashboard-port"}
"""Where a Ray head listens unless told otherwise, and what tells it."""
Ask = Callable[..., list[Answer[Surroundings]]]


def storage(folder: Path, ask: Ask) -> Iterator[Finding]:
    """Whether all nodes write there, and read what the others wrote. `ask` asks each of them a question."""
    place, another = existing(folder), "give another folder with --storage"
    named = f"storage {folder}" if place == folder else f"storage {folder} (not there yet; tried in {place})"
    try:
        answers = seen_together(ask, place)
    except OSError as error:
        yield Finding("FAIL", f"{named} cannot be written: {error.strerror}", another)
        return
    problems = [(answer.node, answer.problem or (answer.found and answer.found.problem)) for answer in answers]
    for node, problem in problems:
        if problem:
            shared = "give a folder that all nodes share, such as NFS, with --storage" if node else another
            yield Finding("FAIL", f"{named}: {problem}", shared, node)
    if not any(problem for _, problem in problems):
        count = f": {len(answers)} nodes read what each other wrote" if len(answers) > 1 else " takes files"
        yield Finding("ok", f"{named}{count}")


def disk(folder: Path, needed: float) -> Iterator[Finding]:
    """Whether the storage has room for so many bytes."""
    room = Room.of(existing(folder))
    if room.free < needed:
        says = f"storage {folder} has {size(room.free)} free, and a sweep takes about {size(needed)}"
        yield Finding("FAIL", says, f"make room in {room.place}, or give another folder with --storage")
    else:
        yield Finding("ok", f"storage has {size(room.free)} free" + f", of which about {size(needed)} are needed")


def mlflow(uri: str, several_nodes: bool) -> Iterator[Finding]:
    """Whether it answers to this name, and to whoever this is."""
    shown = without_secrets(uri)
    if urlsplit(uri).scheme in ("http", "https"):
        yield _server(uri.rstrip("/"), shown)
    elif several_nodes:
        server = "give a server by --set tracking.uri=http://HOST:5000, or by MLFLOW_TRACKING_URI"
        yield Finding("FAIL", f"{shown} serves one machine, and the cluster has several nodes", server)
    elif uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        writable = os.access(file if file.exists() else existing(file.parent), os.W_OK)
        says, fix = f"{shown} cannot be written", "give another tracking.uri, or --storage"
        yield Finding("ok", f"{shown} on this machine") if writable else Finding("FAIL", says, fix)
    else:
        yield Finding("ok", f"{shown} (not asked)")


def _server(uri: str, shown: str) -> Finding:
    start = "start it, or give the address of one by tracking.uri or MLFLOW_TRACKING_URI"
    host = urlsplit(uri).netloc.rpartition("@")[2]
    try:
        answer = requests.get(
            f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", auth=_login(uri), timeout=MLFLOW_SECONDS
        )
    except requests.Timeout:
        return Finding("FAIL", f"{shown} did not answer within {MLFLOW_SECONDS:.0f} s", start)
    except requests.RequestException:
        return Finding("FAIL", f"{shown}: nothing answers there", start)
    match answer.status_code:
        case requests.codes.ok if "experiments" in answer.text or answer.text.strip() == "{}":
            return Finding("ok", f"{shown} answers to {host}")
        case requests.codes.forbidden:
            says = f"{shown} does not accept the host name {host} (403)"
            return Finding("FAIL", says, f"start it with --allowed-hosts {host}, beside the others")
        case requests.codes.unauthorized:
            says = f"{shown} wants a user and a password, and those that are here are not right (401)"
            return Finding("FAIL", says, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        case code:
            return Finding("FAIL", f"{shown}: something answers there, but it is no MLflow ({code})", start)


def _login(uri: str) -> tuple[str, str] | None:
    """As MLflow's client has it: by the address, else by the environment."""
    parts = urlsplit(uri)
    if parts.username is not None:
        return unquote(parts.username), unquote(parts.password or "")
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    return (user, password or "") if user else None


def ports(starts_ray: bool) -> Iterator[Finding]:
    """Whether they are free where something will listen on this machine."""
    taken = list(_taken(starts_ray))
    yield from taken or [Finding("ok", f"{USUAL_PORT} is free for stkd ui")]


def _taken(starts_ray: bool) -> Iterator[Finding]:
    if not is_free(USUAL_PORT):
        fix = "stkd ui --port PORT chooses one; without it, any free one is taken"
        yield Finding("warn", f"{USUAL_PORT}, where stkd ui would listen, is taken", fix)
    for port, option in HEAD_PORTS.items() if starts_ray else ():
        if not is_free(port):
            says = f"{port}, where a Ray head would listen, is taken"
            yield Finding("warn", says, f"a sweep is not hindered; `ray start --head` wants another {option}")
