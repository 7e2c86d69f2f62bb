"""A sweep from its first stage to the table at its end; started afresh, or resumed."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from stkd.cluster.connection import (
    bundles,
    concurrent_jobs,
    hosted_gang,
    local_ray,
    most_cpus_per_rank,
    refuse_impossible,
)
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.display import Display, results_table, size_line
from stkd.orchestrator.effective import EffectiveSettings
from stkd.orchestrator.events import Observers, ResultsObserver
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.recording import Recorder
from stkd.orchestrator.results import ResultsFile, TaskResults, read_results
from stkd.orchestrator.searching import Search, exhausted, parameter_space, samples, scheduler, searcher
from stkd.orchestrator.stages import CallGang, Shared, Stages, ray_caller
from stkd.orchestrator.tracking import Tracker, default_artifact_location, default_uri
from stkd.orchestrator.trial import SCORE, WORKER, Trial, TrialPlan
from stkd.search_spaces.reading import space_text
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import without_secrets
from stkd.trainers.sources import TaskData, load_task

TRACKING_SECONDS = 120.0
"""How long the end of a sweep waits for MLflow to take what is still to be sent."""
INTERRUPTED = 130

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # searchers say themselves how many trials there are at a time
}


def run_sweep(space: Space, prepared: Mapping[str, TaskData]) -> int:
    """Run a new sweep; returns the exit code. `prepared` holds the data of the tasks that were read already."""
    storage = Storage(space.storage_folder)
    sweep = storage.new_sweep(space.name)
    sweep.space.touch(mode=0o600)  # a tracking URI may hold a password
    sweep.space.write_text(space_text(from_anywhere(space)), encoding="utf-8")
    return _run(space, storage, sweep, prepared)


def from_anywhere(space: Space) -> Space:
    """The space with its relative paths made absolute, so that a resume may start in another folder."""
    data, teacher = space.data, space.teacher
    if data.path is not None and Path(data.path).exists():
        data = data.model_copy(update={"path": str(Path(data.path).absolute())})
    if Path(teacher.model).is_dir():
        teacher = teacher.model_copy(update={"model": str(Path(teacher.model).absolute())})
    return space.model_copy(update={"data": data, "teacher": teacher})


def resume_sweep(space: Space, prepared: Mapping[str, TaskData], sweep_id: str) -> int:
    """Continue a sweep where it stopped; trials that ended are not run again. Returns the exit code."""
    storage = Storage(space.storage_folder)
    return _run(space, storage, storage.find_sweep(sweep_id), prepared)


def _run(space: Space, storage: Storage, sweep: SweepFolder, prepared: Mapping[str, TaskData]) -> int:
    console = Console()
    uri = space.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(storage.root)
    location = default_artifact_location(storage.root) if uri == default_uri(storage.root) else None
    console.print(f"sweep {sweep.sweep_id}, in {storage.root}", highlight=False, soft_wrap=True)
    finished = False
    with _quiet_libraries(sweep.log), Tracker(sweep.journal, uri, space.experiment, location) as tracker:
        try:
            finished = _run_tasks(space, storage, sweep, tracker, console, prepared)
        except KeyboardInterrupt:
            console.print("stopping", highlight=False)
        if not tracker.close(TRACKING_SECONDS):
            problem = tracker.problem or "it was slow"
            console.print(f"{tracker.pending} records wait for MLflow ({problem}); --resume sends them", soft_wrap=True)
    _print_end(console, space, storage, sweep, without_secrets(uri), finished)
    return 0 if finished else INTERRUPTED


def _run_tasks(
    space: Space,
    storage: Storage,
    sweep: SweepFolder,
    tracker: Tracker,
    console: Console,
    prepared: Mapping[str, TaskData],
) -> bool:
    """One task after another; returns whether all came to their end."""
    resources = space.resources
    with local_ray(), _sigterm_as_ctrl_c():
        refuse_impossible(resources.ranks, resources.cpus_per_rank, resources.gpus_per_rank)
        for task in space.tasks:
            data = prepared.get(task) or load_task(task, space.data)
            if not TaskSweep(space, storage, sweep, tracker, console, data).run():
                return False
    return True


class TaskSweep:
    """One task of a sweep: a study of its own."""

    def __init__(
        self,
        space: Space,
        storage: Storage,
        sweep: SweepFolder,
        tracker: Tracker,
        console: Console,
        data: TaskData,
    ) -> None:
        self._space, self._storage, self._data, self._console = space, storage, data, console
        self._folder = sweep.task(data.task.name)
        self._file = ResultsFile(self._folder.results)
        self._recorder = Recorder(tracker, space, sweep, storage, data.task.name)
        self._count = space.trial_count
        display = Display(console, self._count)
        self._observer = Observers([ResultsObserver(self._file), self._recorder, display])

    def run(self) -> bool:
        """Stages, then trials; returns whether the task came to its end."""
        finished = False
        known = self._file.read(self._data.task.name)
        self._observer.task_started(self._data, resumed=bool(known.stages))
        try:
            finished = self._trials(self._shared(), known)
        finally:
            self._observer.task_ended(finished)
        if finished:
            best = self._file.read(self._data.task.name).ranked()
            if best:
                self._recorder.record_best(best[0])
        return finished

    def _shared(self) -> Shared:
        with ExitStack() as stack:
            stages = Stages(
                self._space,
                self._data,
                ArtifactStore(self._storage.artifacts),
                self._observer,
                _LazyHost(self._space, stack).caller,
            )
            return stages.run()

    def _trials(self, shared: Shared, known: TaskResults) -> bool:
        plan = TrialPlan(
            self._space, self._data.task, self._storage, self._folder, shared.data, shared.teacher, shared.scores
        )
        callback = SweepCallback(self._space, self._folder, self._observer, known.trials)
        search = self._searcher(plan)
        self._tuner(plan, callback, search).fit()
        ended = [trial for trial in callback.trials.values() if trial.status != "running"]
        if len(ended) < self._count and exhausted(search):
            so_far = f"nothing is left to try after {len(ended)} of {self._count} trials"
            self._console.print(f"{so_far}: all other settings come to the same students", soft_wrap=True)
            return True
        return len(ended) >= self._count

    def _searcher(self, plan: TrialPlan) -> Search:
        space, resources = self._space, self._space.resources
        concurrent = concurrent_jobs(resources.ranks, resources.cpus_per_rank, resources.gpus_per_rank)
        concurrent = min(concurrent, space.trials.concurrent or concurrent)
        return searcher(space, concurrent, self._folder.study, EffectiveSettings(plan))

    def _tuner(self, plan: TrialPlan, callback: SweepCallback, search: Search) -> tune.Tuner:
        space = self._space
        resources = space.resources
        group = tune.PlacementGroupFactory(
            bundles(resources.ranks, resources.cpus_per_rank, resources.gpus_per_rank), strategy="PACK"
        )
        trainable = tune.with_resources(tune.with_parameters(Trial, plan=plan), group)
        experiment = self._folder.tune
        if tune.Tuner.can_restore(experiment):
            return tune.Tuner.restore(str(experiment), trainable=trainable, param_space=parameter_space(space))
        return tune.Tuner(
            trainable,
            param_space=parameter_space(space),
            tune_config=tune.TuneConfig(
                num_samples=samples(space),
                search_alg=search,
                scheduler=scheduler(space),
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
                **({} if space.trials.scheduler else {"metric": SCORE, "mode": "max"}),
            ),
            run_config=tune.RunConfig(
                name=experiment.name,
                storage_path=str(experiment.parent),
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=space.trials.max_failures),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1),
                verbose=0,
            ),
        )


def _trial_id(trial: Any) -> str:
    return str(trial.trial_id)


class _LazyHost:
    """Starts the gang that computes stages when the first stage needs it."""

    def __init__(self, space: Space, stack: ExitStack) -> None:
        self._space, self._stack = space, stack

    def caller(self) -> CallGang:
        """The way to the gang."""
        return self._call

    @cached_property
    def _call(self) -> CallGang:
        resources = self._space.resources
        cpus = resources.cpus_per_rank
        if not resources.gpus_per_rank:  # stages run one after the other: on CPUs, each has the machine to itself
            cpus = most_cpus_per_rank(resources.ranks)
        host = hosted_gang(WORKER, resources.ranks, cpus, resources.gpus_per_rank)
        return ray_caller(self._stack.enter_context(host))


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler's or service manager's SIGTERM ends the sweep as cleanly as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so it is for what a shell runs in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet_libraries(log: Path) -> Iterator[None]:
    """What Ray and the other libraries log goes to a file; the screen is for the sweep's own lines."""
    os.environ.update({name: value for name, value in TUNE_SETTINGS.items() if name not in os.environ})
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("ray", "optuna", "py.warnings")]
    kept = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


def _print_end(console: Console, space: Space, storage: Storage, sweep: SweepFolder, uri: str, finished: bool) -> None:
    for results in read_results(sweep).values():
        if results.ranked():
            console.print()
            console.print(results_table(results))
            console.print(size_line(results), highlight=False, soft_wrap=True)
    console.print()
    where = "" if space.storage == "./stkd-runs" else f" --storage {space.storage}"
    lines = [f"results   {sweep.root}", f"artifacts {storage.artifacts}", f"MLflow    {uri}"]
    if finished:
        lines += [f"next      stkd ui{where}", f"          stkd best{where} --export best-student"]
    else:
        lines += [f"stopped; everything finished is kept. Continue with: stkd sweep{where} --resume {sweep.sweep_id}"]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()
