"""The space's search section as Ray Tune's objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from typing_extensions import override

from stkd.orchestrator.history import SCORE
from stkd.orchestrator.study import Effective, Study
from stkd.search_spaces.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform
from stkd.search_spaces.schema import Space

Search: TypeAlias = Searcher | SearchAlgorithm
"""Tune's two kinds of searchers: what it wraps, and what it takes as it is."""


def parameter_space(space: Space) -> dict[str, Any]:
    """A Tune domain for each searched key; with the grid searcher, every value of it."""
    if space.trials.searcher == "grid":
        return {key: tune.grid_search(list(searched.grid() or ())) for key, searched in space.search.items()}
    return {key: _domain(searched) for key, searched in space.search.items()}


def _domain(searched: Distribution) -> Any:
    match searched:
        case Uniform():
            return tune.uniform(*searched.uniform)
        case LogUniform():
            return tune.loguniform(*searched.loguniform)
        case QUniform():
            return tune.quniform(*searched.quniform)
        case RandInt():
            low, high = searched.randint
            return tune.randint(low, high + 1)
        case Choice():
            return tune.choice(list(searched.choice))


class StudySearcher(Searcher):  # type: ignore[misc]
    """Turns what Tune asks and tells of its trials into the study's terms.

    It says itself how many trials run at a time, by those that the study holds as running. Tune pickles its searcher
    with the experiment and brings it back on a resume; this one is then whatever searcher the resuming process has
    made, on the study's file where it lies now.
    """

    active: "StudySearcher | None" = None

    def __init__(self, study: Study, concurrent: int) -> None:
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
        if self.study.running >= self._concurrent:
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

    @override
    def restore(self, checkpoint_path: str) -> None:
        """Tune goes on with the trials that had not ended when it last stored its own state, which lies beside."""
        stored = tune.ExperimentAnalysis(str(Path(checkpoint_path).parent))
        self.study.go_on(trial.trial_id for trial in stored.trials if not trial.is_finished())


def _active_searcher() -> StudySearcher:
    assert StudySearcher.active is not None, "a sweep is restored through stkd.orchestrator.sweep"
    return StudySearcher.active


def searcher(space: Space, concurrent: int, study: Path, effective: Effective) -> Search:
    """Who chooses the settings of the next trial, seeded. `study` is the file that a searcher which learns writes."""
    if space.trials.searcher == "optuna" and space.search:
        return StudySearcher(Study(study, space.search, space.trials.seed, effective), concurrent)
    return BasicVariantGenerator(random_state=space.trials.seed, max_concurrent=concurrent)


def exhausted(search: Search) -> bool:
    """Whether the searcher has found nothing more to try."""
    return isinstance(search, StudySearcher) and bool(search.study.exhausted)


def scheduler(space: Space) -> TrialScheduler:
    """Who stops weak trials early."""
    rules = space.trials.scheduler
    if rules is None:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="training_iteration",
        metric=SCORE,
        mode="max",
        max_t=space.longest_training,
        grace_period=rules.asha.grace_period,
        reduction_factor=rules.asha.reduction_factor,
    )


def samples(space: Space) -> int:
    """How often Tune draws from the space: a grid is drawn once, and is all its points."""
    return 1 if space.trials.searcher == "grid" else space.trials.count
