"""What the sessions of a task come to: held, lost and saved. In device-seconds: cores, or GPUs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from stkd.orchestrator.results import TaskResults, TrialResult
from stkd.search_spaces.schema import Space


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
