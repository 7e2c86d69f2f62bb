"""Hundreds of trials that do nothing, with everything a sweep records: against bare Ray Tune without tracking."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from time import perf_counter, time
from typing import Any, TypeVar

from measuring import Goal, Row, Settings, in_turns
from places import workplace
from prepared import Prepared, Watch, prepared_task
from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.effective import EffectiveSettings
from stkd.orchestrator.events import Observer, Observers, ResultsObserver
from stkd.orchestrator.history import SCORE, epoch_entry
from stkd.orchestrator.hosting import Room, trial_request
from stkd.orchestrator.ledger import Ledger
from stkd.orchestrator.recording import Recorder
from stkd.orchestrator.results import ResultsFile
from stkd.orchestrator.screen import people_watching
from stkd.orchestrator.searching import learning
from stkd.orchestrator.study import Study
from stkd.orchestrator.sweep import TRACKING_SECONDS
from stkd.orchestrator.tracking import Tracker, default_artifact_location, default_uri
from stkd.orchestrator.trial import TrialPlan
from stkd.orchestrator.tuning import KEPT_POINTERS, Tuning
from stkd.trainers.specs import EpochReport

BARE_SEARCH = {
    "interpolation": tune.uniform(0.0, 1.0),
    "sparsity": tune.quniform(0.0, 0.9, 0.1),
    "temperature": tune.loguniform(1.0, 8.0),
}
"""What the quick start searches."""
LEVEL = 1.05
"""By so much may a driver's memory grow from a third of the trials to their end, and count as level."""


class NoOp(tune.Trainable):  # type: ignore[misc]
    """A trial of one step that computes nothing, and reports as a trial does."""

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None) -> None:  # noqa: ARG002 (as Tune calls it)
        """Nothing to prepare."""
        self._number = 0.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:  # noqa: ARG002 (as Tune calls it)
        """Take the next trial's settings."""
        return True

    def step(self) -> dict[str, Any]:
        """Report, with a score that differs from trial to trial."""
        self._number += 1.0
        score = (self._number * 0.618) % 1.0
        measured = {"epoch": 1.0, "loss": 1.0 - score, "accuracy": score, "score": score, "best_score": score}
        measured |= {"parameters": 1e6, "megabytes": 4.0, "milliseconds_per_example": 1.0, "seconds_training": 0.0}
        report = EpochReport(measured, improved=True, done=True)
        entry = epoch_entry(report, student="", teacher_examples=0, seconds={"forward": 0.0})
        return entry | {"done": True, "saved": 0.0, "taken_over": False}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write next to nothing."""
        (Path(checkpoint_dir) / "number").write_text(str(self._number))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Read it."""
        self._number = float((Path(checkpoint_dir) / "number").read_text())


W = TypeVar("W", bound=Watch)


def recorded(prepared: Prepared, watching: Callable[[TrialPlan, Observer], W], trainable: type[tune.Trainable]) -> W:
    """Run the space's trials with all that a sweep records, until MLflow has taken it; raises where one fails."""
    space, storage, data = prepared.space, prepared.storage, prepared.data
    sweep, plan = prepared.new_plan()
    location = default_artifact_location(storage.root)
    with Tracker(sweep.journal, default_uri(storage.root), space.experiment, location, sweep.log) as tracker:
        recorder = Recorder(tracker, space, sweep, storage, data.task.name)
        console = Console(file=StringIO())
        file = ResultsFile(plan.folder.results)
        room = Room(space, prepared.cluster)
        ledger = Ledger(file, room.devices)
        observer = Observers([ResultsObserver(file), ledger, recorder, *people_watching(console, space)])
        watch = watching(plan, observer)
        observer.task_started(data, resumed=False)
        agenda = Agenda(space, _study(plan), lambda: file.read(data.task.name), observer.phase_started)
        Tuning(plan, watch, agenda, room, trainable).run()
        observer.task_ended(finished=True)
        if not tracker.close(TRACKING_SECONDS):
            raise RuntimeError(f"{tracker.pending} records still wait for MLflow: {tracker.problem}")
    watch.check(space.trials.count)
    return watch


