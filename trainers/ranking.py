"""From the scores of a teacher's units to those that a sparse teacher keeps: plain numbers, for planners without torch.

Source: Yang, Zhang, Song: Sparse Teachers Can Be Dense with Knowledge (EMNLP 2022), section 3.
Shapes: L layers, U units of a layer: its H heads, or its N FFN neurons.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from stkd.trainers.config import DistillationConfig

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

EPSILON = 1e-7
"""Added to a layer's norm, as in the reference implementation."""


@dataclass(frozen=True)
class UnitScores:
    """Raw scores of the teacher's units, heads (L, H) and neurons (L, N).

    Expressiveness and friendliness are mean absolute gradients of the units' masks, magnitude is the L2 norm of the
    weights that belong to a unit.
    """

    head_expressiveness: Scores
    neuron_expressiveness: Scores
    head_friendliness: Scores
    neuron_friendliness: Scores
    head_magnitude: Scores
    neuron_magnitude: Scores

    def knowledge(self, interpolation: float) -> tuple[Scores, Scores]:
        """K = lambda * E + (1 - lambda) * F of heads (L, H) and neurons (L, N), each of E and F at layer norm one."""
        return (
            _mixed(self.head_expressiveness, self.head_friendliness, interpolation),
            _mixed(self.neuron_expressiveness, self.neuron_friendliness, interpolation),
        )

    def ranked_by(self, settings: DistillationConfig, seed: int) -> tuple[Scores, Scores]:
        """What decides which units go, lowest first: heads (L, H) and neurons (L, N). `seed` is for `random` alone."""
        match settings.scorer:
            case "knowledge":
                return self.knowledge(settings.interpolation)
            case "expressiveness":
                return self.knowledge(1.0)
            case "friendliness":
                return self.knowledge(0.0)
            case "magnitude":
                return normalised(self.head_magnitude), normalised(self.neuron_magnitude)
            case "random":
                generator = np.random.default_rng(seed)
                heads, neurons = (
                    generator.random(scores.shape, dtype=np.float32)
                    for scores in (self.head_magnitude, self.neuron_magnitude)
                )
                return heads, neurons

    def kept(self, settings: DistillationConfig, seed: int = 0) -> tuple[Mask, Mask]:
        """Which units stay, heads (L, H) and neurons (L, N): the lowest go, ranked over all layers together."""
        heads, neurons = self.ranked_by(settings, seed)
        head_sparsity = settings.sparsity if settings.head_sparsity is None else settings.head_sparsity
        neuron_sparsity = settings.sparsity if settings.neuron_sparsity is None else settings.neuron_sparsity
        kept = _highest(neurons, neuron_sparsity)
        return _highest(heads, head_sparsity), _in_multiples(neurons, kept, settings.neuron_multiple)

    def save(self, path: Path) -> None:
        """Write the scores as safetensors."""
        save_file({field.name: getattr(self, field.name) for field in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "UnitScores":
        """Read what `save` wrote."""
        return cls(**load_file(path))


def mask_name(heads: Mask, neurons: Mask) -> str:
    """What names the sparse teacher that keeps these: equal for equal masks, and readable where every unit stays."""
    if heads.all() and neurons.all():
        return "dense"
    digest = hashlib.sha256(repr((heads.shape, neurons.shape)).encode())
    digest.update(heads.tobytes() + neurons.tobytes())
    return digest.hexdigest()[:16]


def normalised(scores: Scores) -> Scores:
    """Each layer (row) of (L, U) divided by its L2 norm."""
    norms: Scores = np.linalg.norm(scores, axis=1, keepdims=True)
    return scores / (norms + np.float32(EPSILON))


def _mixed(expressiveness: Scores, friendliness: Scores, interpolation: float) -> Scores:
    return interpolation * normalised(expressiveness) + (1.0 - interpolation) * normalised(friendliness)


def _highest(ranks: Scores, sparsity: float) -> Mask:
    """Mask (L, U) without the lowest `round(sparsity * count)` entries, ranked over all layers; ties by position."""
    kept = np.ones(ranks.size, dtype=np.bool_)
    kept[np.argsort(ranks, axis=None, kind="stable")[: round(sparsity * ranks.size)]] = False
    return kept.reshape(ranks.shape)


def _in_multiples(ranks: Scores, kept: Mask, multiple: int) -> Mask:
    """The mask (L, U) in which each layer has lost its lowest units: the multiple nearest to what it lost in `kept`."""
    if multiple == 1:
        return kept
    removed = (~kept).sum(axis=1)
    rounded = np.minimum((removed + multiple // 2) // multiple * multiple, kept.shape[1])
    places = np.argsort(np.argsort(ranks, axis=1, kind="stable"), axis=1)
    in_multiples: Mask = places >= rounded[:, None]
    return in_multiples
