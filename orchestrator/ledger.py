"""What the devices of a sweep are held for, as it runs. In device-seconds: cores, or GPUs."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from typing_extensions import override

from stkd.orchestrator.events import Observer
from stkd.orchestrator.results import Phase, ResultsFile, Session, StageResult, TrialResult
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import TaskData

STARTING, IDLE, TESTING, MEASURING = "starting", "idle", "test", "latency"
"""Held while processes start, by nobody, by the look at the test split, and while nothing else may run."""
KEEP_SECONDS = 10.0


class Ledger(Observer):
    """Divides the devices among who holds them, from one event to the next; the rest of them is idle.

    So its accounts add up to the wall-clock times the devices, which may come and go: `plan` says what they are now. It
    is stored now and then: a kill loses seconds of it.
    """

    def __init__(
        self, file: ResultsFile, plan: "Callable[[], DevicePlan]", clock: Callable[[], float] = monotonic
    ) -> None:
        self._file, self._plan, self._clock = file, plan, clock
        self._present = plan()
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
        self._holders = {stage: self._present.stage}

    @override
    def stage_finished(self, result: StageResult) -> None:
        self._pass()
        self._holders = {}

    @override
    def phase_started(self, phase: Phase, trials: int) -> None:
        self._pass()
        self._holders = {STARTING: self._present.devices}

    @override
    def trial_started(self, trial: TrialResult) -> None:
        self._pass()
        self._holders.pop(STARTING, None)
        self._holders[trial.trial] = self._present.trial

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
    def trial_paused(self, trial: TrialResult) -> None:
        self.trial_ended(trial)

    @override
    def testing_started(self) -> None:
        self._pass()
        self._holders = {TESTING: self._present.stage}

    @override
    def measuring_started(self) -> None:
        self._pass()
        self._holders = {MEASURING: self._present.devices}

    @override
    def task_ended(self, finished: bool) -> None:
        self._over = True
        self._pass()

    def _pass(self) -> None:
        """Book the time since the last event."""
        now = self._clock()
        self._held.update(self._since_last(now))
        self._last = now
        self._present = self._plan()
        if now - self._kept >= KEEP_SECONDS or self._over:
            self._keep(now)

    def _since_last(self, now: float) -> Counter[str]:
        holders = dict(self._holders)
        idle = max(0.0, self._present.devices - sum(holders.values()))
        passed: Counter[str] = Counter()
        for holder, devices in {**holders, IDLE: idle}.items():
            passed[holder] = (now - self._last) * devices  # type: ignore[assignment]
        return passed

    def _keep(self, now: float) -> None:
        self._kept = now
        self._file.keep_session(self._session(now, self._held))

    def so_far(self) -> Session:
        """What the devices were held for until now, in this session."""
        now = self._clock()
        held = Counter(self._held)
        held.update(self._since_last(now))
        return self._session(now, held)

    def _session(self, now: float, held: Counter[str]) -> Session:
        plan, seconds = self._present, now - self._start
        devices = sum(held.values()) / seconds if seconds else plan.devices
        return Session(self._begun, plan.unit, devices, plan.stage, plan.trial, seconds, dict(held))


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
