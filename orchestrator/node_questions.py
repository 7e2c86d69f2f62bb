"""What every node is asked by `stkd doctor`: functions that run there, or here where there is no cluster."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import requests

from stkd.orchestrator.preflight import check_models, is_on_hub
from stkd.search_spaces.schema import Space
from stkd.trainers.errors import UserError
from stkd.trainers.steps import StepError, Steps, Timed, time_steps

HUB = "https://huggingface.co"
HUB_SECONDS = 8.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Ray keeps its objects
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Room:
    """A place on a disk, or in memory. In bytes."""

    place: str
    free: int
    total: int

    @classmethod
    def of(cls, folder: Path) -> "Room":
        """The room of the folder's file system."""
        usage = shutil.disk_usage(folder)
        return cls(str(folder), usage.free, usage.total)


@dataclass(frozen=True)
class NodeFacts:
    """What a node is, and has."""

    python: str
    packages: Mapping[str, str]
    """Versions of those that were asked for; one that is missing is not there."""
    cpus: int
    gpus: tuple[tuple[str, int], ...]
    """Name of each, and its memory in bytes."""
    memory: Room
    shared_memory: Room | None
    temporary: Room
    """Where Ray has its files."""
    compiler: str | None


def look(packages: Sequence[str]) -> NodeFacts:
    """What there is to see on this node, within a moment."""
    memory = psutil.virtual_memory()
    return NodeFacts(
        python=platform.python_version(),
        packages={name: found for name in packages if (found := _version(name))},
        cpus=os.cpu_count() or 1,
        gpus=_gpus(),
        memory=Room("memory", memory.available, memory.total),
        shared_memory=Room.of(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None,
        temporary=Room.of(_temporary_folder()),
        compiler=_compiler(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> tuple[tuple[str, int], ...]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - fixed words
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [line.rpartition(",") for line in listing.stdout.splitlines() if "," in line]
    return tuple((name.strip(), int(size) << 20) for name, _, size in rows if size.strip().isdigit())


def _temporary_folder() -> Path:
    import ray._private.worker as worker  # loads Ray, which a node has loaded already

    node = worker._global_node
    folder = Path(node.get_temp_dir_path() if node else os.environ.get("RAY_TMPDIR", "/tmp"))  # noqa: S108 - Ray's default
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())


def _compiler() -> str | None:
    chosen = os.environ.get("CXX")
    return next((found for name in ((chosen,) if chosen else COMPILERS) if (found := shutil.which(name))), None)


def find_models(space: Space) -> str:
    """Why this node cannot load the space's teacher or student; empty where it can."""
    try:
        check_models(space)
    except UserError as error:
        return str(error)
    models = [(key, model) for key, model in _models(space) if is_on_hub(key, model)]
    problems = (f"{key} {model}: {problem}" for key, model in models if (problem := ask_hub(model)))
    return next(problems, "")


def _models(space: Space) -> list[tuple[str, str]]:
    student = space.student.model
    return [("teacher.model", space.teacher.model), *([("student.model", student)] if student else [])]


def ask_hub(model: str | None = None) -> str:
    """Why this node cannot fetch a model from the hub, or anything at all; empty where it can, or has it already."""
    if model is not None and _is_cached(model):
        return ""
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    local = "give a local folder, or set HF_ENDPOINT to a mirror"
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        return f"HF_HUB_OFFLINE is set, and it is not in the cache; fetch it first, or {local}"
    token = os.environ.get("HF_TOKEN")
    address = f"{hub}/{model}/resolve/main/config.json" if model else hub
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        code = requests.head(address, headers=headers, timeout=HUB_SECONDS, allow_redirects=True).status_code
    except requests.RequestException as error:
        return f"the hub {hub} does not answer ({type(error).__name__}); {local}"
    if model and code == requests.codes.not_found:
        return f"the hub {hub} has no such model; correct the name, or {local}"
    if model and code in (requests.codes.unauthorized, requests.codes.forbidden):
        return f"the hub {hub} does not give it out ({code}); correct the name, or ask for access and set HF_TOKEN"
    return ""


def _is_cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def make_steps(steps: Steps, seconds: float) -> Timed | str:
    """Real training steps on this node; why they failed, where they do."""
    try:
        return time_steps([steps], seconds)[0]
    except StepError as error:
        return str(error)
