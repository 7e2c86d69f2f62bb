"""From the scores of a teacher's units to the mask of those that a sparse teacher keeps.

Source: Yang, Zhang, Song: Sparse Teachers Can Be Dense with Knowledge (EMNLP 2022), section 3.
Shapes: L layers, H heads of a layer, N FFN neurons of a layer.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stkd.trainers.config import DistillationConfig
from stkd.trainers.units import UnitMask

EPSILON = 1e-7
"""Added to a layer's norm, as in the reference implementation."""


@dataclass(frozen=True)
class UnitScores:
    """Raw scores of the teacher's units, heads (L, H) and neurons (L, N).

    Expressiveness and friendliness are mean absolute gradients of the units' masks, magnitude is the L2 norm of the
    weights that belong to a unit.
    """

    head_expressiveness: Tensor
    neuron_expressiveness: Tensor
    head_friendliness: Tensor
    neuron_friendliness: Tensor
    head_magnitude: Tensor
    neuron_magnitude: Tensor

    def knowledge(self, interpolation: float) -> tuple[Tensor, Tensor]:
        """K = lambda * E + (1 - lambda) * F of heads (L, H) and neurons (L, N), each of E and F at layer norm one."""
        return (
            _mix(self.head_expressiveness, self.head_friendliness, interpolation),
            _mix(self.neuron_expressiveness, self.neuron_friendliness, interpolation),
        )

    def ranked_by(self, settings: DistillationConfig, seed: int) -> tuple[Tensor, Tensor]:
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
                generator = torch.Generator().manual_seed(seed)
                shapes = self.head_magnitude.shape, self.neuron_magnitude.shape
                return torch.rand(shapes[0], generator=generator), torch.rand(shapes[1], generator=generator)

    def mask(self, settings: DistillationConfig, seed: int = 0) -> UnitMask:
        """The mask of a sparse teacher: its lowest units go, over all layers together, heads and neurons apart."""
        heads, neurons = self.ranked_by(settings, seed)
        head_sparsity = settings.sparsity if settings.head_sparsity is None else settings.head_sparsity
        neuron_sparsity = settings.sparsity if settings.neuron_sparsity is None else settings.neuron_sparsity
        kept = _keep_highest(neurons, neuron_sparsity)
        return UnitMask(_keep_highest(heads, head_sparsity), _in_multiples(neurons, kept, settings.neuron_multiple))

    def save(self, path: Path) -> None:
        """Write the scores as safetensors."""
        save_file({field.name: getattr(self, field.name) for field in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "UnitScores":
        """Read what `save` wrote."""
        return cls(**load_file(path))


def normalised(scores: Tensor) -> Tensor:
    """Each layer (row) divided by its L2 norm."""
    norms: Tensor = torch.linalg.vector_norm(scores, dim=1, keepdim=True)
    return scores / (norms + EPSILON)


def _mix(expressiveness: Tensor, friendliness: Tensor, interpolation: float) -> Tensor:
    return interpolation * normalised(expressiveness) + (1.0 - interpolation) * normalised(friendliness)


def _keep_highest(knowledge: Tensor, sparsity: float) -> Tensor:
    """Boolean mask, shaped like `knowledge`, without the lowest `round(sparsity * count)` entries; ties by position."""
    ranking = torch.sort(knowledge.flatten(), stable=True).indices
    kept = torch.ones(knowledge.numel(), dtype=torch.bool)
    kept[ranking[: round(sparsity * knowledge.numel())]] = False
    return kept.view_as(knowledge)


def _in_multiples(ranks: Tensor, kept: Tensor, multiple: int) -> Tensor:
    """The mask in which each layer has lost the multiple nearest to its own number of units, its lowest ones (L, N)."""
    if multiple == 1:
        return kept
    removed = (~kept).sum(dim=1).double()
    # of two multiples equally near, the lower one
    rounded = ((removed / multiple - 0.5).ceil() * multiple).clamp(max=kept.shape[1]).long()
    places = torch.sort(torch.sort(ranks, dim=1, stable=True).indices, dim=1).indices
    return places >= rounded[:, None]
