"""What the benches measure against: a good loop written by hand, and the ways of the method's reference implementation.

Nothing of `stkd` computes here but for its batches, masks of units and losses' formulas, which cost nothing.
Shapes: B examples, T tokens, L layers, H heads of a layer, N FFN neurons of a layer.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from stkd.trainers.batches import Batch, EncodedExamples, epoch_order
from stkd.trainers.config import TrainingConfig
from stkd.trainers.families import encoder_layers, family_of, linear

Losses = Callable[[Tensor, Batch], Tensor]
"""From raw logits (B, C) and their batch to one loss an example, (B,)."""


def label_losses(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy against the labels."""
    return functional.cross_entropy(logits.float(), batch.labels, reduction="none")


def reference_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Half the soft cross-entropy at a temperature, times its square, and half the cross-entropy: the batch's mean."""
    soft = functional.softmax(teacher / temperature, dim=-1) * functional.log_softmax(student / temperature, dim=-1)
    return (functional.cross_entropy(student, labels) - temperature**2 * soft.sum(dim=-1).mean()) / 2


class PlainLoop:
    """The loop that a good engineer writes with PyTorch and transformers, without a teacher.

    Batches are those of stkd, by length and padded to their longest; autocast where the hardware has bf16, fused AdamW
    without weight decay on norms and biases, a linear schedule with warm-up, gradients clipped.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        data: EncodedExamples,
        training: TrainingConfig,
        bf16: bool,
        losses: Losses = label_losses,
    ) -> None:
        self.model = model
        self._data, self._training, self._bf16, self._losses = data, training, bf16, losses
        self._tokens = [torch.from_numpy(row.astype(np.int64)) for row in np.split(data.input_ids, data.offsets[1:-1])]
        self._labels = torch.from_numpy(data.labels)
        steps = -(-len(data) // training.batch_size) * training.epochs
        self._optimizer = torch.optim.AdamW(_groups(model, training.weight_decay), training.learning_rate, fused=True)
        warmup = round(training.warmup * steps)
        self._schedule = get_linear_schedule_with_warmup(self._optimizer, warmup, steps)
        self._epoch = 0

    def run_epoch(self) -> list[float]:
        """Train on every example once; returns the loss of each step."""
        training = self._training
        self.model.train()
        torch.manual_seed(training.seed * 1_000_003 + self._epoch * 1009)
        order = epoch_order(self._data.lengths, training.batch_size, training.seed, self._epoch)
        losses = [self._step(self._batch(indices)) for indices in order]
        self._epoch += 1
        return [float(loss) for loss in torch.stack(losses).tolist()]

    def _step(self, batch: Batch) -> Tensor:
        with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=self._bf16):
            logits = self.model(**batch.inputs).logits
        loss = self._losses(logits, batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self.model.parameters(), self._training.gradient_clipping)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _batch(self, indices: NDArray[np.int64]) -> Batch:
        device = self.model.device
        tokens = [self._tokens[index] for index in indices]
        padded = pad_sequence(tokens, batch_first=True, padding_value=self._data.pad_id)
        present = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
        inputs = {"input_ids": padded.to(device), "attention_mask": present.to(device)}
        labels = self._labels[torch.from_numpy(indices)].to(device)
        return Batch(indices, inputs, labels, torch.ones(len(indices)))


def _groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, object]]:
    parameters = list(model.parameters())
    return [
        {"params": [weight for weight in parameters if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in parameters if weight.ndim == 1], "weight_decay": 0.0},
    ]


def padded_batches(
    data: EncodedExamples, batch_size: int, longest: int, seed: int | None = None
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """All examples once, in fp32's and the reference's way: in random order, each padded to `longest` tokens."""
    order = np.arange(len(data)) if seed is None else np.random.default_rng(seed).permutation(len(data))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        ids = np.full((len(indices), longest), data.pad_id, dtype=np.int64)
        for row, index in zip(ids, indices, strict=True):
            tokens = data.input_ids[data.offsets[index] : data.offsets[index + 1]]
            row[: len(tokens)] = tokens
        present = np.arange(longest)[None, :] < data.lengths[indices][:, None]
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(present.astype(np.int64))}
        yield inputs, torch.from_numpy(data.labels[indices])


class ReferenceLoop:
    """Training as the reference implementation does it: fp32, padded to the maximum, the teacher asked at each step.

    Without a teacher it fine-tunes. The optimizer is PyTorch's as it comes.
    """

    def __init__(
        self, model: PreTrainedModel, teacher: PreTrainedModel | None, steps: int, temperature: float = 2.0
    ) -> None:
        self._model, self._teacher, self._temperature = model, teacher, temperature
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
        self._schedule = get_linear_schedule_with_warmup(self._optimizer, steps // 10, steps)

    def train(self, batches: Iterable[tuple[dict[str, Tensor], Tensor]]) -> None:
        """A step on each of the batches."""
        self._model.train()
        for inputs, labels in batches:
            logits = self._model(**inputs).logits
            loss = functional.cross_entropy(logits, labels)
            if self._teacher is not None:
                with torch.no_grad():
                    wanted = self._teacher(**inputs).logits
                loss = reference_loss(logits, wanted, labels, self._temperature)
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()


def mask_gradients(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    batches: Iterable[tuple[dict[str, Tensor], Tensor]],
    temperature: float,
) -> list[Tensor]:
    """Expressiveness of heads (L, H) and neurons (L, N), then friendliness, by masks that ask for gradients.

    All of the teacher's parameters ask for gradients, too, as they do in a model that was just loaded; each loss has
    its own full backward pass. Absolute values are taken of a batch's mean, as in the paper's code.
    """
    layers, heads = len(encoder_layers(teacher)), int(teacher.config.num_attention_heads)
    neurons = linear(encoder_layers(teacher)[0], family_of(teacher).neurons_output).in_features
    masks = (torch.ones(layers, heads, requires_grad=True), torch.ones(layers, neurons, requires_grad=True))
    sums = [torch.zeros_like(mask) for _ in range(2) for mask in masks]
    count = 0
    with _masks(teacher, *masks):
        for inputs, labels in batches:
            logits = teacher(**inputs).logits
            with torch.no_grad():
                followed = student(**inputs).logits
            losses = [functional.cross_entropy(logits, labels), _friendliness_loss(followed, logits, temperature)]
            for number, loss in enumerate(losses):
                loss.backward(retain_graph=number == 0)  # type: ignore[no-untyped-call]
                for total, mask in zip(sums[2 * number :], masks, strict=False):
                    assert mask.grad is not None
                    total += mask.grad.abs()
                    mask.grad = None
                teacher.zero_grad()
            count += 1
    return [total / count for total in sums]


def _friendliness_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    soft = functional.softmax(teacher / temperature, dim=-1) * functional.log_softmax(student / temperature, dim=-1)
    return -(temperature**2) * soft.sum(dim=-1).mean() / 2


@contextmanager
def _masks(model: PreTrainedModel, heads: Tensor, neurons: Tensor) -> Iterator[None]:
    """The model multiplies what its units give by the masks."""
    family, handles = family_of(model), []
    for layer, of_heads, of_neurons in zip(encoder_layers(model), heads, neurons, strict=True):
        for path, mask in ((family.attention_output, of_heads), (family.neurons_output, of_neurons)):
            handles.append(linear(layer, path).register_forward_pre_hook(_multiply_by(mask)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiply_by(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def multiply(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        width = inputs[0].shape[-1] // len(mask)
        return (inputs[0] * mask.repeat_interleave(width), *inputs[1:])

    return multiply
