"""How the scores of a teacher's units lie in its layers: the numbers that `stkd score` shows.

Shapes: L layers, U units of a layer: its heads, or its FFN neurons.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stkd.trainers.config import DistillationConfig, Scorer
from stkd.trainers.metrics import METRICS
from stkd.trainers.ranking import Mask, Scores, UnitScores, normalised

SPARSITIES = (0.3, 0.5, 0.7)
"""What is shown where the settings themselves remove nothing."""


@dataclass(frozen=True)
class LayerReport:
    """One layer, numbered from 1, which is next to the embeddings."""

    layer: int
    expressiveness: float
    friendliness: float
    knowledge: float
    """The layer's share of what all layers have, in 0..1; knowledge is that of layers at norm one."""
    removed: tuple[int, ...]
    """How many of its units go, at each of the report's sparsities."""


@dataclass(frozen=True)
class UnitsReport:
    """The heads of all layers, or the neurons."""

    units: int
    """Of one layer."""
    sparsities: tuple[float, ...]
    layers: tuple[LayerReport, ...]
    correlation: float
    """Spearman's, between expressiveness and friendliness at layer norm one: at 1, every lambda ranks alike. It is 0
    where one of them is the same for all units."""


@dataclass(frozen=True)
class ScoreReport:
    """The scores of one teacher, for one kind of student."""

    interpolation: float
    scorer: Scorer
    heads: UnitsReport
    neurons: UnitsReport

    @classmethod
    def of(cls, scores: UnitScores, settings: DistillationConfig, seed: int) -> "ScoreReport":
        """Reads the scores as trials with these settings do; `seed` is for the scorer `random` alone."""
        head_sparsities = _shown(settings.sparsity if settings.head_sparsity is None else settings.head_sparsity)
        neuron_sparsities = _shown(settings.sparsity if settings.neuron_sparsity is None else settings.neuron_sparsity)
        kept = {
            sparsity: scores.kept(_at(settings, sparsity), seed) for sparsity in {*head_sparsities, *neuron_sparsities}
        }
        heads, neurons = scores.knowledge(settings.interpolation)
        kept_heads = {sparsity: kept[sparsity][0] for sparsity in head_sparsities}
        kept_neurons = {sparsity: kept[sparsity][1] for sparsity in neuron_sparsities}
        return cls(
            settings.interpolation,
            settings.scorer,
            _report(scores.head_expressiveness, scores.head_friendliness, heads, kept_heads),
            _report(scores.neuron_expressiveness, scores.neuron_friendliness, neurons, kept_neurons),
        )


def _shown(sparsity: float) -> tuple[float, ...]:
    return (sparsity,) if sparsity else SPARSITIES


def _at(settings: DistillationConfig, sparsity: float) -> DistillationConfig:
    return settings.model_copy(update={"head_sparsity": sparsity, "neuron_sparsity": sparsity})


def _report(expressiveness: Scores, friendliness: Scores, knowledge: Scores, kept: Mapping[float, Mask]) -> UnitsReport:
    """From scores (L, U), and the mask (L, U) of each sparsity."""
    removed = np.stack([(~mask).sum(axis=1) for mask in kept.values()], axis=1)
    shares = zip(_shares(expressiveness), _shares(friendliness), _shares(knowledge), removed.tolist(), strict=True)
    layers = (LayerReport(number, e, f, k, tuple(gone)) for number, (e, f, k, gone) in enumerate(shares, start=1))
    correlation = METRICS["spearman"](normalised(expressiveness).ravel(), normalised(friendliness).ravel())
    return UnitsReport(expressiveness.shape[1], tuple(kept), tuple(layers), correlation)


def _shares(scores: Scores) -> list[float]:
    """Each layer's share of the sum of all; nothing where there is nothing to share."""
    sums = scores.sum(axis=1, dtype=np.float64)
    shares: list[float] = (sums / (sums.sum() or 1.0)).tolist()
    return shares
