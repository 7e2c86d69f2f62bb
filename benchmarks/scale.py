"""What the driver of a sweep does for each trial when there are very many: the CPU of the last ones against the first.

Ray is left out: Tune's events are told to our own callback and searcher as Tune tells them, so that what grows is ours.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import count
from pathlib import Path
from random import Random
from time import process_time, sleep, thread_time
from types import SimpleNamespace
from typing import Any

from measuring import Goal, Row, Settings
from places import workplace
from rich.console import Console

from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.events import Observers, ResultsObserver
from stkd.orchestrator.history import epoch_entry
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.ledger import DevicePlan, Ledger
from stkd.orchestrator.live import View
from stkd.orchestrator.progress import Progress
from stkd.orchestrator.recording import Recorder
from stkd.orchestrator.results import ResultsFile
from stkd.orchestrator.searching import AgendaSearcher
from stkd.orchestrator.study import Study
from stkd.orchestrator.tracking import Tracker, default_artifact_location, default_uri
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import TaskData, load_task
from stkd.trainers.specs import EpochReport

SIDE_BY_SIDE = 40
"""Trials that run at a time."""
EPOCHS = 2
GROWTH = 3.0
"""So many times what the first trials cost may the last of 2,000 cost; a sampler that learns from all does more."""
PARTS = {
    "search": "CPU for the next settings, and telling what came of them",
    "events": "CPU for results, ledger, journal and screen",
    "mlflow": "CPU of the thread that sends to MLflow",
}


@dataclass
class Driver:
    """A sweep's driver without Ray."""

    space: Space
    data: TaskData
    storage: Storage
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    """CPU of each batch of trials."""

    def run(self, batch: int, batches: int) -> None:
        """Run so many batches of trials, and measure each."""
        sweep, task = self.storage.new_sweep(self.space.name), self.data.task.name
        folder, location = sweep.task(task), default_artifact_location(self.storage.root)
        file = ResultsFile(folder.results)
        with Tracker(sweep.journal, default_uri(self.storage.root), "scale", location) as tracker:
            recorder = Recorder(tracker, self.space, sweep, self.storage, task)
            ledger = Ledger(file, lambda: DevicePlan("GPU", SIDE_BY_SIDE, 1, 1))
            self._progress = Progress(self.space, {})
            self._view = View(self._progress, ledger.so_far)
            observer = Observers([ResultsObserver(file), ledger, recorder, self._progress])
            study = Study(folder.study, self.space.search, 0, lambda settings: json.dumps(dict(settings)))
            agenda = Agenda(self.space, study, lambda: file.read(task), observer.phase_started)
            self._searcher = AgendaSearcher(agenda, lambda: SIDE_BY_SIDE)
            self._callback = SweepCallback(self.space, folder, observer, {})
            observer.task_started(self.data, resumed=False)
            self._running: list[Any] = []
            self._numbers, self._scores = count(), Random(0)  # noqa: S311 (no secret depends on it)
            for _ in range(batches):
                self._run_batch(batch, tracker)

    def _run_batch(self, batch: int, tracker: Tracker) -> None:
        search = events = 0.0
        before, here = process_time(), thread_time()
        ended = 0
        while ended < batch:
            start = thread_time()
            while len(self._running) < SIDE_BY_SIDE:
                name = f"{next(self._numbers):08x}"
                config = self._searcher.suggest(name)
                self._running.append(SimpleNamespace(trial_id=name, config=config, status="RUNNING", last_result={}))
            trial = self._running.pop(0)
            searched = thread_time()
            results = [self._result(epoch) for epoch in range(1, EPOCHS + 1)]
            self._callback.on_trial_start(0, [], trial)
            for trial.last_result in results:
                self._callback.on_trial_result(0, [], trial, trial.last_result)
            self._callback.on_trial_complete(0, [], trial)
            Console(file=StringIO(), width=100, height=40).print(self._view.draw(100, 40))  # as 4 times a second
            told = thread_time()
            self._searcher.on_trial_result(trial.trial_id, results[0])
            self._searcher.on_trial_complete(trial.trial_id, results[-1])
            ended += 1
            search += searched - start + thread_time() - told
            events += told - searched
        while tracker.pending:
            sleep(0.05)
        self.seconds["search"].append(search)
        self.seconds["events"].append(events)
        self.seconds["mlflow"].append(process_time() - before - (thread_time() - here))

    def _result(self, epoch: int) -> dict[str, Any]:
        score = self._scores.random()
        measured = {"epoch": float(epoch), "loss": 1.0 - score, "accuracy": score, "score": score, "best_score": score}
        entry = epoch_entry(EpochReport(measured, improved=True, done=epoch == EPOCHS), "", 0, {"forward": 0.0})
        return entry | {"done": epoch == EPOCHS, "saved": 0.0, "taken_over": False, "training_iteration": epoch}


def rows(settings: Settings) -> Iterator[Row]:
    """For each part of the driver, milliseconds a trial: of the last eighth of 2,000 trials against the first."""
    batch, batches = settings.size(250, 3), settings.size(8, 2)
    found: list[dict[str, list[float]]] = []
    for _ in range(settings.times(1)):
        with workplace() as folder:
            changes = (f"trials.count={batch * batches + SIDE_BY_SIDE}", "data.train_examples=64", "controls=false")
            space = read_space(Path("quickstart"), changes, storage=str(folder / "runs"))
            driver = Driver(space, load_task(space.tasks[0], space.data), Storage(folder / "runs"))
            driver.run(batch, batches)
            found.append(driver.seconds)
    for part, what in PARTS.items():
        last, first = ([1e3 * seconds[part][place] / batch for seconds in found] for place in (-1, 0))
        against = f"the first {batch} of {batch * batches} trials"
        yield Row("scale", f"{what}, the last {batch}", against, "ms a trial", last, first, [Goal("costs", GROWTH)])


if __name__ == "__main__":
    import sys

    for row in rows(Settings(quick="--quick" in sys.argv)):
        print(row)
