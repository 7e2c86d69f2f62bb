"""What a trial's settings come to, found without running it."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from stkd.orchestrator.study import Settings
from stkd.orchestrator.trial import TrialPlan
from stkd.trainers.ranking import SCORES, highest, mask_name, mixed


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
        mask = self._mask(space.distillation.interpolation, space.distillation.sparsity)
        return self._plan.store.path("trial", self._plan.inputs(space, mask)).name

    def _mask(self, interpolation: float, sparsity: float) -> str:
        heads, neurons = (
            highest(
                mixed(self._scores[f"{units}_expressiveness"], self._scores[f"{units}_friendliness"], interpolation),
                sparsity,
            )
            for units in ("head", "neuron")
        )
        return mask_name(heads, neurons)

    @cached_property
    def _scores(self) -> dict[str, NDArray[np.float32]]:
        scores: dict[str, NDArray[np.float32]] = load_file(self._plan.scores / SCORES)
        return scores
