"""Tokenised examples and the order in which a training reads them: bucketed by length, padded to the longest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stkd.trainers.examples import Examples

PREDICT_TOKENS = {"cpu": 1024, "cuda": 65_536}
"""Tokens that a device reads at a time: what stays in a core's cache, or keeps a GPU busy."""
BUCKET_BATCHES = 50
"""Batches' worth of shuffled examples that are sorted by length together; more pads less and shuffles less."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads. Shapes: B examples, T tokens of the longest of them."""

    indices: NDArray[np.int64]
    """(B,) positions of the examples in their split."""
    inputs: dict[str, Tensor]
    """`input_ids`, `attention_mask` and what else the model takes, each (B, T)."""
    labels: Tensor
    """(B,) class numbers or float targets; for multi-label (B, C), one or zero for each class."""
    weights: Tensor
    """(B,) one for an example that counts, zero for one that only fills an otherwise empty micro-batch."""


@dataclass(frozen=True)
class EncodedExamples:
    """A tokenised split: all tokens in one row, and where each example starts."""

    input_ids: NDArray[np.int32]
    """(tokens of all examples,)"""
    token_type_ids: NDArray[np.int32] | None
    """(tokens of all examples,), for the models that take it"""
    offsets: NDArray[np.int64]
    """(examples + 1,)"""
    labels: NDArray[np.int64] | NDArray[np.float32]
    """(examples,), or (examples, classes) for multi-label"""
    pad_id: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, (examples,)."""
        return np.diff(self.offsets)

    def subset(self, indices: NDArray[np.int64]) -> "EncodedExamples":
        """The examples at the given positions, in that order."""
        tokens = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices])
        kinds = None if self.token_type_ids is None else self.token_type_ids[tokens]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[indices])])
        return EncodedExamples(self.input_ids[tokens], kinds, offsets, self.labels[indices], self.pad_id)

    def batch(self, indices: NDArray[np.int64], device: torch.device, weights: Sequence[float] | None = None) -> Batch:
        """The examples at the given positions, padded to their longest."""
        lengths = self.lengths[indices]
        present = np.arange(lengths.max())[None, :] < lengths[:, None]
        inputs = {"input_ids": self._padded(self.input_ids, indices, present, self.pad_id)}
        inputs["attention_mask"] = torch.from_numpy(present.astype(np.int64))
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self._padded(self.token_type_ids, indices, present, 0)
        return Batch(
            indices=indices,
            inputs={name: tensor.to(device) for name, tensor in inputs.items()},
            labels=torch.from_numpy(self.labels[indices]).to(device),
            weights=torch.tensor([1.0] * len(indices) if weights is None else weights, device=device),
        )

    def _padded(
        self, row: NDArray[np.int32], indices: NDArray[np.int64], present: NDArray[np.bool_], fill: int
    ) -> Tensor:
        padded = np.full(present.shape, fill, dtype=np.int64)
        padded[present] = np.concatenate([row[self.offsets[i] : self.offsets[i + 1]] for i in indices])
        return torch.from_numpy(padded)

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        arrays: dict[str, NDArray[Any]] = {
            "input_ids": self.input_ids,
            "offsets": self.offsets,
            "labels": self.labels,
        }
        if self.token_type_ids is not None:
            arrays["token_type_ids"] = self.token_type_ids
        save_file(arrays | {"pad_id": np.asarray([self.pad_id])}, path)

    @classmethod
    def load(cls, path: Path) -> "EncodedExamples":
        """Read what `save` wrote: mapped into memory, of which all processes of a node share one copy."""
        arrays: dict[str, NDArray[Any]] = {name: tensor.numpy() for name, tensor in load_file(path).items()}
        return cls(
            arrays["input_ids"],
            arrays.get("token_type_ids"),
            arrays["offsets"],
            arrays["labels"],
            int(arrays["pad_id"][0]),
        )


def encode(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedExamples:
    """Tokenise a split, cutting the longer text of an example first where it has more than `max_length` tokens."""
    encoded = tokenizer(examples.texts, examples.pairs, truncation=True, max_length=max_length)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    kinds = encoded.get("token_type_ids")
    return EncodedExamples(
        input_ids=np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]),
        token_type_ids=None if kinds is None else np.concatenate([np.asarray(row, dtype=np.int32) for row in kinds]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=_labels(examples),
        pad_id=int(tokenizer.pad_token_id),
    )


def _labels(examples: Examples) -> NDArray[np.int64] | NDArray[np.float32]:
    """Class numbers stay whole; scores (examples,) and multi-label targets (examples, classes) are floats."""
    if isinstance(examples.labels[0], int):
        return np.asarray(examples.labels, dtype=np.int64)
    return np.asarray(examples.labels, dtype=np.float32)


def epoch_order(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The global batches of one epoch, the same on every rank: each example once, neighbours in length together.

    Examples are shuffled, sorted by length within buckets of 50 batches, cut into batches, and the batches shuffled.
    """
    generator = np.random.default_rng((seed, epoch))
    shuffled = generator.permutation(len(lengths))
    bucket = batch_size * BUCKET_BATCHES
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(shuffled), bucket):
        members = shuffled[start : start + bucket]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[first : first + batch_size] for first in range(0, len(members), batch_size)]
    return [batches[position] for position in generator.permutation(len(batches))]


def micro_batches(
    batch: NDArray[np.int64], accumulation: int, rank: int, ranks: int
) -> Iterator[tuple[NDArray[np.int64], list[float]]]:
    """One rank's share of a global batch as `accumulation` pairs of positions and weights.

    A share that is empty, because the last batch is short, holds one example of weight zero: all ranks step together.
    """
    shares = np.array_split(batch, accumulation * ranks)
    for share in shares[rank * accumulation : (rank + 1) * accumulation]:
        yield (share, [1.0] * len(share)) if len(share) else (batch[:1], [0.0])


def sorted_batches(lengths: NDArray[np.int64], tokens: int) -> list[NDArray[np.int64]]:
    """All examples, longest first, in batches of at most so many tokens with padding, or of one example.

    For passes in which the order does not matter.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        count = max(1, tokens // int(lengths[order[start]]))
        batches.append(order[start : start + count])
        start += count
    return batches
