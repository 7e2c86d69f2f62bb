"""Expressiveness and friendliness of a teacher's units.

Source: Yang, Zhang, Song: Sparse Teachers Can Be Dense with Knowledge (EMNLP 2022), section 3.
Shapes: L layers, H heads of a layer, N FFN neurons of a layer, D channels of a head, B examples, T tokens, C classes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stkd.trainers.batches import Batch, EncodedExamples, sorted_batches
from stkd.trainers.config import ScoringConfig
from stkd.trainers.families import encoder_layers, family_of, linear
from stkd.trainers.losses import imitation_losses, task_losses
from stkd.trainers.pulse import PULSE
from stkd.trainers.ranking import UnitScores
from stkd.trainers.tasks import Kind
from stkd.trainers.units import UnitMask, owned_by_heads, owned_by_neurons

SCORED_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Tokens that a device reads at a time, with all that the way back needs in its cache or memory."""
StudentLogits = Callable[[Batch], Tensor]
"""Gives the trial student's raw logits of a batch, (B, C), without gradient."""


def score_units(
    teacher: PreTrainedModel,
    student_logits: StudentLogits | None,
    batches: Iterable[Batch],
    kind: Kind,
    temperature: float,
    reduction: Literal["example", "batch"] = "example",
) -> UnitScores:
    """Score the teacher's units in one pass over the batches; the teacher is in eval mode and stays as it is.

    `student_logits` gives the trial student's raw logits of a batch, (B, C); without a student, friendliness is zero.
    `reduction` says what an absolute value is taken of: the gradient of each example's loss, or of a batch's mean loss,
    which is what the paper's code does and depends on the batch size.

    Gradients of the masks are never formed by masks: at a mask of one, the gradient of a unit's mask is the sum over
    its tokens and channels of activation times gradient of the activation, per example and exactly. Where the losses
    see the teacher through one number an example, one backward pass serves both: see `_shared_direction`.
    """
    sums: list[Tensor] | None = None
    count = 0
    with _frozen(teacher), _projection_inputs(teacher) as activations:
        for batch in batches:
            activations.clear()
            logits = teacher(**batch.inputs).logits
            slopes = _loss_slopes(logits, batch, student_logits, kind, temperature)
            heads = teacher.config.num_attention_heads
            gradients = _mask_gradients(logits, slopes, _shared_direction(logits, kind), activations, heads)
            found = [_absolute_sum(gradient, reduction) for pair in gradients for gradient in pair]
            sums = found if sums is None else [total + part for total, part in zip(sums, found, strict=True)]
            count += len(batch.labels) if reduction == "example" else 1
            PULSE.step()
    if sums is None:
        raise ValueError("no batch to score on")
    means = [total.cpu() / count for total in sums]
    if student_logits is None:
        means += [torch.zeros_like(expressiveness) for expressiveness in means]
    return UnitScores(*(part.float().numpy() for part in [*means, *magnitudes(teacher)]))


