"""What differs between two trials: in what went in, and in what came out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stkd.orchestrator.curves import read_curves
from stkd.orchestrator.records import Record, flat
from stkd.orchestrator.runs import Run
from stkd.trainers.ranking import Mask, UnitScores
from stkd.trainers.specs import SCORES

INPUT_SECTIONS = {"data", "teacher", "student", "scoring", "distillation", "training", "deepspeed"}
WEIGHTS = "model.safetensors"
EQUAL_WEIGHTS = "equal to the bit"


@dataclass(frozen=True)
class Pair:
    """What two trials have under one name; None where one of them has nothing."""

    name: str
    left: Any
    right: Any

    @property
    def differs(self) -> bool:
        """Whether the two are not the same."""
        return bool(self.left != self.right)

    @property
    def difference(self) -> float | None:
        """Right less left, of two numbers."""
        numbers = isinstance(self.left, int | float) and isinstance(self.right, int | float)
        return self.right - self.left if numbers else None

    def as_record(self, kind: str) -> Record:
        """The same for machines."""
        return {
            "kind": kind,
            "name": self.name,
            "left": self.left,
            "right": self.right,
            "difference": self.difference,
        }


@dataclass(frozen=True)
class Comparison:
    """Two trials side by side."""

    left: Run
    right: Run
    inputs: list[Pair]
    outcome: list[Pair]
    epochs: Mapping[int, list[Pair]]
    """Loss and scores by epoch."""

    @classmethod
    def of(cls, left: Run, right: Run) -> "Comparison":
        """Reads what is recorded of both."""
        curves = [read_curves(run.sweep, run.results.task).get(run.trial.trial, {}) for run in (left, right)]
        epochs = {
            epoch: _paired(*(_shown(curve.get(epoch, {})) for curve in curves))
            for epoch in sorted({*curves[0], *curves[1]})
        }
        inputs = _paired(_inputs(left), _inputs(right)) + _shared_units(left, right)
        return cls(left, right, inputs, _paired(_outcome(left), _outcome(right)), epochs)

    @property
    def changed(self) -> list[Pair]:
        """The inputs that differ."""
        return [pair for pair in self.inputs if pair.differs]

    @property
    def same(self) -> list[str]:
        """Names of the inputs that do not differ; of settings also where both have none."""
        return [p.name for p in self.inputs if not p.differs and (p.left is not None or "." in p.name)]

    def as_records(self, epochs: bool) -> list[Record]:
        """The same for machines: what differs of the inputs, all of the outcome, and if asked for each epoch."""
        kinds = [("input", self.changed), ("outcome", self.outcome)]
        if epochs:
            kinds += [(f"epoch {epoch}", pairs) for epoch, pairs in self.epochs.items()]
        return [pair.as_record(kind) for kind, pairs in kinds for pair in pairs]


def _paired(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Pair]:
    return [Pair(name, left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])]


def _inputs(run: Run) -> dict[str, Any]:
    """All that decides what comes out, back to the base model and the data; and what it was computed with."""
    teacher, student = run.record(run.stage("teacher")), run.record(run.trial.student)
    recorded = {
        "task": run.results.task,
        "data": run.record(run.stage("data")).get("inputs", {}).get("data"),
        "base model": teacher.get("inputs", {}).get("model"),
        "teacher": run.stage("teacher") or None,
        "scores": run.stage("scores") or None,
        **_mask(run),
    }
    settings = flat(run.space.model_dump(include=INPUT_SECTIONS)) | {"resources.ranks": run.space.resources.ranks}
    made_with = {**_made_with("teacher's ", teacher), **_made_with("", student)}
    return {**recorded, **settings, **made_with}


def _made_with(whose: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{whose}{name}": value for name, value in record.get("made_with", {}).items()}


def kept_units(run: Run) -> tuple[Mask, Mask] | None:
    """The heads (L, H) and the neurons (L, N) that the trial's teacher kept; None where its scores are gone."""
    path = run.artifact(run.stage("scores")) / SCORES
    if not run.stage("scores") or not path.is_file():
        return None
    return UnitScores.load(path).kept(run.space.distillation, run.space.training.seed)


def _mask(run: Run) -> dict[str, str]:
    kept = kept_units(run)
    if kept is None:
        return {}
    names = ("heads removed", "neurons removed")
    return {name: f"{(~mask).sum():,} of {mask.size:,}" for name, mask in zip(names, kept, strict=True)}


def _shared_units(left: Run, right: Run) -> list[Pair]:
    """How many of the removed units are the same ones; nothing where both teachers lack the same."""
    masks = kept_units(left), kept_units(right)
    if masks[0] is None or masks[1] is None:
        return []
    pairs = []
    for name, one, other in zip(("heads", "neurons"), masks[0], masks[1], strict=True):
        if one.shape == other.shape and not np.array_equal(one, other):
            removed = [f"{(~one & other).sum():,} only in A", f"{(~other & one).sum():,} only in B"]
            pairs.append(Pair(f"which {name}", *removed))
    return pairs


def _outcome(run: Run) -> dict[str, Any]:
    test = run.results.tests.get(run.trial.student)
    return {
        "status": run.trial.status,
        "epochs": run.trial.epochs,
        "best epoch": run.trial.metrics.get("epoch"),
        **_shown(run.trial.metrics),
        **({f"test_{name}": value for name, value in test.metrics.items()} if test else {}),
        **{name: run.trial.metrics.get(name) for name in ("parameters", "megabytes", "milliseconds_per_example")},
        "seconds": run.trial.seconds,
        "weights": run.record(run.trial.student).get("files", {}).get(WEIGHTS),
    }


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    """Loss and scores."""
    other = {"epoch", "best_score", "parameters", "megabytes", "milliseconds_per_example", "teacher_examples"}
    return {name: value for name, value in metrics.items() if name not in other and not name.startswith("seconds")}
