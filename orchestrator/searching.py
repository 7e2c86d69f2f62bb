"""The space's search section as Ray Tune's objects."""

from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from stkd.orchestrator.history import SCORE
from stkd.search_spaces.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform
from stkd.search_spaces.schema import Space


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


def searcher(space: Space, concurrent: int) -> Searcher | SearchAlgorithm:
    """Who chooses the settings of the next trial, seeded."""
    if space.trials.searcher == "optuna" and space.search:
        suggest = OptunaSearch(metric=SCORE, mode="max", seed=space.trials.seed)
        return ConcurrencyLimiter(suggest, max_concurrent=concurrent)
    return BasicVariantGenerator(random_state=space.trials.seed, max_concurrent=concurrent)


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
