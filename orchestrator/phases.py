"""What is trained: the points of a search that does not learn, the controls, and the finalists over fresh seeds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

from stkd.orchestrator.results import Phase, Role, TaskResults, TrialResult, Values
from stkd.search_spaces.distributions import Value
from stkd.search_spaces.schema import Space, setting_of

SPARSITY, TEMPERATURE, INTERPOLATION = "distillation.sparsity", "distillation.temperature", "distillation.interpolation"
HARD_WEIGHT, SCORER, SEED = "distillation.hard_weight", "distillation.scorer", "training.seed"
GOES_ON_WITH = "goes_on_with"
"""In a trial's configuration: the trial of the interrupted sweep that it goes on with."""
TEACHER_SETTINGS = {SPARSITY, TEMPERATURE, INTERPOLATION, HARD_WEIGHT, SCORER}


@dataclass(frozen=True)
class Planned:
    """A trial whose settings are given, not asked for when its turn comes."""

    phase: Phase
    role: Role
    values: Values

    def as_config(self) -> dict[str, Any]:
        """The trial as Ray Tune's configuration."""
        return {"planned": {"phase": self.phase, "role": self.role, "values": dict(self.values)}}


def values_of(config: Mapping[str, Any], space: Space) -> dict[str, Value]:
    """A trial's settings from Ray Tune's configuration: given ones as they are, drawn ones cleaned of rounding."""
    if "planned" in config:
        return dict(config["planned"]["values"])
    return {key: space.search[key].clean(value) for key, value in config.items() if key != GOES_ON_WITH}


def name_of(trial: str, config: Mapping[str, Any]) -> str:
    """What the results call a trial that Ray Tune calls `trial`: its own name, or that of the one it goes on with."""
    return str(config.get(GOES_ON_WITH, trial))


def role_of(config: Mapping[str, Any]) -> Role:
    """What a trial is for, from Ray Tune's configuration."""
    role: Role = config["planned"]["role"] if "planned" in config else "candidate"
    return role


def phase_of(config: Mapping[str, Any]) -> Phase:
    """What phase a trial belongs to, from Ray Tune's configuration."""
    phase: Phase = config["planned"]["phase"] if "planned" in config else "search"
    return phase


def drawn(space: Space) -> list[Planned]:
    """The trials of a search that does not learn: every point of a grid, or as many as asked for by chance, seeded."""
    if space.trials.searcher == "grid":
        points = product(*(searched.grid() or () for searched in space.search.values()))
        return [Planned("search", "candidate", dict(zip(space.search, point, strict=True))) for point in points]
    rng = Random(space.trials.seed)  # noqa: S311 (no secret depends on it)
    return [
        Planned("search", "candidate", {key: searched.draw(rng) for key, searched in space.search.items()})
        for _ in range(space.trials.count)
    ]


def controls(space: Space, results: TaskResults) -> list[Planned]:
    """What the search's best student must beat, each trained to the end with the best trial's training settings.

    The student that learns from labels alone; of the dense teacher, at each temperature that could be its best; and of
    a teacher that lacks as many units as the best sparse one, chosen by chance. Empty without a student to compare.
    """
    ranked = results.ranked()
    if not ranked:
        return []
    best = _full(space, ranked[0])
    sparse = next((values for trial in ranked if (values := _full(space, trial))[SPARSITY]), None)
    training = {key: value for key, value in best.items() if key not in TEACHER_SETTINGS}
    planned = [Planned("control", "no teacher", {**training, SPARSITY: 0.0, HARD_WEIGHT: 1.0})]
    planned += [
        Planned("control", "dense teacher", {**training, SPARSITY: 0.0, TEMPERATURE: temperature})
        for temperature in _temperatures(space, best)
    ]
    if sparse is not None:
        kept = {key: value for key, value in sparse.items() if key != INTERPOLATION}
        planned.append(Planned("control", "random teacher", {**kept, SCORER: "random"}))
    return planned


def _full(space: Space, trial: TrialResult) -> dict[str, Value]:
    """A candidate's settings by their full keys, with the temperature and sparsity that it did not search for."""
    drawn = {".".join(setting_of(key)): value for key, value in trial.values.items()}
    fixed = {SPARSITY: space.distillation.sparsity, TEMPERATURE: space.distillation.temperature}
    return {**fixed, **drawn}


def _temperatures(space: Space, best: Mapping[str, Value]) -> list[float]:
    """Where the dense teacher's best temperature is looked for: the trial student's, the best trial's, the extremes."""
    searched = [values for key, values in space.search.items() if ".".join(setting_of(key)) == TEMPERATURE]
    extremes = [value for distribution in searched for value in distribution.extremes()]
    found = (space.scoring.temperature, best[TEMPERATURE], *extremes)
    return sorted({float(value) for value in found if isinstance(value, int | float)})


def confirmations(space: Space, results: TaskResults) -> list[Planned]:
    """The finalists and the best control of each role, each over the same fresh seeds; empty unless asked for."""
    if space.confirm is None:
        return []
    finalists = [
        Planned("confirm", "candidate", _full(space, trial))
        for trial in _distinct(results.ranked())[: space.confirm.top]
    ]
    best_controls = {
        trial.role: Planned("confirm", trial.role, trial.values) for trial in reversed(results.ranked("control"))
    }
    seeds = range(space.training.seed + 1, space.training.seed + 1 + space.confirm.seeds)
    return [
        Planned("confirm", planned.role, {**planned.values, SEED: seed})
        for planned in (*finalists, *best_controls.values())
        for seed in seeds
    ]


def _distinct(ranked: Iterable[TrialResult]) -> list[TrialResult]:
    """One trial of those whose settings came to the same student."""
    return list({trial.student: trial for trial in ranked}.values())
