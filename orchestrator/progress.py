"""How far a task has come, as its events tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import RLock
from time import monotonic

from typing_extensions import override

from stkd.orchestrator.events import Observer
from stkd.orchestrator.results import Phase, StageResult, TrialResult
from stkd.orchestrator.time_left import TimeLeft, rungs
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import TaskData

STAGES = {
    "data": "tokenising the data",
    "student_data": "tokenising the data for the student",
    "teacher": "fine-tuning the teacher",
    "logits": "running the dense teacher over the training data",
    "trial_student": "distilling the trial student from the dense teacher",
    "importance": "scoring the teacher's heads and neurons for the student's cut",
    "scores": "scoring the teacher's heads and neurons",
    "packing": "trying how many trials to run side by side",
}
LOOK_SECONDS = 1.0
"""Between two estimates: each looks at all trials."""


def doing(stage: str) -> str:
    """What a stage does, and for which student where there are several: `scores-layers=4`."""
    name, _, student = stage.partition("-")
    return f"{STAGES[name]} ({student})" if student else STAGES[name]


@dataclass
class StageUnderWay:
    """A stage that computes, with its score after each epoch."""

    name: str
    since: float
    epoch: int = 0
    epochs: int = 0
    loss: float = float("nan")
    scores: list[float] = field(default_factory=list)


class Progress(Observer):
    """What is done, what runs, what was best, and when it will be over.

    Events come from one thread; whoever reads from another holds `lock`.
    """

    def __init__(self, space: Space, known: Mapping[str, TrialResult], clock: Callable[[], float] = monotonic) -> None:
        self.space, self.trials = space, dict(known)
        self.lock = RLock()
        self.task = ""
        self.doing = "starting"
        """Where neither a stage nor trials run."""
        self.stage: StageUnderWay | None = None
        self.stages: dict[str, StageResult] = {}
        self.phase: Phase | None = None
        self.announced = 0
        """Trials of the present phase."""
        self.running: dict[str, float] = {}
        """Trials that run, with when they began; the earliest first."""
        self.curves: dict[str, list[float]] = {}
        """Scores epoch by epoch, as far as this session has seen them."""
        self.last_failure: TrialResult | None = None
        self.interruption = ""
        self._time_left = TimeLeft(space)
        self._places = self._begun = 0
        self._over_at: float | None = None
        self._stale, self._looked_at = True, float("-inf")
        self._clock = clock
        self._start = clock()

    def seconds(self) -> float:
        """Since the task began in this session."""
        return self._clock() - self._start

    def running_for(self, trial: str) -> float:
        """Seconds since the trial began in this session."""
        return self._clock() - self.running[trial]

    def epochs_of(self, trial: TrialResult) -> int:
        """The most epochs that a trial may have."""
        return int(trial.values.get("training.epochs") or self.space.training.epochs)

    def seconds_left(self) -> float | None:
        """An estimate of when the last trial will have ended; None while nothing is known."""
        now = self._clock()
        if self._stale and self.phase is not None and now - self._looked_at >= LOOK_SECONDS:
            left = self._time_left.seconds_left(self.trials, self.phase, self.announced, self._places)
            self._over_at = None if left is None else now + left
            self._stale, self._looked_at = False, now
        return None if self._over_at is None else max(0.0, self._over_at - now)

    def ended(self) -> list[TrialResult]:
        """Trials of the present phase that have ended, whenever that was."""
        return [trial for trial in self.trials.values() if trial.phase == self.phase and trial.status != "running"]

    def failed(self) -> int:
        """Trials that have failed for good, of all phases."""
        return sum(trial.status == "failed" for trial in self.trials.values())

    def best(self) -> TrialResult | None:
        """The best trial of the search so far; of equal ones the earlier."""
        found = [trial for trial in self.trials.values() if trial.student and trial.phase == "search"]
        return max(found, key=lambda trial: trial.score, default=None)

    def later(self) -> list[tuple[Phase, int]]:
        """How many trials the phases to come have."""
        return self._time_left.later(self.trials, self.phase) if self.phase else []

    def rungs(self) -> list[tuple[int, int, int]]:
        """For each rung that trials have come to: its epoch, how many have, and how many were stopped there."""
        search = [trial for trial in self.trials.values() if trial.phase == "search"]
        found = []
        for rung in rungs(self.space):
            stopped = sum(trial.status == "stopped" and trial.epochs == rung for trial in search)
            came = stopped + sum(trial.epochs > rung for trial in search)
            found.append((rung, came, stopped))
        return [rung for rung in found if rung[1]]

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        with self.lock:
            self.task = data.task.name
            self._start = self._clock()

    @override
    def stage_started(self, stage: str) -> None:
        with self.lock:
            self.stage = StageUnderWay(stage, self._clock())

    @override
    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        with self.lock:
            under_way = self.stage or StageUnderWay(stage, self._clock())
            under_way.epoch, under_way.epochs, under_way.loss = epoch, epochs, report["loss"]
            under_way.scores.append(report["score"])

    @override
    def stage_finished(self, result: StageResult) -> None:
        with self.lock:
            self.stage = None
            self.stages[result.name] = result

    @override
    def phase_started(self, phase: Phase, trials: int) -> None:
        with self.lock:
            self.phase, self.announced, self._begun = phase, trials, 0
            self._stale = True

    @override
    def trial_started(self, trial: TrialResult) -> None:
        with self.lock:
            self.trials[trial.trial] = trial
            self.running[trial.trial] = self._clock()
            self._begun += 1
            if self._begun > self._places or len(self.running) > self._places:  # from then on, each fills a gap
                self._places = len(self.running)
            self._stale = True

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        with self.lock:
            self.trials[trial.trial] = trial
            self.curves.setdefault(trial.trial, []).append(report["score"])
            self._stale = True

    @override
    def trial_retried(self, trial: TrialResult) -> None:
        with self.lock:
            self.trials[trial.trial] = trial
            self.running.pop(trial.trial, None)

    @override
    def trial_paused(self, trial: TrialResult) -> None:
        with self.lock:
            self.running.pop(trial.trial, None)

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        with self.lock:
            self.trials[trial.trial] = trial
            self.running.pop(trial.trial, None)
            self.curves.pop(trial.trial, None)
            if trial.status == "failed":
                self.last_failure = trial
            self._stale = True

    @override
    def interrupted(self, running: int, at_once: bool) -> None:
        with self.lock:
            self.interruption = "stops at once" if at_once else "stops when these epochs are over; Ctrl-C: at once"

    @override
    def testing_started(self) -> None:
        self._only("reading the test split")

    @override
    def measuring_started(self) -> None:
        self._only("measuring what the best student costs")

    def _only(self, doing: str) -> None:
        with self.lock:
            self.phase, self.doing, self._over_at = None, doing, None
