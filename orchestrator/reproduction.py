"""Whether a student can be had again from its record alone: what has changed since, and what comes out now."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file

from stkd.orchestrator.artifacts import ArtifactStore, file_hashes, record_of
from stkd.orchestrator.history import HISTORY
from stkd.orchestrator.layout import TaskFolder
from stkd.orchestrator.rebuilding import STUDENT, Rebuilt, StageNames, stage_space
from stkd.orchestrator.records import Record, flat
from stkd.orchestrator.runs import Run
from stkd.orchestrator.stages import METRICS
from stkd.orchestrator.trial import TrialPlan
from stkd.search_spaces.schema import Space
from stkd.trainers.provenance import GPU
from stkd.trainers.sources import TaskData

Verdict = Literal["equal to the bit", "within the tolerance", "different"]
ARTIFACT = re.compile(r"[a-z_]+-[0-9a-f]{16}")
"""Names of artifacts follow from their inputs: where these have changed, it is not news that the names have."""
HASH = re.compile(r"^([0-9a-f]{16})[0-9a-f]{48}$")
TIMED = {METRICS, HISTORY}
"""Files that hold seconds, which nobody can have again."""
WORDS = {
    "data: data": "the data (its fingerprint)",
    "data: tokenizer": "the base model (the fingerprint of its files)",
    "teacher: model": "the teacher's base model (the fingerprint of its files)",
    "student: student.model": "the student's base model (the fingerprint of its files)",
}
"""What some inputs are, for a person."""
UNLIKE = {"sweep", "trial", "epoch"}
"""What a student's record holds besides its inputs."""


@dataclass(frozen=True)
class Change:
    """An input that is not what was recorded."""

    what: str
    recorded: object
    now: object

    def __str__(self) -> str:
        """The change for a person, hashes in short."""
        recorded, now = (
            str(value)[:16] if re.fullmatch("[0-9a-f]{64}", str(value)) else value
            for value in (self.recorded, self.now)
        )
        return f"{self.what} was {recorded}, and is {now} now"


@dataclass(frozen=True)
class Part:
    """One artifact, as recorded and as rebuilt."""

    name: str
    recorded: str
    equal: bool
    difference: float | None = None
    """The largest of any of its numbers, where that can be told."""
    taken_over: bool = False

    @property
    def state(self) -> str:
        """How it is, for a person."""
        if self.taken_over:
            return "taken over, as it was recorded"
        most = "" if self.difference is None else f", numbers by {self.difference:.1e} at most"
        return "equal to the bit" if self.equal else f"differs{most}"


@dataclass(frozen=True)
class Reproduction:
    """What has become of a student that was rebuilt."""

    run: Run
    tolerance: float
    """What the scores may differ by, where bits cannot be the same."""
    inputs: Sequence[Change] = ()
    """Of data, models and settings: then nothing is rebuilt."""
    surroundings: Sequence[Change] = ()
    """Of code, libraries and device: the student may differ in its last bits, and then in more."""
    parts: Sequence[Part] = ()
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Recorded and now, of the student's epoch."""
    on_gpu: bool = False
    failure: str = ""

    @property
    def score_difference(self) -> float:
        """How far the scores lie apart; infinitely where there is none now."""
        recorded, now = self.metrics.get("score", (0.0, inf))
        return abs(now - recorded)

    @property
    def verdict(self) -> Verdict:
        """Bits cannot be the same where something has changed, or on a GPU, which sums in any order."""
        if any(part.name == STUDENT and part.equal for part in self.parts):
            return "equal to the bit"
        free = bool(self.surroundings) or self.on_gpu
        return "within the tolerance" if free and self.score_difference <= self.tolerance else "different"

    def as_dict(self) -> dict[str, Any]:
        """The same for machines. Scores are in 0..1."""
        return {
            "run": self.run.name,
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "failure": self.failure,
            "inputs_changed": [asdict(change) for change in self.inputs],
            "surroundings_changed": [asdict(change) for change in self.surroundings],
            "parts": [asdict(part) for part in self.parts],
            "metrics": {name: {"recorded": old, "now": new} for name, (old, new) in self.metrics.items()},
        }

    def as_records(self) -> list[Record]:
        """The same as rows, the verdict first."""
        changes = [("input", each) for each in self.inputs] + [("surroundings", each) for each in self.surroundings]
        return [
            {"kind": "verdict", "name": self.run.name, "recorded": "", "now": self.verdict, "remark": self.failure},
            *({"kind": kind, "name": each.what, "recorded": each.recorded, "now": each.now} for kind, each in changes),
            *(
                {
                    "kind": "part",
                    "name": part.name,
                    "recorded": part.recorded,
                    "equal": part.equal,
                    "remark": part.state,
                }
                for part in self.parts
            ),
            *(
                {"kind": "metric", "name": name, "recorded": old, "now": new, "equal": old == new}
                for name, (old, new) in self.metrics.items()
            ),
        ]


