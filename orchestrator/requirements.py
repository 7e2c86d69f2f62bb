"""The packages that stkd needs, and what is wrong with those of a node."""

from collections.abc import Iterator, Mapping
from importlib.metadata import requires

from packaging.requirements import Requirement

from stkd.orchestrator.findings import Finding

EQUAL = ("ray", "pydantic", "torch", "transformers", "tokenizers", "deepspeed", "numpy", "scipy", "datasets")
"""Those that nodes talk with, or that numbers come from: on a node, other versions of them are a failure."""


def needed() -> dict[str, Requirement]:
    """By name; without what only some use. Those of `EQUAL` that come with others are among them, in any version."""
    asked = [Requirement(text) for text in requires("stkd") or ()]
    named = {need.name: need for need in asked if need.marker is None or need.marker.evaluate({"extra": ""})}
    return {name: Requirement(name) for name in EQUAL} | named


def unmet_here(versions: Mapping[str, str]) -> Iterator[Finding]:
    """What stkd needs and these packages are not."""
    for name, need in needed().items():
        found = versions.get(name)
        if found is None:
            yield Finding("FAIL", f"{name} is not installed", f"pip install '{need}'")
        elif not need.specifier.contains(found, prereleases=True):
            yield Finding("FAIL", f"{name} is {found}, but stkd needs {need.specifier}", f"pip install '{need}'")


def unequal(here: Mapping[str, str], there: Mapping[str, str], node: str) -> Iterator[Finding]:
    """Where a node's packages are not those of this machine."""
    for name, wanted in here.items():
        found = there.get(name)
        if found == wanted:
            continue
        mark = "FAIL" if found is None or name in EQUAL else "warn"
        says = f"{name} is {found}, and {wanted} here" if found else f"{name} is not installed, and {wanted} here"
        yield Finding("FAIL" if mark == "FAIL" else "warn", says, f"on that node: pip install '{name}=={wanted}'", node)
