"""What the devices of a sweep were held for, and what was lost and saved. In device-seconds: cores, or GPUs."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from typing_extensions import override

from stkd.orchestrator.events import Observer
from stkd.orchestrator.results import Phase, ResultsFile, Session, StageResult, TaskResults, TrialResult
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import TaskData

STARTING, IDLE, TESTING = "starting", "idle", "test"
"""Held while processes start, by nobody, and by the look at the test split."""
KEEP_SECONDS = 10.0


class Ledger(Observer):
    """Divides the devices among who holds them, from one event to the next; the rest of them is idle.

    So its accounts add up to the wall-clock times the devices. It is stored now and then: a kill loses seconds of it.
    """

    def __init__(self, file: ResultsFile, plan: "DevicePlan", clock: Callable[[], float] = monotonic) -> None:
        self._file, self.plan, self._clock = file, plan, clock
        self._begun = datetime.now(UTC).isoformat(timespec="microseconds")
        self._start = self._last = clock()
        self._kept, self._over = float("-inf"), False
        self._holders: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        self._start = self._last = self._clock()

    @override
    def stage_started(self, stage: str) -> None:
        self._pass()
        self._holders = {stage: self.plan.stage}

    @override
    def stage_finished(self, result: StageResult) -> None:
        self._pass()
        self._holders = {}

    @override
    def phase_started(self, phase: Phase, trials: int) -> None:
        self._pass()
        self._holders = {STARTING: self.plan.devices}

    @override
    def trial_started(self, trial: TrialResult) -> None:
        self._pass()
        self._holders.pop(STARTING, None)
        self._holders[trial.trial] = self.plan.trial

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        self._pass()

    @override
    def trial_retried(self, trial: TrialResult) -> None:
        self.trial_ended(trial)

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        self._pass()
        self._holders.pop(trial.trial, None)

    @override
    def testing_started(self) -> None:
        self._pass()
        self._holders = {TESTING: self.plan.stage}

    @override
    def task_ended(self, finished: bool) -> None:
        self._over = True
        self._pass()

    def _pass(self) -> None:
        """Book the time since the last event."""
        now = self._clock()
        idle = max(0.0, self.plan.devices - sum(self._holders.values()))
        for holder, devices in {**self._holders, IDLE: idle}.items():
            self._held[holder] += (now - self._last) * devices  # type: ignore[assignment]
        self._last = now
        if now - self._kept >= KEEP_SECONDS or self._over:
            self._keep(now)

    def _keep(self, now: float) -> None:
        self._kept = now
        plan, seconds = self.plan, now - self._start
        held = dict(self._held)
        self._file.keep_session(Session(self._begun, plan.unit, plan.devices, plan.stage, plan.trial, seconds, held))


@dataclass(frozen=True)
class DevicePlan:
    """How many devices a sweep holds in all, and how many of them a stage and a trial take."""

    unit: str
    devices: float
    stage: float
    trial: float

    @classmethod
    def of(cls, space: Space, concurrent: int, stage_cores: int) -> "DevicePlan":
        """`concurrent` trials run at a time; on CPUs, a rank of a stage has `stage_cores`."""
        resources = space.resources
        on_gpus = resources.gpus_per_rank > 0
        trial = resources.ranks * (resources.gpus_per_rank if on_gpus else resources.cpus_per_rank)
        stage = trial if on_gpus else float(resources.ranks * stage_cores)
        return cls("GPU" if on_gpus else "core", max(stage, trial * concurrent), stage, trial)


@dataclass(frozen=True)
class Account:
    """The sum over a task's sessions, in device-seconds but for `seconds`."""

    unit: str
    seconds: float
    held: float
    stages: Mapping[str, float]
    """By stage; and for starting processes, for testing, and for nothing."""
    trials: float
    stopped_early: float
    """Part of `trials`: of those that the scheduler stopped."""
    lost: float
    """Part of `trials`: of those that failed, and of attempts that failed since their last epoch."""
    saved_by_stopping: float
    saved_by_artifacts: float
    phases: Mapping[str, float]
    """What trials did with their time, by their own watches."""

    @classmethod
    def of(cls, space: Space, results: TaskResults) -> "Account | None":
        """The account of a task; None where no session is known."""
        sessions = list(results.sessions.values())
        if not sessions:
            return None
        trial_devices, stage_devices = sessions[-1].trial_devices, sessions[-1].stage_devices
        held: Counter[str] = Counter()
        for session in sessions:
            held.update(session.held)
        trials = {name: held.pop(name, 0.0) for name in results.trials}
        ended = results.trials.values()
        phases: Counter[str] = Counter()
        for trial in ended:
            phases.update(trial.phases)
        stages_saved = sum(stage.saved for stage in results.stages.values())
        return cls(
            unit=sessions[-1].unit,
            seconds=sum(session.seconds for session in sessions),
            held=sum(session.seconds * session.devices for session in sessions),
            stages=dict(held),
            trials=sum(trials.values()),
            stopped_early=sum(trials[trial.trial] for trial in ended if trial.status == "stopped"),
            lost=sum(trials[t.trial] if t.status == "failed" else t.lost * trial_devices for t in ended),
            saved_by_stopping=trial_devices * sum(_not_trained(space, trial) for trial in ended),
            saved_by_artifacts=trial_devices * sum(trial.saved for trial in ended) + stage_devices * stages_saved,
            phases={name: seconds * trial_devices for name, seconds in phases.items()},
        )


def _not_trained(space: Space, trial: TrialResult) -> float:
    """Seconds that a stopped trial would have gone on, at the pace of its epochs so far."""
    if trial.status != "stopped" or not trial.epochs:
        return 0.0
    left = space.with_values(trial.values).training.epochs - trial.epochs
    return sum(trial.phases.values()) / trial.epochs * max(0, left)
