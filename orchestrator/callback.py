"""Ray Tune's events as the sweep's own."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial
from typing_extensions import override

from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.events import Observer
from stkd.orchestrator.interruption import Interruption
from stkd.orchestrator.layout import Storage, TaskFolder
from stkd.orchestrator.phases import name_of, phase_of, role_of, values_of
from stkd.orchestrator.results import Status, TrialResult
from stkd.orchestrator.stages import is_gone, loss_in_words
from stkd.orchestrator.waiting import Queue
from stkd.search_spaces.schema import Space
from stkd.trainers.stopwatch import from_metrics


class SweepCallback(Callback):  # type: ignore[misc]
    """Turns what Tune reports of its trials into results, and tells the observer.

    Tune copies its callbacks and pickles them with the experiment; a copy is this one again, since observers hold
    threads and open files.
    """

    active: "SweepCallback | None" = None

    def __init__(
        self,
        space: Space,
        folder: TaskFolder,
        observer: Observer,
        known: Mapping[str, TrialResult],
        queue: Queue | None = None,
        interruption: Interruption | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        """`reasons` are why processes of trials were ended, where that was done on purpose."""
        self._reasons = reasons or {}
        self._space, self._folder, self._observer = space, folder, observer
        self._queue, self._interruption = queue, interruption
        self.trials = dict(known)
        self._clocks: dict[str, float] = {}
        self._last_heard: dict[str, float] = {}
        self._store = ArtifactStore(Storage(space.storage_folder).artifacts)
        self._surpassed: defaultdict[str, set[str]] = defaultdict(set)
        """Students by trial that a later epoch was better than."""
        SweepCallback.active = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _active_callback, ()

    @override
    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Tune has done what there was to do for now."""
        if self._queue is not None:
            self._queue.look(lambda: any(trial.status == TuneTrial.PENDING for trial in trials))
        if self._interruption is not None and self._interruption.asked:
            running = {_name(trial) for trial in trials if trial.status == TuneTrial.RUNNING}
            for known in map(self.trials.__getitem__, sorted(self._interruption.look(running))):
                if known.status == "running":
                    self._observer.trial_paused(known)

    @override
    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial begins, is retried, or goes on."""
        self._begin(trial)

    def _begin(self, trial: TuneTrial) -> None:
        values, config = values_of(trial.config, self._space), trial.config
        begun = TrialResult(_name(trial), values, "running", phase_of(config), role_of(config))
        known = self.trials.get(begun.trial, begun)
        self._clocks[known.trial] = monotonic() - known.seconds
        self._last_heard[known.trial] = monotonic()
        self._observer.trial_started(self._keep(known, status="running"))

    @override
    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has finished an epoch."""
        known = self.trials[_name(trial)]
        measured = result["measured"]
        if result["failure"]:
            return
        self._last_heard[known.trial] = monotonic()
        if self._interruption is not None:
            self._interruption.reported(known.trial)
        changes: dict[str, Any] = {"epochs": int(measured["epoch"]), "saved": known.saved + result["saved"]}
        if result["note"]:
            changes["note"] = result["note"]
        if not result["taken_over"]:
            changes["phases"] = dict(Counter(known.phases) + Counter(from_metrics(measured)))
        if result["improved"]:
            self._surpassed[known.trial].add(known.student)
            changes |= {"metrics": measured, "student": result["student"]}
        self._observer.trial_epoch(self._keep(known, **changes), measured)

    @override
    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial has come to its end, or the scheduler stopped it."""
        last = trial.last_result or {}
        if last.get("failure"):
            self._end(trial, "failed", last["failure"])
        else:
            self._end(trial, "finished" if last.get("finished") else "stopped")

    @override
    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial has failed, and will be tried again from its last epoch."""
        self._begin_where_no_process_did(trial)
        known = self.trials[_name(trial)]
        lost = monotonic() - self._last_heard[known.trial]
        self._observer.trial_retried(self._keep(known, lost=known.lost + lost))

    @override
    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial has failed for good."""
        self._begin_where_no_process_did(trial)
        self._end(trial, "failed", self._reasons.get(_name(trial)) or failure_reason(_error_of(trial)))

    def _begin_where_no_process_did(self, trial: TuneTrial) -> None:
        """Tune tells of no start where a trial's process fails to start."""
        if _name(trial) not in self._clocks:
            self._begin(trial)

    def _end(self, trial: TuneTrial, status: Status, reason: str = "") -> None:
        known = self.trials[_name(trial)]
        shutil.rmtree(self._folder.checkpoints(known.trial), ignore_errors=True)
        for student in self._surpassed.pop(known.trial, set()) - {"", known.student}:
            self._store.remove(student)
        self._observer.trial_ended(self._keep(known, status=status, reason=reason))

    def _keep(self, known: TrialResult, **changes: Any) -> TrialResult:
        seconds = monotonic() - self._clocks[known.trial]
        result = TrialResult(**{**vars(known), "seconds": seconds, **changes})
        self.trials[known.trial] = result
        return result


def _active_callback() -> SweepCallback:
    assert SweepCallback.active is not None, "Tune's own state of a sweep is not to be restored"
    return SweepCallback.active


def _name(trial: TuneTrial) -> str:
    return name_of(trial.trial_id, trial.config)


def _error_of(trial: TuneTrial) -> Exception | None:
    """What ended a trial. Tune has written it beside itself by now, and copies it to storage only later."""
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return None
    error: Exception = cloudpickle.loads(Path(path).read_bytes())
    return error


def failure_reason(error: Exception | None) -> str:
    """The last line of what went wrong inside a trial, without Ray's wrapping."""
    if error is None:
        return "no reason was recorded"
    cause: BaseException = error.cause if isinstance(error, RayTaskError) else error
    if is_gone(cause):
        return f"a process of it is gone: {loss_in_words(cause)}"
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[-1].strip()}" if lines else type(cause).__name__
