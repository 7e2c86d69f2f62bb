"""How much each searched setting mattered: Optuna's importances, over a task's study."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from stkd.orchestrator.curves import Curve
from stkd.orchestrator.results import TrialResult
from stkd.orchestrator.study import NAME, distribution_of
from stkd.search_spaces.distributions import Distribution

FEWEST = 6
"""Trials below which nothing is said: a forest of trees finds something in any five points."""

MOST = 150
"""Trials above which as many are drawn by chance: what it takes grows with their square."""


@dataclass(frozen=True)
class Importances:
    """The share of the scores' variance that each setting explains, alone and with others, over so many trials."""

    at: str
    trials: int
    shares: Mapping[str, float]


def importances(
    study: Path, search: Mapping[str, Distribution], trials: list[TrialResult], curves: Mapping[str, Curve]
) -> list[Importances]:
    """Of the scores at the end, over trials that came there; and of those after the first epoch, over all trials.

    Only what ends alike can be compared: a trial that was stopped early scores low because it was stopped. Empty where
    there are too few trials, or nothing that was searched differs.
    """
    told = _told(study) if study.is_file() else _as_told(search, trials, curves)
    finished = {trial.number: trial.value for trial in told if trial.state is TrialState.COMPLETE}
    first = {trial.number: trial.intermediate_values[1] for trial in told if 1 in trial.intermediate_values}
    found = [_shares("at the end", told, finished)]
    if first.keys() - finished.keys():
        found.append(_shares("after the first epoch", told, first))
    return [shares for shares in found if shares is not None]


def _shares(at: str, told: Iterable[FrozenTrial], scores: Mapping[int, float]) -> Importances | None:
    if len(scores) < FEWEST or len(set(scores.values())) == 1:
        return None
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # loads scikit-learn

    drawn = set(Random(0).sample(sorted(scores), min(MOST, len(scores))))  # noqa: S311 (no secret depends on it)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        create_trial(value=scores[trial.number], params=trial.params, distributions=trial.distributions)
        for trial in told
        if trial.number in drawn
    )
    return Importances(at, len(drawn), get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0)))


def _told(path: Path) -> list[FrozenTrial]:
    """The trials of a stored study, with those that were answered from what was known."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    trials: list[FrozenTrial] = optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False)
    return trials


def _as_told(
    search: Mapping[str, Distribution], trials: list[TrialResult], curves: Mapping[str, Curve]
) -> list[FrozenTrial]:
    """Trials of a search that keeps no study, as one would hold them."""
    distributions = {key: distribution_of(searched) for key, searched in search.items()}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        create_trial(
            state=TrialState.COMPLETE if trial.status == "finished" else TrialState.PRUNED,
            value=trial.score if trial.status == "finished" else None,
            params=dict(trial.values),
            distributions=distributions,
            intermediate_values={
                epoch: metrics["best_score"] for epoch, metrics in curves.get(trial.trial, {}).items()
            },
        )
        for trial in trials
        if trial.student
    )
    told: list[FrozenTrial] = study.get_trials(deepcopy=False)
    return told
