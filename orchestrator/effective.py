"""What a trial's settings come to, found without running it."""

from functools import cached_property
from typing import TYPE_CHECKING

from stkd.orchestrator.study import Settings
from stkd.orchestrator.trial import TrialPlan

if TYPE_CHECKING:
    from stkd.trainers.scores import UnitScores


class EffectiveSettings:
    """Names the student that settings lead to, as the artifact of its trial is named.

    Settings that differ in name only come to the same: any lambda where nothing is removed, or two of them that remove
    the same units.
    """

    def __init__(self, plan: TrialPlan) -> None:
        self._plan = plan

    def __call__(self, settings: Settings) -> str:
        """The name, equal for settings that lead to the same student."""
        space = self._plan.space.with_values(settings)
        mask = self._scores.mask(space.distillation.interpolation, space.distillation.sparsity)
        return self._plan.store.path("trial", self._plan.inputs(space, mask.name)).name

    @cached_property
    def _scores(self) -> "UnitScores":
        from stkd.trainers.scores import SCORES, UnitScores  # torch: seconds that only a search spends

        return UnitScores.load(self._plan.scores / SCORES)
