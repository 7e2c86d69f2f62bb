"""Finished work, found again by its inputs: same inputs, no second computation."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

from stkd.orchestrator.claims import claimed
from stkd.orchestrator.writing import aside_prefix, remove_left_behind, remove_whole, settle
from stkd.trainers.patience import patiently

METHOD_VERSION = 4
"""Raised when the same inputs give another result than before, so that older artifacts are not taken over."""
RECORD = "artifact.json"
MadeWith = Callable[[], Mapping[str, Any]]
"""Tells, when the work is done, what it was computed with; see `stkd.trainers.provenance`."""


class ArtifactStore:
    """A folder of artifacts, `<stage>-<hash of inputs>/`, each whole or not there: written aside, then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, inputs: Mapping[str, Any]) -> Path:
        """Where the artifact with these inputs lies, or would lie."""
        return self.root / f"{stage}-{fingerprint({'method': METHOD_VERSION, **inputs})}"

    def find(self, stage: str, inputs: Mapping[str, Any]) -> Path | None:
        """The finished artifact with these inputs, if there is one."""
        path = self.path(stage, inputs)
        return path if (path / RECORD).is_file() else None

    @contextmanager
    def once(self, stage: str, inputs: Mapping[str, Any], made_with: MadeWith = dict) -> Iterator[Path | None]:
        """As `create`, by one at a time, on whatever node; None where it is there, or comes while one waits."""
        claim = self.root / f".claim-{self.path(stage, inputs).name}"
        with claimed(claim, lambda: self.find(stage, inputs) is not None) as ours:
            if not ours:
                yield None
                return
            with self.create(stage, inputs, made_with) as folder:
                yield folder

    @contextmanager
    def create(self, stage: str, inputs: Mapping[str, Any], made_with: MadeWith = dict) -> Iterator[Path]:
        """A folder to write an artifact into; it takes its name when the context ends without an error.

        Beside the inputs, its record says what it was made with, and what came out: a hash of each file. Where somebody
        else finished the same artifact meanwhile, theirs stays.
        """
        aside = patiently(lambda: self._aside(stage), self.root)
        start = perf_counter()
        try:
            yield aside
            record = {
                "stage": stage,
                "method": METHOD_VERSION,
                "inputs": inputs,
                "made_with": made_with(),
                "files": file_hashes(aside),
                "seconds": perf_counter() - start,
            }
            patiently(lambda: _complete(aside, record), self.root)
            try:
                patiently(lambda: aside.rename(self.path(stage, inputs)), self.root)
            except OSError:
                if self.find(stage, inputs) is None:
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _aside(self, stage: str) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        aside = Path(mkdtemp(prefix=aside_prefix(stage), dir=self.root))
        aside.chmod(0o755)
        return aside

    def remove(self, name: str) -> None:
        """Remove an artifact that nobody needs; at no moment is half of it found."""
        remove_whole(self.root / name)

    def tidy(self) -> list[str]:
        """Remove what killed processes left half written; returns the names. What is being written stays."""
        return remove_left_behind(self.root)


def _complete(aside: Path, record: Mapping[str, Any]) -> None:
    (aside / RECORD).write_text(json.dumps(record, indent=2, default=str))
    mode = (aside / RECORD).stat().st_mode
    for path in aside.rglob("*"):
        if path.is_file() and path.stat().st_mode != mode:
            path.chmod(mode)  # safetensors lets only its owner read what it writes; storage is shared
    settle(aside)


def record_of(artifact: Path) -> dict[str, Any]:
    """What is written down of a finished artifact, see `ArtifactStore.create`."""
    record: dict[str, Any] = json.loads((artifact / RECORD).read_text())
    return record


def seconds_of(artifact: Path) -> float:
    """What it took to make a finished artifact."""
    return float(record_of(artifact)["seconds"])


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, by its name, but for the record."""
    hashes = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != RECORD:
            with path.open("rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """A hash of JSON-like inputs, independent of the order of their keys."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as a whole: readers see the old one or the new one."""
    text, aside = json.dumps(content, indent=2), path.with_name(f".{path.name}.{os.getpid()}")

    def write() -> None:
        aside.write_text(text)
        aside.replace(path)

    patiently(write, path.parent)
