"""Which units a sparse teacher keeps, from their scores: plain numbers, for whoever plans trials without torch.

Source: Yang, Zhang, Song: Sparse Teachers Can Be Dense with Knowledge (EMNLP 2022), section 3.
Shapes: L layers, U units of a layer: its heads, or its neurons.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

SCORES = "scores.safetensors"
"""The file with the scores of a teacher's heads and neurons."""
EPSILON = 1e-7
"""Added to a layer's norm, as in the reference implementation."""


def normalised(scores: Scores) -> Scores:
    """Each layer (row) of (L, U) divided by its L2 norm."""
    norms: Scores = np.linalg.norm(scores, axis=1, keepdims=True)
    return scores / (norms + np.float32(EPSILON))


def mixed(expressiveness: Scores, friendliness: Scores, interpolation: float) -> Scores:
    """Knowledge K = lambda * E + (1 - lambda) * F, (L, U), each of E and F at layer norm one."""
    return interpolation * normalised(expressiveness) + (1.0 - interpolation) * normalised(friendliness)


def highest(knowledge: Scores, sparsity: float) -> Mask:
    """Mask (L, U) without the lowest `round(sparsity * count)` entries, ranked over all layers; ties by position."""
    kept = np.ones(knowledge.size, dtype=np.bool_)
    kept[np.argsort(knowledge, axis=None, kind="stable")[: round(sparsity * knowledge.size)]] = False
    return kept.reshape(knowledge.shape)


def mask_name(heads: Mask, neurons: Mask) -> str:
    """What names the sparse teacher that keeps these: equal for equal masks, and readable where every unit stays."""
    if heads.all() and neurons.all():
        return "dense"
    digest = hashlib.sha256(repr((heads.shape, neurons.shape)).encode())
    digest.update(heads.tobytes() + neurons.tobytes())
    return digest.hexdigest()[:16]
