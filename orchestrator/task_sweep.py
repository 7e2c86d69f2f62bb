"""One task of a sweep, from its stages to its test: a study of its own."""

import shutil
from collections.abc import Sequence

from rich.console import Console

from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.display import Display
from stkd.orchestrator.events import Observers, ResultsObserver
from stkd.orchestrator.hosting import device_plan, stage_host
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.ledger import Account, Ledger
from stkd.orchestrator.packing import packed
from stkd.orchestrator.phases import Planned, confirmations, controls
from stkd.orchestrator.recording import Recorder
from stkd.orchestrator.results import Phase, ResultsFile, TaskResults
from stkd.orchestrator.stages import Shared, Stages
from stkd.orchestrator.testing import measure_on_test, tested_models, weigh_results
from stkd.orchestrator.tracking import Tracker
from stkd.orchestrator.trial import TrialPlan
from stkd.orchestrator.tuning import Tuning
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import TaskData


class TaskSweep:
    """The stages, the search, the controls, the finalists over fresh seeds, and the one look at the test split."""

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
        self._store = ArtifactStore(storage.artifacts)
        self._recorder = Recorder(tracker, space, sweep, storage, data.task.name)
        self._ledger = Ledger(self._file, device_plan(space))
        self._observer = Observers([ResultsObserver(self._file), self._ledger, self._recorder, Display(console)])

    def run(self) -> bool:
        """Returns whether the task came to its end; what is there from before an interruption is not done again."""
        finished = False
        self._observer.task_started(self._data, resumed=bool(self._results().stages))
        try:
            finished = self._run()
        finally:
            self._observer.task_ended(finished)
        return finished

    def _run(self) -> bool:
        with stage_host(self._space) as host:
            shared = Stages(self._space, self._data, self._store, self._observer, host).run()
        if self._space.resources.pack:
            self._space = packed(self._space, self._data.task, shared, self._store, self._observer)
            self._ledger.plan = device_plan(self._space)
        if not self._trials(shared):
            return False
        shutil.rmtree(self._folder.checkpoints(""), ignore_errors=True)  # what was written as its trial was stopped
        self._observer.testing_started()
        with stage_host(self._space) as host:
            models = tested_models(self._space, self._results(), shared, self._store)
            for tested in measure_on_test(models, self._data.task, self._store, host):
                self._observer.tested(tested)
        evidence = weigh_results(self._results(), self._data.task, self._store)
        if evidence:
            self._observer.weighed(evidence)
        self._recorder.record_best(self._results())
        account = Account.of(self._space, self._results())
        if account is not None:
            self._recorder.record_account(account)
        return True

    def _trials(self, shared: Shared) -> bool:
        """All phases of trials; returns whether every trial has ended."""
        if not self._search(shared):
            return False
        planned = controls(self._space, self._results()) if self._space.controls else []
        if not self._train("control", planned, shared):
            return False
        return self._train("confirm", confirmations(self._space, self._results()), shared)

    def _search(self, shared: Shared) -> bool:
        count = self._space.trial_count
        exhausted = self._ended("search") < count and self._tuning("search", count, shared).search()
        ended = self._ended("search")
        if exhausted and ended < count:
            so_far = f"nothing is left to try after {ended} of {count} trials"
            self._console.print(f"{so_far}: all other settings come to the same students", soft_wrap=True)
        return exhausted or ended >= count

    def _train(self, phase: Phase, planned: Sequence[Planned], shared: Shared) -> bool:
        """Train the given trials, unless that is done; returns whether all have ended."""
        if self._ended(phase) < len(planned):
            self._tuning(phase, len(planned), shared).run(phase, planned)
        return self._ended(phase) >= len(planned)

    def _tuning(self, phase: Phase, count: int, shared: Shared) -> Tuning:
        self._observer.phase_started(phase, count)
        plan = TrialPlan(self._space, self._data.task, self._storage, self._folder, shared)
        callback = SweepCallback(self._space, self._folder, self._observer, phase, self._results().trials)
        return Tuning(plan, callback)

    def _ended(self, phase: Phase) -> int:
        return sum(trial.status != "running" for trial in self._results().of_phase(phase))

    def _results(self) -> TaskResults:
        return self._file.read(self._data.task.name)
