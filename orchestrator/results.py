"""What a sweep has found: one JSON line for each stage and trial, appended as they end, folded when read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from stkd.orchestrator.layout import SweepFolder

Status = Literal["running", "finished", "stopped", "failed"]
"""`stopped` is a trial that the scheduler ended early; its student counts like any other."""


@dataclass(frozen=True)
class StageResult:
    """A stage of a task: where its artifact lies and what it scored, if it is a model."""

    name: str
    artifact: str
    seconds: float
    taken_over: bool
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialResult:
    """A trial as far as it has come: the settings drawn for it, and its best epoch."""

    trial: str
    values: Mapping[str, float | int | str | bool | None]
    status: Status
    seconds: float = 0.0
    epochs: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the best epoch."""
    student: str = ""
    """Folder of the student of the best epoch, among the artifacts."""
    reason: str = ""
    """Why it failed."""

    @property
    def score(self) -> float:
        """The task's score of the best epoch, in 0..1; minus infinity before the first."""
        return self.metrics.get("score", float("-inf"))

    @property
    def name(self) -> str:
        """The trial's settings as one reads them."""
        return describe(self.values)


@dataclass
class TaskResults:
    """Everything known of one task of a sweep."""

    task: str
    stages: dict[str, StageResult] = field(default_factory=dict)
    trials: dict[str, TrialResult] = field(default_factory=dict)

    def ranked(self) -> list[TrialResult]:
        """Trials that have a student, best score first; of equal scores the earlier one."""
        scored = [trial for trial in self.trials.values() if trial.student]
        return sorted(scored, key=lambda trial: -trial.score)


class ResultsFile:
    """The results of one task on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, result: StageResult | TrialResult) -> None:
        """Add a line; a later line about the same stage or trial replaces the earlier one."""
        kind = "stage" if isinstance(result, StageResult) else "trial"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **asdict(result)}) + "\n")

    def read(self, task: str) -> TaskResults:
        """All results so far; a last line that a kill cut short is left out."""
        results = TaskResults(task)
        if not self._path.exists():
            return results
        for line in self._path.read_text(encoding="utf-8").split("\n")[:-1]:
            record = json.loads(line)
            if record.pop("kind") == "stage":
                stage = StageResult(**record)
                results.stages[stage.name] = stage
            else:
                trial = TrialResult(**record)
                results.trials[trial.trial] = trial
        return results


def read_results(sweep: SweepFolder) -> dict[str, TaskResults]:
    """The results of every task of a sweep that has begun."""
    return {task: ResultsFile(sweep.task(task).results).read(task) for task in sweep.tasks()}


SHORT_NAMES = {"interpolation": "lambda", "sparsity": "s", "temperature": "T"}


def describe(values: Mapping[str, float | int | str | bool | None]) -> str:
    """Settings in one short line: `lambda=0.42 s=0.3 T=2.6`."""
    parts = []
    for key, value in values.items():
        short = SHORT_NAMES.get(key.removeprefix("distillation."), key)
        parts.append(f"{short}={value:.3g}" if isinstance(value, float) else f"{short}={value}")
    return " ".join(parts) or "the only setting"
