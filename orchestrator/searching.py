"""Ray Tune's searcher and scheduler: who says which trial comes next, and which of them ends early."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from typing_extensions import override

from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.history import SCORE
from stkd.orchestrator.interruption import is_asked
from stkd.orchestrator.phases import phase_of
from stkd.orchestrator.results import TrialResult
from stkd.orchestrator.study import Study
from stkd.search_spaces.schema import Space


class StudySearcher(Searcher):  # type: ignore[misc]
    """Turns what Tune asks and tells of its trials into the study's terms.

    It says itself how many trials run at a time, as `concurrent` has it now, by those that the study holds as running.
    Tune copies its searcher and pickles it with the experiment; a copy is this one again, since a study is one file.
    """

    active: "StudySearcher | None" = None

    def __init__(self, study: Study, concurrent: Callable[[], int]) -> None:
        super().__init__(metric=SCORE, mode="max")
        self.study, self._concurrent = study, concurrent
        StudySearcher.active = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _active_searcher, ()

    @override
    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The study knows its search already."""
        return True

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Settings for a new trial; None while there is no place for it, FINISHED where nothing is left to try."""
        if self.study.running >= self._concurrent():
            return None
        settings = self.study.ask(trial_id)
        return str(Searcher.FINISHED) if settings is None and self.study.exhausted else settings

    @override
    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial has finished an epoch."""
        if not result["failure"]:
            self.study.report(trial_id, result["training_iteration"], result[SCORE])

    @override
    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A trial has come to its end, was stopped by the scheduler, or failed."""
        if error or not result or result["failure"]:
            return self.study.fail(trial_id)
        self.on_trial_result(trial_id, result)  # Tune does not tell the last one otherwise
        if result["finished"]:
            return self.study.complete(trial_id, result[SCORE])
        return self.study.prune(trial_id)

    @override
    def save(self, checkpoint_path: str) -> None:
        """Name the study, whose file holds everything at any time."""
        Path(checkpoint_path).write_text(str(self.study.path), encoding="utf-8")


def _active_searcher() -> StudySearcher:
    assert StudySearcher.active is not None, "Tune's own state of a sweep is not to be restored"
    return StudySearcher.active


class AgendaSearcher(Searcher):  # type: ignore[misc]
    """Turns what Tune asks and tells of its trials into the agenda's terms, and the study's.

    A copy is this one again, as of a `StudySearcher`.
    """

    active: "AgendaSearcher | None" = None

    def __init__(self, agenda: Agenda, concurrent: Callable[[], int]) -> None:
        super().__init__(metric=SCORE, mode="max")
        self.agenda, self._concurrent = agenda, concurrent
        self._study = agenda.study and StudySearcher(agenda.study, concurrent)
        AgendaSearcher.active = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _active_agenda, ()

    @override
    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The agenda knows its trials already."""
        return True

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A new trial's configuration; None while there is no place for it, FINISHED when all have ended."""
        if is_asked():
            if not self.agenda.running:  # nothing ends any more, so Tune would wait for ever
                raise KeyboardInterrupt
            return None
        if self.agenda.running >= self._concurrent():
            return None
        config = self.agenda.next(trial_id)
        return str(Searcher.FINISHED) if config is None and self.agenda.is_over else config

    @override
    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial has finished an epoch."""
        if self._study:
            self._study.on_trial_result(trial_id, result)

    @override
    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A trial has come to its end, was stopped by the scheduler, or failed."""
        self.agenda.ended(trial_id)
        if self._study:
            self._study.on_trial_complete(trial_id, result, error)

    @override
    def save(self, checkpoint_path: str) -> None:
        """Nothing to add: results and study hold everything at any time."""
        Path(checkpoint_path).touch()


def _active_agenda() -> AgendaSearcher:
    assert AgendaSearcher.active is not None, "Tune's own state of a sweep is not to be restored"
    return AgendaSearcher.active


def learning(space: Space) -> bool:
    """Whether the search learns from its trials."""
    return space.trials.searcher == "optuna" and bool(space.search)


class SearchOnly(ASHAScheduler):  # type: ignore[misc]
    """Stops weak trials of the search early, and lets all others run to their end."""

    def remember(self, course: Sequence[TrialResult]) -> None:
        """Compare with the trials that had ended before an interruption, by the scores that they had epoch by epoch."""
        ended = {trial.trial for trial in course if trial.phase == "search" and trial.status != "running"}
        for trial in course:
            if trial.trial in ended and trial.metrics:
                report = {"training_iteration": trial.epochs, SCORE: trial.metrics[SCORE]}
                known = Trial(self.__class__.__name__, trial_id=trial.trial, stub=True)
                super().on_trial_add(None, known)
                super().on_trial_result(None, known, report)
                super().on_trial_remove(None, known)

    @override
    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Only the search's trials are compared."""
        if phase_of(trial.config) == "search":
            super().on_trial_add(tune_controller, trial)

    @override
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        if phase_of(trial.config) != "search":
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    @override
    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """A trial has come to its end."""
        if phase_of(trial.config) == "search":
            super().on_trial_complete(tune_controller, trial, result)

    @override
    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """A trial was removed."""
        if phase_of(trial.config) == "search":
            super().on_trial_remove(tune_controller, trial)


class Interruptible(FIFOScheduler):  # type: ignore[misc]
    """Pauses each trial after its epoch, once the sweep is to stop: Tune then stores a checkpoint and goes on."""

    @override
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        decision = str(super().on_trial_result(tune_controller, trial, result))
        return str(TrialScheduler.PAUSE) if decision == TrialScheduler.CONTINUE and is_asked() else decision

    @override
    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """None: Tune starts by itself what is pending, in order.

        A trial that is named here is given the next process that comes free, and its own, which is about to be there,
        is thrown away: seconds of all cores. And to choose, Tune looks at all trials whenever anything happens.
        """
        return None


class InterruptibleSearch(Interruptible, SearchOnly):
    """Both."""


def scheduler(space: Space, course: Sequence[TrialResult] = ()) -> TrialScheduler:
    """Who stops weak trials early; `course` is what the results have from before an interruption, event by event."""
    rules = space.trials.scheduler
    if rules is None:
        return Interruptible()
    asha = InterruptibleSearch(
        time_attr="training_iteration",
        metric=SCORE,
        mode="max",
        max_t=space.longest_training,
        grace_period=rules.asha.grace_period,
        reduction_factor=rules.asha.reduction_factor,
    )
    asha.remember(course)
    return asha
