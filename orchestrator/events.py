"""What happens in a sweep, told to everybody who shows, records or stores it."""

from collections.abc import Iterable, Mapping

from typing_extensions import override

from stkd.orchestrator.results import Evidence, FinalScore, Phase, ResultsFile, StageResult, StudentCost, TrialResult
from stkd.trainers.sources import TaskData


class Observer:
    """Hears of everything that happens to one task of a sweep. Every method may be left as it is."""

    def task_started(self, data: TaskData, resumed: bool) -> None:
        """The task's stages are about to run."""

    def stage_started(self, stage: str) -> None:
        """A stage computes: nothing was there to take over."""

    def waiting(self, reason: str) -> None:
        """Work waits for room in the cluster; told again when the reason changes."""

    def warned(self, text: str) -> None:
        """Something is wrong, and is being seen to, or is for the user to see to; told from any thread."""

    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        """A stage that trains has finished an epoch."""

    def stage_lost(self, stage: str, reason: str) -> None:
        """The process that computes a stage is gone; it begins anew."""

    def stage_finished(self, result: StageResult) -> None:
        """A stage is there, computed or taken over."""

    def phase_started(self, phase: Phase, trials: int) -> None:
        """So many trials are about to run, or to go on."""

    def trial_started(self, trial: TrialResult) -> None:
        """A trial begins, or goes on after an interruption."""

    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        """A trial has finished an epoch; `trial` is its best so far, `report` the epoch's own."""

    def trial_ended(self, trial: TrialResult) -> None:
        """A trial has finished, was stopped early, or failed."""

    def trial_retried(self, trial: TrialResult) -> None:
        """A trial has failed, and will be tried again from its last epoch."""

    def interrupted(self, running: int, at_once: bool) -> None:
        """The sweep is to stop: so many trials finish the epoch that they are in first, or nothing is waited for."""

    def trial_paused(self, trial: TrialResult) -> None:
        """A trial has finished its epoch before the sweep stops; a resume goes on from there."""

    def testing_started(self) -> None:
        """The test split is about to be read."""

    def tested(self, result: FinalScore) -> None:
        """A model has been measured on the test split."""

    def weighed(self, evidence: Evidence) -> None:
        """The confirmed trials are compared."""

    def measuring_started(self) -> None:
        """What the chosen student costs is about to be measured."""

    def measured(self, cost: StudentCost) -> None:
        """What a student costs has been measured."""

    def task_ended(self, finished: bool) -> None:
        """All trials are over, or the sweep was interrupted."""


class Observers(Observer):
    """Passes every event on to several observers, in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        for observer in self._observers:
            observer.task_started(data, resumed)

    @override
    def stage_started(self, stage: str) -> None:
        for observer in self._observers:
            observer.stage_started(stage)

    @override
    def waiting(self, reason: str) -> None:
        for observer in self._observers:
            observer.waiting(reason)

    @override
    def warned(self, text: str) -> None:
        for observer in self._observers:
            observer.warned(text)

    @override
    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        for observer in self._observers:
            observer.stage_epoch(stage, epoch, epochs, report)

    @override
    def stage_lost(self, stage: str, reason: str) -> None:
        for observer in self._observers:
            observer.stage_lost(stage, reason)

    @override
    def stage_finished(self, result: StageResult) -> None:
        for observer in self._observers:
            observer.stage_finished(result)

    @override
    def phase_started(self, phase: Phase, trials: int) -> None:
        for observer in self._observers:
            observer.phase_started(phase, trials)

    @override
    def trial_started(self, trial: TrialResult) -> None:
        for observer in self._observers:
            observer.trial_started(trial)

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        for observer in self._observers:
            observer.trial_epoch(trial, report)

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        for observer in self._observers:
            observer.trial_ended(trial)

    @override
    def trial_retried(self, trial: TrialResult) -> None:
        for observer in self._observers:
            observer.trial_retried(trial)

    @override
    def interrupted(self, running: int, at_once: bool) -> None:
        for observer in self._observers:
            observer.interrupted(running, at_once)

    @override
    def trial_paused(self, trial: TrialResult) -> None:
        for observer in self._observers:
            observer.trial_paused(trial)

    @override
    def testing_started(self) -> None:
        for observer in self._observers:
            observer.testing_started()

    @override
    def tested(self, result: FinalScore) -> None:
        for observer in self._observers:
            observer.tested(result)

    @override
    def weighed(self, evidence: Evidence) -> None:
        for observer in self._observers:
            observer.weighed(evidence)

    @override
    def measuring_started(self) -> None:
        for observer in self._observers:
            observer.measuring_started()

    @override
    def measured(self, cost: StudentCost) -> None:
        for observer in self._observers:
            observer.measured(cost)

    @override
    def task_ended(self, finished: bool) -> None:
        for observer in self._observers:
            observer.task_ended(finished)


class ResultsObserver(Observer):
    """Stores results as they come."""

    def __init__(self, file: ResultsFile) -> None:
        self._file = file

    @override
    def stage_finished(self, result: StageResult) -> None:
        self._file.append(result)

    @override
    def trial_started(self, trial: TrialResult) -> None:
        self._file.append(trial)

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        self._file.append(trial)

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        self._file.append(trial)

    @override
    def trial_retried(self, trial: TrialResult) -> None:
        self._file.append(trial)

    @override
    def tested(self, result: FinalScore) -> None:
        self._file.append(result)

    @override
    def weighed(self, evidence: Evidence) -> None:
        self._file.append(evidence)

    @override
    def measured(self, cost: StudentCost) -> None:
        self._file.append(cost)
