"""What a result was computed with: code, libraries, device. Equal inputs, computed with the same, give equal bits."""

import hashlib
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

LIBRARIES = ("torch", "transformers", "tokenizers", "deepspeed", "numpy", "scipy", "scikit-learn", "datasets")
"""Those that take part in the numbers."""
CPU_FACTS = ("model name", "cpu family", "model")
"""What tells kinds of processors apart, as Linux names it."""

GPU = "GPU"
"""Begins the kind of a device that sums in any order, so that it gives no equal bits."""

Provenance = dict[str, str | int]
"""By what it is of: `code`, `device`, `threads`, `ranks`, and versions by the names of packages."""


def provenance(ranks: int) -> Provenance:
    """Of what this process computes, as one of so many ranks."""
    return {**_versions(), "device": device_kind(), "threads": torch.get_num_threads(), "ranks": ranks}


@cache
def _versions() -> Provenance:
    known = {name: found for name in ("stkd", *LIBRARIES) if (found := _version(name))}
    return {"code": code_fingerprint(), "python": platform.python_version(), **known}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code_fingerprint() -> str:
    """A hash of the source of `stkd.trainers`, which computes every number."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def device_kind() -> str:
    """The kind of GPU that this process sees, or of its processor and what PyTorch uses of it."""
    if torch.cuda.is_available():
        return f"{GPU} {torch.cuda.get_device_name(0)}"
    return f"CPU {_cpu(Path('/proc/cpuinfo'))} {torch.backends.cpu.get_cpu_capability()}"


def _cpu(source: Path) -> str:
    text = source.read_text(encoding="utf-8") if source.exists() else ""
    found = dict(re.findall(r"^([a-z ]+?)\s*:\s*(.+)$", text, re.MULTILINE))
    facts = [found[name] for name in CPU_FACTS if name in found]
    return " ".join(facts) or platform.machine()
