"""What was measured of classifiers' costs, kept as artifacts: asked again, nothing is measured again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stkd.orchestrator.artifacts import ArtifactStore, write_json
from stkd.search_spaces.amounts import with_unit
from stkd.trainers.costs import Cost, Measurement, Saved, Untrained, measure_afresh, processor_name
from stkd.trainers.model_files import model_fingerprint
from stkd.trainers.specs import UNITS

COST = "cost.json"
RUNNERS = ("torch", "onnxruntime", "transformers")
UNSAID = ("_name_or_path", "id2label", "label2id", "transformers_version")
"""What a config.json says that changes no cost."""
NOTEWORTHY = 0.1


class CostBook:
    """Measures what is not known yet, all of it in one fresh process.

    A cost belongs to an architecture and not to its weights: students of one kind share it.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def costs(self, wanted: Sequence[Measurement], again: bool = False) -> list[Cost]:
        """The costs, in that order; `again` measures also what is known. Raises UserError where one cannot be had."""
        inputs = {self._name(measurement): measurement for measurement in wanted}
        missing = [name for name in inputs if again or not self._path(name).is_file()]
        for name, cost in zip(missing, measure_afresh([inputs[name] for name in missing]), strict=True):
            self._keep(inputs[name], cost)
        return [Cost.model_validate_json(self._path(self._name(measurement)).read_text()) for measurement in wanted]

    def knows(self, wanted: Sequence[Measurement]) -> bool:
        """Whether all of them were measured before."""
        return all(self._path(self._name(measurement)).is_file() for measurement in wanted)

    def artifact(self, measurement: Measurement) -> str:
        """The name of the artifact that holds a cost."""
        return self._name(measurement)

    def _name(self, measurement: Measurement) -> str:
        return self._store.path("cost", _inputs(measurement)).name

    def _path(self, name: str) -> Path:
        return self._store.root / name / COST

    def _keep(self, measurement: Measurement, cost: Cost) -> None:
        known = self._path(self._name(measurement))
        if known.is_file():
            write_json(known, cost.model_dump())
            return
        with self._store.create("cost", _inputs(measurement)) as folder:
            write_json(folder / COST, cost.model_dump())


def _inputs(measurement: Measurement) -> dict[str, Any]:
    """All that a cost depends on: what runs, how, on what, and by which program."""
    subject, conditions = measurement.subject, measurement.conditions
    return {
        "subject": _architecture(subject.folder) if isinstance(subject, Saved) else _start(subject),
        "conditions": conditions.model_dump(),
        "processor": processor_name(conditions.device),
        "versions": {name: _version(name) for name in RUNNERS},
    }


def _architecture(folder: Path) -> Mapping[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    units = folder / UNITS
    return {
        "config": {key: value for key, value in config.items() if key not in UNSAID},
        "outputs": len(config.get("id2label", "ab")),
        "units": hashlib.sha256(units.read_bytes()).hexdigest() if units.is_file() else None,
    }


def _start(subject: Untrained) -> Mapping[str, Any]:
    return {**subject.model_dump(), "model": model_fingerprint(subject.student.model or subject.teacher)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def in_words(cost: Cost) -> str:
    """A cost in one line."""
    size = f"{with_unit(cost.parameters)} parameters, {cost.megabytes:.3g} MB"
    return f"{size}, latency {cost.p50:.3g} ms (p95 {cost.p95:.3g}, p99 {cost.p99:.3g})"


def interruptions(cost: Cost) -> str:
    """What to say of runs that were interrupted, where they are many."""
    if cost.interrupted is None or cost.interrupted < NOTEWORTHY:
        return ""
    share = f"{100 * cost.interrupted:.0f} % of the runs"
    return f"; the time that other work on the machine took from {share} is not counted"
