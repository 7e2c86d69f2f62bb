"""What benches of whole trials need: a Ray of their own, a task whose stages are done, and a watch on its trials."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from time import time
from typing import Any

from measuring import Settings, resident_megabytes
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from typing_extensions import override
from workloads import teacher_name

from stkd.cluster.cluster import Cluster
from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.events import Observer
from stkd.orchestrator.hosting import Room, stage_host
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import TaskResults
from stkd.orchestrator.session import quiet_libraries
from stkd.orchestrator.stages import Shared, Stages
from stkd.orchestrator.trial import Trial, TrialPlan
from stkd.orchestrator.tuning import Tuning
from stkd.search_spaces.distributions import Choice
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import TaskData, load_task


def own_space(settings: Settings, folder: Path, *overrides: str) -> Space:
    """The quick start's space with the bench's teacher and changes; no controls, no early stopping."""
    changes = [f"teacher.model={teacher_name(settings, folder / 'base')}", "controls=false", "trials.scheduler=null"]
    return read_space(Path("quickstart"), [*changes, *overrides], storage=str(folder / "runs"))


@dataclass(frozen=True)
class Prepared:
    """A task of a space with all that its trials share."""

    space: Space
    data: TaskData
    storage: Storage
    shared: Shared
    cluster: Cluster

    def new_plan(self) -> tuple[SweepFolder, TrialPlan]:
        """A new sweep's folder, and the plan of its trials."""
        sweep = self.storage.new_sweep(self.space.name)
        task = self.data.task
        return sweep, TrialPlan(self.space, task, self.storage, sweep.task(task.name), self.shared)


@contextmanager
def prepared_task(settings: Settings, folder: Path, *overrides: str, address: str | None = None) -> Iterator[Prepared]:
    """A Ray of its own, or the one at an address, and the stages of the quick start's task; changes as in `--set`."""
    space = own_space(settings, folder, *overrides)
    storage, data = Storage(space.storage_folder), load_task(space.tasks[0], space.data)
    with quiet_libraries(folder / "libraries.log"), Cluster(address) as cluster:
        with stage_host(space, cluster, Observer()) as host:
            shared = Stages(space, data, ArtifactStore(storage.artifacts), Observer(), host).run()
        yield Prepared(space, data, storage, shared, cluster)


class Watch(SweepCallback):
    """Also keeps, trial by trial, the last report, when it had ended, and memory; throws its student away."""

    def __init__(self, plan: TrialPlan, observer: Observer | None = None) -> None:
        super().__init__(plan.space, plan.folder, observer or Observer(), {})
        self._artifacts = plan.storage.artifacts
        self.reports: list[dict[str, Any]] = []
        self.ends: list[float] = []
        """By the clock that all processes of a machine share."""
        self.process_megabytes: dict[str, float] = {}
        """Of the process that ran a trial, at the trial's last report."""
        self.driver_megabytes: list[float] = []
        """Of this process."""

    @override
    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        super().on_trial_result(iteration, trials, trial, result, **info)
        self.process_megabytes[trial.trial_id] = resident_megabytes(result["pid"])

    @override
    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        super().on_trial_complete(iteration, trials, trial, **info)
        self.reports.append(trial.last_result)
        self.driver_megabytes.append(resident_megabytes(os.getpid()))
        if trial.last_result["student"].startswith("student-"):
            rmtree(self._artifacts / trial.last_result["student"])
        self.ends.append(time())  # after what no sweep does

    def check(self, count: int) -> None:
        """Raises RuntimeError where not every one of `count` trials came to its end."""
        failures = [trial.reason for trial in self.trials.values() if trial.status != "finished"]
        if failures or len(self.reports) != count:
            raise RuntimeError(f"{len(self.reports)} of {count} trials ended: {failures}")


def run_grid(
    prepared: Prepared, search: Mapping[str, Sequence[float]], trainable: type[tune.Trainable] = Trial
) -> Watch:
    """Run every point of a grid in a sweep of its own, the last key's values in turn first; raises where one fails."""
    grid = {key: Choice(choice=tuple(values)) for key, values in search.items()}
    trials = prepared.space.trials.model_copy(update={"searcher": "grid"})
    space = prepared.space.model_copy(update={"search": grid, "trials": trials})
    _, plan = replace(prepared, space=space).new_plan()
    watch, results = Watch(plan), TaskResults(prepared.data.task.name)
    room, agenda = Room(space, prepared.cluster), Agenda(space, None, lambda: results, lambda *_: None)
    Tuning(plan, watch, agenda, room, trainable).run()
    watch.check(space.grid_points)
    return watch