def scoring_batches(data: EncodedExamples, settings: ScoringConfig, device: torch.device) -> Iterator[Batch]:
    """All examples, sorted by length, in batches for `score_units`.

    By tokens where each example's gradient counts on its own, by `settings.batch_size` where a batch's mean does.
    """
    if settings.reduction == "example":
        order = sorted_batches(data.lengths, SCORED_TOKENS[device.type])
    else:
        order = np.array_split(np.argsort(data.lengths, kind="stable"), -(-len(data) // settings.batch_size))
    return (data.batch(indices, device) for indices in order)


def magnitudes(teacher: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """L2 norm of the weights that belong to each unit: rows of its projections, columns of the one that reads it.

    Heads (L, H) and neurons (L, N), on the CPU. Biases do not count.
    """
    family, dense = family_of(teacher), UnitMask.dense(teacher)
    heads, neurons = (torch.arange(units.shape[1]) for units in (dense.heads, dense.neurons))
    layers = encoder_layers(teacher)
    return (
        torch.stack([_norms(layer, owned_by_heads(layer, family, heads), len(heads)) for layer in layers]),
        torch.stack([_norms(layer, owned_by_neurons(layer, family, neurons), len(neurons)) for layer in layers]),
    )


def _norms(layer: nn.Module, owned: Iterable[tuple[str, int, Tensor]], count: int) -> Tensor:
    """L2 norms over matrices of which each row or column has an owner, by owner: (count,)."""
    squares = torch.zeros(count)
    for name, dimension, owners in owned:
        weights = layer.get_parameter(name).detach().float().cpu()
        if weights.dim() == 2:
            squares.index_add_(0, owners, weights.square().sum(dim=1 - dimension))
    return squares.sqrt()


def _loss_slopes(
    logits: Tensor, batch: Batch, student_logits: StudentLogits | None, kind: Kind, temperature: float
) -> list[Tensor]:
    """Gradients of the task loss and, with a student, of the distillation loss by the teacher's logits: (B, C) each."""
    free = logits.detach().requires_grad_(True)
    losses = [task_losses(free, batch.labels, kind)]
    if student_logits is not None:
        losses.append(imitation_losses(student_logits(batch), free, kind, temperature) / 2)
    return [torch.autograd.grad(loss.sum(), free)[0] for loss in losses]


def _shared_direction(logits: Tensor, kind: Kind) -> Tensor | None:
    """The direction (C,) of the logits along which alone any loss changes; None where there are several.

    There is one with one output, and with two classes: softmax knows their difference only. The gradients of all
    losses by a mask are then the same but for a factor of the example, the slope by the last logit.
    """
    outputs = logits.shape[1]
    if outputs == 1:
        return logits.new_ones(1)
    return logits.new_tensor([-1.0, 1.0]) if kind == "classification" and outputs == 2 else None


def _mask_gradients(
    logits: Tensor, slopes: list[Tensor], direction: Tensor | None, activations: list[Tensor], head_count: int
) -> list[tuple[Tensor, Tensor]]:
    """Each example's gradients by the masks, for each loss: heads (L, B, H) and neurons (L, B, N)."""
    passes = slopes if direction is None else [direction.expand_as(logits)]
    found = []
    for number, slope in enumerate(passes, start=1):
        gradients = torch.autograd.grad(logits, activations, slope, retain_graph=number < len(passes))
        # (B, T, channels) -> (B, channels): the mask is shared by all tokens
        products = [(value.detach() * part).sum(dim=1) for value, part in zip(activations, gradients, strict=True)]
        heads = [product.reshape(len(product), head_count, -1).sum(dim=2) for product in products[0::2]]
        found.append((torch.stack(heads), torch.stack(products[1::2])))
    if direction is None:
        return found
    ((heads_along, neurons_along),) = found
    factors = [slope[:, -1:] for slope in slopes]
    return [(heads_along * factor, neurons_along * factor) for factor in factors]


def _absolute_sum(gradients: Tensor, reduction: Literal["example", "batch"]) -> Tensor:
    """From (L, B, units) to (L, units): the examples' absolute values summed, or the absolute value of their mean."""
    return gradients.abs().sum(dim=1) if reduction == "example" else gradients.mean(dim=1).abs()


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """No parameter asks for a gradient within the context."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


@contextmanager
def _projection_inputs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collects, layer by layer, the inputs of the attention output projection and of the second FFN projection."""
    family = family_of(model)
    collected: list[Tensor] = []

    def collect(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        activation = inputs[0]
        if not activation.requires_grad:  # the first one: everything below it is frozen
            activation = activation.detach().requires_grad_(True)
        collected.append(activation)
        return (activation, *inputs[1:])

    handles = [
        linear(layer, path).register_forward_pre_hook(collect)
        for layer in encoder_layers(model)
        for path in (family.attention_output, family.neurons_output)
    ]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()
