"""What a sweep has found: one JSON line for each stage, trial and test, appended as they end, folded when read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stkd.orchestrator.artifacts import write_json
from stkd.orchestrator.layout import SweepFolder
from stkd.orchestrator.writing import append_line
from stkd.trainers.patience import patiently

Status = Literal["running", "finished", "stopped", "failed"]
"""`stopped` is a trial that the scheduler ended early; its student counts like any other."""

Phase = Literal["search", "control", "confirm"]
Role = Literal["candidate", "no teacher", "dense teacher", "random teacher"]
"""What a trial is for: a candidate comes from the search, the others are what candidates are measured against."""
Values = Mapping[str, float | int | str | bool | None]


@dataclass(frozen=True)
class StageResult:
    """A stage of a task: where its artifact lies and what it scored, if it is a model."""

    name: str
    artifact: str
    seconds: float
    taken_over: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    saved: float = 0.0
    """Seconds that it took when it was computed, where it was taken over."""


@dataclass(frozen=True)
class TrialResult:
    """A trial as far as it has come: the settings drawn for it, and its best epoch."""

    trial: str
    values: Values
    status: Status
    phase: Phase = "search"
    role: Role = "candidate"
    seconds: float = 0.0
    epochs: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the best epoch."""
    student: str = ""
    """Folder of the student of the best epoch, among the artifacts."""
    reason: str = ""
    """Why it failed."""
    note: str = ""
    """What its user should know."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds by what they went to, see `stkd.trainers.stopwatch`."""
    saved: float = 0.0
    """Seconds that others spent before, on what it took over."""
    lost: float = 0.0
    """Seconds between an epoch's end and a failure that it was retried after."""

    @property
    def score(self) -> float:
        """The task's score of the best epoch, in 0..1; minus infinity before the first."""
        return self.metrics.get("score", float("-inf"))

    @property
    def name(self) -> str:
        """What the trial is for, unless it is a candidate, and its settings as one reads them."""
        return describe_as(self.role, self.values)


@dataclass(frozen=True)
class Session:
    """What a run of the sweep has held its devices for so far; a resume is a session of its own."""

    begun: str
    """When, in UTC."""
    unit: str
    """What devices are: a core, or a GPU."""
    devices: float
    stage_devices: float
    trial_devices: float
    """Held in all (in the mean, where nodes came and went), by a stage, and by a trial."""
    seconds: float
    """Wall-clock."""
    held: Mapping[str, float]
    """Device-seconds by stage, by trial, and by what else there is, see `stkd.orchestrator.ledger`."""


@dataclass(frozen=True)
class FinalScore:
    """A model on the test split, which is read once, when everything is trained."""

    model: str
    """Folder of the teacher or student, among the artifacts."""
    artifact: str
    """Folder of its logits on the test split, among the artifacts."""
    metrics: Mapping[str, float]

    @property
    def score(self) -> float:
        """The task's score, in 0..1."""
        return self.metrics["score"]


