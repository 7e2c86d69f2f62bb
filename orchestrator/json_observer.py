"""A task's events as JSON lines; docs/watching.md says what each holds."""

from collections.abc import Mapping
from dataclasses import asdict

from typing_extensions import override

from stkd.orchestrator.events import Observer
from stkd.orchestrator.json_lines import JsonLines
from stkd.orchestrator.results import Evidence, FinalScore, Phase, StageResult, StudentCost, TrialResult
from stkd.trainers.sources import TaskData


class JsonObserver(Observer):
    """Writes the events of one task."""

    def __init__(self, lines: JsonLines, task: str) -> None:
        self._lines, self._task = lines, task

    def _write(self, event: str, **fields: object) -> None:
        self._lines.write(event, task=self._task, **fields)

    def _write_trial(self, event: str, trial: TrialResult, **fields: object) -> None:
        self._write(event, name=trial.name, **asdict(trial), **fields)

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        examples = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
        self._write("task_started", resumed=resumed, examples=examples)

    @override
    def stage_started(self, stage: str) -> None:
        self._write("stage_started", stage=stage)

    @override
    def waiting(self, reason: str) -> None:
        self._write("waiting", reason=reason)

    @override
    def warned(self, text: str) -> None:
        self._write("warned", text=text)

    @override
    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        self._write("stage_epoch", stage=stage, epoch=epoch, epochs=epochs, report=report)

    @override
    def stage_lost(self, stage: str, reason: str) -> None:
        self._write("stage_lost", stage=stage, reason=reason)

    @override
    def stage_finished(self, result: StageResult) -> None:
        found = asdict(result)
        self._write("stage_finished", stage=found.pop("name"), **found)

    @override
    def phase_started(self, phase: Phase, trials: int) -> None:
        self._write("phase_started", phase=phase, trials=trials)

    @override
    def trial_started(self, trial: TrialResult) -> None:
        self._write_trial("trial_started", trial)

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        self._write_trial("trial_epoch", trial, report=report)

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        self._write_trial("trial_ended", trial)

    @override
    def trial_retried(self, trial: TrialResult) -> None:
        self._write_trial("trial_retried", trial)

    @override
    def interrupted(self, running: int, at_once: bool) -> None:
        self._write("interrupted", running=running, at_once=at_once)

    @override
    def trial_paused(self, trial: TrialResult) -> None:
        self._write_trial("trial_paused", trial)

    @override
    def testing_started(self) -> None:
        self._write("testing_started")

    @override
    def tested(self, result: FinalScore) -> None:
        self._write("tested", **asdict(result))

    @override
    def weighed(self, evidence: Evidence) -> None:
        self._write("weighed", **asdict(evidence))

    @override
    def measuring_started(self) -> None:
        self._write("measuring_started")

    @override
    def measured(self, cost: StudentCost) -> None:
        self._write("measured", **asdict(cost))

    @override
    def task_ended(self, finished: bool) -> None:
        self._write("task_ended", finished=finished)
