"""One task of a sweep, from its stages to its test: a study of its own."""

import shutil

from stkd.cluster.cluster import Cluster
from stkd.orchestrator.account import Account
from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.budgeting import student_cost
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.cost_book import CostBook
from stkd.orchestrator.effective import EffectiveSettings
from stkd.orchestrator.events import Observers, ResultsObserver
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.guessing import Guessing
from stkd.orchestrator.hosting import Room, stage_host, trial_request
from stkd.orchestrator.interruption import Interruption
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.ledger import Ledger
from stkd.orchestrator.packing import packed
from stkd.orchestrator.recording import Recorder
from stkd.orchestrator.results import ResultsFile, TaskResults
from stkd.orchestrator.screen import Screen
from stkd.orchestrator.searching import learning
from stkd.orchestrator.stages import Shared, StageError, Stages
from stkd.orchestrator.study import Study
from stkd.orchestrator.testing import measure_on_test, tested_models, weigh_results
from stkd.orchestrator.tracking import Tracker
from stkd.orchestrator.trial import TrialPlan
from stkd.orchestrator.tuning import Tuning
from stkd.orchestrator.waiting import Queue
from stkd.orchestrator.watchdog import Watchdog
from stkd.search_spaces.budgets import Budget
from stkd.search_spaces.schema import Space
from stkd.trainers.patience import StorageError
from stkd.trainers.sources import TaskData


class TaskSweep:
    """The stages, the search, the controls, the finalists over fresh seeds, and the one look at the test split."""

    def __init__(
        self,
        space: Space,
        storage: Storage,
        sweep: SweepFolder,
        tracker: Tracker,
        screen: Screen,
        data: TaskData,
        cluster: Cluster,
    ) -> None:
        self._space, self._storage, self._data, self._console = space, storage, data, screen.console
        self._cluster, self._room = cluster, Room(space, cluster)
        self._folder = sweep.task(data.task.name)
        self._file = ResultsFile(self._folder.results)
        self._store = ArtifactStore(storage.artifacts)
        self._recorder = Recorder(tracker, space, sweep, storage, data.task.name)
        self._ledger = Ledger(self._file, lambda: self._room.devices())
        told = screen.observers(space, data.task.name, self._results().trials, self._ledger.so_far)
        limits = (space.trials.stuck_after, space.resources.storage_patience)
        self._watchdog = Watchdog(*limits, lambda text: self._observer.warned(text), lambda: tracker.problem)
        self._told = Observers(told)
        watching = [ResultsObserver(self._file), self._ledger, self._recorder, self._told, self._watchdog]
        self._observer = Observers(watching)

    def run(self) -> bool:
        """Returns whether the task came to its end; what is there from before an interruption is not done again."""
        finished = False
        with self._watchdog:
            try:
                self._observer.task_started(self._data, resumed=bool(self._results().stages))
                finished = self._run()
            except KeyboardInterrupt:
                self._watchdog.check_storage()
                raise
            except StageError as error:
                if reason := self._watchdog.reasons.get(""):
                    raise StageError(f"{error}; {reason}") from error
                raise
            finally:
                self._end(finished)
            self._watchdog.check_storage()
        return finished

    def _end(self, finished: bool) -> None:
        try:
            self._observer.task_ended(finished)
        except StorageError:  # then what is there must do
            self._told.task_ended(finished)

    def _run(self) -> bool:
        shared = self._stages()
        guessing = Guessing(self._space, self._data)
        self._warn(guessing.of_trial_student(self._results()))
        if self._space.resources.pack:
            self._space = packed(self._space, self._data.task, shared, self._store, self._observer, self._cluster)
            self._room = Room(self._space, self._cluster)
        if not self._trials(shared):
            return False
        self._warn(guessing.of_search(self._results()))
        shutil.rmtree(self._folder.all_checkpoints, ignore_errors=True)  # what was written as its trial was stopped
        self._observer.testing_started()
        with stage_host(self._space, self._cluster, self._observer) as host:
            models = tested_models(self._space, self._results(), shared, self._store)
            attempts, lost = self._space.trials.max_failures, self._observer.stage_lost
            for tested in measure_on_test(models, self._data.task, self._store, host, attempts, lost):
                self._observer.tested(tested)
        evidence = weigh_results(self._results(), self._data.task, self._store)
        if evidence:
            self._observer.weighed(evidence)
        if self._space.budget:
            self._measure(self._space.budget)
        self._recorder.record_best(self._results())
        account = Account.of(self._space, self._results())
        if account is not None:
            self._recorder.record_account(account)
        return True

    def _warn(self, text: str | None) -> None:
        if text:
            self._observer.warned(text)

    def _stages(self) -> Shared:
        with stage_host(self._space, self._cluster, self._observer) as host:
            return Stages(self._space, self._data, self._store, self._observer, host).run()

    def _trials(self, shared: Shared) -> bool:
        """All phases of trials; returns whether every trial has ended."""
        plan = TrialPlan(self._space, self._data.task, self._storage, self._folder, shared)
        study = None
        if learning(self._space):
            study = Study(self._folder.study, self._space.search, self._space.trials.seed, EffectiveSettings(plan))
        agenda = Agenda(self._space, study, self._results, self._observer.phase_started)
        if not agenda.is_complete():
            queue = Queue(trial_request(self._space), self._cluster, self._observer)
            interruption = Interruption(self._observer)
            known, reasons = self._results().trials, self._watchdog.reasons
            callback = SweepCallback(self._space, self._folder, self._observer, known, queue, interruption, reasons)
            Tuning(plan, callback, agenda, self._room, interruption=interruption).run()
            if interruption.asked:
                return False
        tried = agenda.nothing_left_to_try()
        if tried is not None:
            so_far = f"nothing was left to try after {tried} of {self._space.trial_count} trials"
            self._console.print(f"{so_far}: all other settings come to the same students", soft_wrap=True)
        return agenda.is_complete()

    def _measure(self, budget: Budget) -> None:
        """Measure the chosen student as it is; where it is over the budget after all, the next one is chosen."""
        self._observer.measuring_started()
        conditions = budget.conditions(self._space.training.max_length)
        while (chosen := chosen_trial(self._results())) and chosen.student not in self._results().costs:
            folder = self._store.root / chosen.student
            self._observer.measured(student_cost(folder, conditions, budget, CostBook(self._store)))

    def _results(self) -> TaskResults:
        return self._file.read(self._data.task.name)
