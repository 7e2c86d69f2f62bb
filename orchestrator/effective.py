"""What a trial's settings come to, found without running it."""

from functools import cache
from pathlib import Path

from stkd.orchestrator.study import Settings
from stkd.orchestrator.trial import TrialPlan
from stkd.trainers.ranking import UnitScores, mask_name
from stkd.trainers.specs import SCORES


class EffectiveSettings:
    """Names the student that settings lead to, as the artifact of its trial is named.

    Settings that differ in name only come to the same: any lambda where nothing is removed, or two of them that remove
    the same units.
    """

    def __init__(self, plan: TrialPlan) -> None:
        self._plan = plan
        self._scores = cache(self._load)

    def __call__(self, settings: Settings) -> str:
        """The name, equal for settings that lead to the same student."""
        space = self._plan.space.with_values(settings)
        scores = self._scores(self._plan.shared.of(space.student).scores)
        mask = mask_name(*scores.kept(space.distillation, space.training.seed))
        return self._plan.store.path("trial", self._plan.inputs(space, mask)).name

    @staticmethod
    def _load(folder: Path) -> UnitScores:
        return UnitScores.load(folder / SCORES)