def input_changes(run: Run, space: Space, data: TaskData) -> list[Change]:
    """What of the data, the base model and the settings is not what was recorded: nothing can be reproduced then."""
    stages = stage_space(space, run)
    names = StageNames(stages, data, ArtifactStore(run.storage.artifacts))
    shared = names.run()
    found: list[Change] = []
    for stage in ("data", "teacher", "scores"):
        found += _changes(f"{stage}: ", names.inputs[stage], run.record(run.stage(stage)).get("inputs", {}))
    plan = TrialPlan(stages, data.task, run.storage, TaskFolder(run.sweep.root), shared)
    recorded = run.record(run.trial.student).get("inputs", {})
    now = plan.inputs(stages.with_values(run.trial.values), recorded.get("mask", ""))
    return [*found, *_changes("student: ", now, {key: recorded[key] for key in recorded if key not in UNLIKE})]


def _changes(place: str, now: Mapping[str, Any], recorded: Mapping[str, Any]) -> Iterator[Change]:
    """What both know of and has changed: settings that came or went with a version are a change of the code."""
    left, right = flat(recorded), flat(now)
    for key in left:
        if key in right and left[key] != right[key] and not ARTIFACT.fullmatch(str(left[key])):
            yield Change(WORDS.get(f"{place}{key}", f"{place}{key}"), left[key], right[key])


def file_changes(what: str, artifact: Path) -> list[Change]:
    """Files of an artifact that are not what was recorded when it was made."""
    recorded, found = record_of(artifact).get("files", {}), file_hashes(artifact)
    return [
        Change(f"{what}: {name}", recorded[name], found.get(name))
        for name in recorded
        if found.get(name) != recorded[name]
    ]


def judge(run: Run, rebuilt: Rebuilt, taken_over: bool, tolerance: float) -> Reproduction:
    """Set what was rebuilt against what was recorded."""
    recorded = _recorded_parts(run, rebuilt)
    parts = [
        _part(name, run.artifact(recorded[name]), artifact, taken_over and name == "teacher")
        for name, artifact in rebuilt.artifacts.items()
        if run.record(recorded[name])
    ]
    pairs = [(run.record(recorded[name]), record_of(artifact)) for name, artifact in rebuilt.artifacts.items()]
    old = run.trial.metrics
    metrics = {
        name: (old[name], value) for name, value in rebuilt.metrics.items() if name in old and not _is_timed(name)
    }
    device = str(pairs[-1][1]["made_with"].get("device", ""))
    surroundings = made_otherwise(pairs)
    return Reproduction(run, tolerance, (), surroundings, parts, metrics, device.startswith(GPU), rebuilt.failure)


def _recorded_parts(run: Run, rebuilt: Rebuilt) -> dict[str, str]:
    """The recorded artifacts by the names that the rebuilt ones have; empty where none is recorded."""
    stages = {name: run.stage(name.replace("student's ", "student_").replace(" ", "_")) for name in rebuilt.artifacts}
    mask = run.record(run.trial.student).get("inputs", {}).get("mask")
    inputs = {"data": run.stage("data"), "teacher": run.stage("teacher"), "mask": mask}
    logits = ArtifactStore(run.storage.artifacts).find("logits", inputs)
    return {**stages, "logits": logits.name if logits else "", STUDENT: run.trial.student}


def _part(name: str, recorded: Path, rebuilt: Path, taken_over: bool) -> Part:
    hashes = [
        {file: digest for file, digest in record_of(artifact).get("files", {}).items() if file not in TIMED}
        for artifact in (recorded, rebuilt)
    ]
    equal = hashes[0] == hashes[1]
    return Part(name, recorded.name, equal, None if equal else _difference(recorded, rebuilt), taken_over)


def _difference(left: Path, right: Path) -> float | None:
    """The largest difference of any number in the safetensors of both; None where they are not of one shape."""
    largest = 0.0
    for path in sorted(left.glob("*.safetensors")):
        if not (right / path.name).is_file():
            return None
        old, new = load_file(path), load_file(right / path.name)
        if {name: value.shape for name, value in old.items()} != {name: value.shape for name, value in new.items()}:
            return None
        for name, value in old.items():
            gap = np.abs(value.astype(np.float64) - new[name].astype(np.float64))
            largest = max(largest, float(gap.max(initial=0.0)))
    return largest


def _is_timed(metric: str) -> bool:
    return metric.startswith(("seconds", "milliseconds")) or metric in ("teacher_examples", "parameters", "megabytes")


def made_otherwise(pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Change]:
    """What recorded and rebuilt artifacts were made with that is not the same, each once."""
    found = {}
    for recorded, rebuilt in pairs:
        old, new = recorded.get("made_with", {}), rebuilt.get("made_with", {})
        for name in old:
            if old[name] != new.get(name):
                found[name, old[name]] = Change(name, old[name], new.get(name))
        if recorded and recorded.get("method") != rebuilt.get("method"):
            found["method", recorded.get("method")] = Change("method", recorded.get("method"), rebuilt.get("method"))
    return list(found.values())