@dataclass(frozen=True)
class StudentCost:
    """What a student costs to serve, measured in a process that did nothing else, and whether it keeps the budget."""

    student: str
    """Its folder among the artifacts."""
    artifact: str
    """Folder of what was measured, among the artifacts."""
    conditions: str
    processor: str
    cost: Mapping[str, float | None]
    """As `stkd.trainers.costs.Cost`."""
    over: Sequence[str] = ()
    """The limits that it breaks, in words."""
    ratio: float = 1.0
    """How many times the worst of these limits it is."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, in 0..1."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Confirmed:
    """A finalist or control over its seeds."""

    name: str
    role: Role
    seeds: int
    selection: Interval
    """On the split that students are chosen by; its lower end decides."""
    test: Interval
    spread: float
    """Standard deviation of the test score over the seeds."""


@dataclass(frozen=True)
class Evidence:
    """What the confirmed trials say, the winner first."""

    confirmed: Sequence[Confirmed]
    difference: Interval | None
    """Test score of the best sparse teacher's student less that of the best dense one's, paired."""
    verdict: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Evidence":
        """What `asdict` made of one."""
        confirmed = [
            Confirmed(**{**found, "selection": Interval(**found["selection"]), "test": Interval(**found["test"])})
            for found in record["confirmed"]
        ]
        difference = record["difference"]
        return cls(confirmed, difference and Interval(**difference), record["verdict"])


@dataclass
class TaskResults:
    """Everything known of one task of a sweep."""

    task: str
    stages: dict[str, StageResult] = field(default_factory=dict)
    trials: dict[str, TrialResult] = field(default_factory=dict)
    tests: dict[str, FinalScore] = field(default_factory=dict)
    """By model."""
    costs: dict[str, StudentCost] = field(default_factory=dict)
    """By student; of those that were measured."""
    evidence: Evidence | None = None
    sessions: dict[str, Session] = field(default_factory=dict)
    """By their beginning."""

    def of_phase(self, phase: Phase) -> list[TrialResult]:
        """The trials of a phase, in the order in which they began."""
        return [trial for trial in self.trials.values() if trial.phase == phase]

    def ranked(self, phase: Phase = "search") -> list[TrialResult]:
        """Trials of a phase that have a student, best score first; of equal scores the earlier one."""
        scored = [trial for trial in self.of_phase(phase) if trial.student]
        return sorted(scored, key=lambda trial: -trial.score)


Result = StageResult | TrialResult | FinalScore | StudentCost | Evidence
KINDS: Mapping[type[Result], str] = {
    StageResult: "stage",
    TrialResult: "trial",
    FinalScore: "test",
    StudentCost: "cost",
    Evidence: "evidence",
}


class ResultsFile:
    """The results of one task on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, result: Result) -> None:
        """Add a line; a later line about the same stage, trial or model replaces the earlier one."""
        kind = KINDS[type(result)]
        line = json.dumps({"kind": kind, **asdict(result)}).encode() + b"\n"
        patiently(lambda: append_line(self._path, line), self._path.parent)

    def keep_session(self, session: Session) -> None:
        """Store what a session has held so far, in place of what it had before."""
        patiently(lambda: self._sessions.mkdir(parents=True, exist_ok=True), self._path.parent)
        write_json(self._sessions / f"{session.begun.replace(':', '')}.json", asdict(session))

    @property
    def _sessions(self) -> Path:
        return self._path.with_name("sessions")

    def read(self, task: str) -> TaskResults:
        """All results so far; a last line that a kill cut short is left out."""
        results = TaskResults(task)
        for path in sorted(self._sessions.glob("*.json")):
            session = Session(**json.loads(path.read_text(encoding="utf-8")))
            results.sessions[session.begun] = session
        for record in self._records():
            match record.pop("kind"):
                case "stage":
                    results.stages[record["name"]] = StageResult(**record)
                case "trial":
                    results.trials[record["trial"]] = TrialResult(**record)
                case "test":
                    results.tests[record["model"]] = FinalScore(**record)
                case "cost":
                    results.costs[record["student"]] = StudentCost(**record)
                case "evidence":
                    results.evidence = Evidence.from_record(record)
        return results

    def course(self) -> list[TrialResult]:
        """Each trial as it was at each of its events, in the order in which these came."""
        return [TrialResult(**record) for record in self._records() if record.pop("kind") == "trial"]

    def _records(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").split("\n")[:-1]]


def read_results(sweep: SweepFolder) -> dict[str, TaskResults]:
    """The results of every task of a sweep that has begun."""
    return {task: ResultsFile(sweep.task(task).results).read(task) for task in sweep.tasks()}


def describe_as(role: Role, values: Values) -> str:
    """What a trial is for, unless it is a candidate, and its settings: `dense teacher, s=0 T=2`."""
    if role == "no teacher":
        values = {key: value for key, value in values.items() if not key.startswith("distillation.")}
        return f"{role}, {describe(values)}" if values else role
    return describe(values) if role == "candidate" else f"{role}, {describe(values)}"


SHORT_NAMES = {"interpolation": "lambda", "sparsity": "s", "temperature": "T"}


def describe(values: Values) -> str:
    """Settings in one short line: `lambda=0.42 s=0.3 T=2.6`."""
    parts = []
    for key, value in values.items():
        bare = key.removeprefix("distillation.")
        short = SHORT_NAMES.get(bare, bare)
        parts.append(f"{short}={value:.3g}" if isinstance(value, float) else f"{short}={value}")
    return " ".join(parts) or "the only setting"