def _study(plan: TrialPlan) -> Study | None:
    if not learning(plan.space):
        return None
    return Study(plan.folder.study, plan.space.search, plan.space.trials.seed, EffectiveSettings(plan))


class Contest:
    """The same trials by a sweep's own means and by bare Tune, with the given searcher."""

    def __init__(self, prepared: Prepared, searcher: str) -> None:
        trials = prepared.space.trials.model_copy(update={"searcher": searcher})
        self._space = prepared.space.model_copy(update={"trials": trials})
        self._prepared = replace(prepared, space=self._space)
        self.memory_after_a_third: list[float] = []
        self.memory_at_the_end: list[float] = []

    def ours(self) -> float:
        """Seconds until all trials have run and MLflow has taken everything."""
        start = perf_counter()
        watch = recorded(self._prepared, Watch, NoOp)
        took = perf_counter() - start
        self.memory_after_a_third.append(watch.driver_megabytes[self._space.trials.count // 3 - 1])
        self.memory_at_the_end.append(watch.driver_megabytes[-1])
        return took

    def bare(self) -> float:
        """Seconds of as many trials, as many at a time, with reused processes and checkpoints; without callbacks."""
        space = self._space
        concurrent = Room(space, self._prepared.cluster).trials()
        group = tune.PlacementGroupFactory(trial_request(space).bundles, strategy="PACK")
        start = perf_counter()
        found = tune.Tuner(
            tune.with_resources(NoOp, group),
            param_space=BARE_SEARCH,
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode="max",
                num_samples=space.trials.count,
                search_alg=self._bare_searcher(concurrent),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"bare-{time()}",
                storage_path=str(self._prepared.storage.root),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT_POINTERS, checkpoint_frequency=1),
                verbose=0,
            ),
        ).fit()
        took = perf_counter() - start
        if len(found) - found.num_errors != space.trials.count:
            raise RuntimeError(f"{found.num_errors} of {len(found)} bare trials failed")
        return took

    def _bare_searcher(self, concurrent: int) -> Any:
        if self._space.trials.searcher == "random":
            return BasicVariantGenerator(max_concurrent=concurrent)
        return ConcurrencyLimiter(OptunaSearch(metric=SCORE, mode="max"), concurrent)


def rows(settings: Settings) -> Iterator[Row]:
    """Time and the driver's memory, with random search on both sides; and time with what a sweep searches by."""
    count = settings.size(300, 6)
    tiny = Settings(quick=True)  # no-ops compute nothing: any teacher will do
    with workplace() as folder, prepared_task(tiny, folder, f"trials.count={count}", "data.train_examples=64") as task:
        contests = {searcher: Contest(task, searcher) for searcher in ("random", "optuna")}
        measured = {
            searcher: in_turns({"ours": contest.ours, "theirs": contest.bare}, settings.times(3), warm_up=False)
            for searcher, contest in contests.items()
        }
    sides = {searcher: (found["ours"], found["theirs"]) for searcher, found in measured.items()}
    what, against = f"{count} no-op trials with MLflow on", "bare Ray Tune without tracking"
    yield Row("no_ops", what, against, "s", *sides["random"], [Goal("costs", 1.3)])
    memory = (contests["random"].memory_at_the_end, contests["random"].memory_after_a_third)
    what, after = f"memory of the driver after {count} no-op trials", f"after {count // 3} of them"
    yield Row("no_ops", what, after, "MB", *memory, [Goal("costs", LEVEL)])
    what = f"{count} no-op trials, MLflow on, settings from Optuna"
    yield Row("no_ops", what, "bare Ray Tune with its OptunaSearch", "s", *sides["optuna"])
