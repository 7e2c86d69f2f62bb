"""Expressiveness and friendliness of a teacher's units.

Source: Yang, Zhang, Song: Sparse Teachers Can Be Dense with Knowledge (EMNLP 2022), section 3.
Shapes: L layers, H heads of a layer, N FFN neurons of a layer, D channels of a head, B examples, T tokens, C classes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stkd.trainers.batches import Batch
from stkd.trainers.families import encoder_layers, family_of, linear
from stkd.trainers.losses import imitation_losses, task_losses
from stkd.trainers.ranking import UnitScores
from stkd.trainers.tasks import Kind
from stkd.trainers.units import UnitMask, owned_by_heads, owned_by_neurons

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
    its tokens and channels of activation times gradient of the activation, per example and exactly.
    """
    sums: list[Tensor] | None = None
    count = 0
    with _frozen(teacher), _projection_inputs(teacher) as activations:
        for batch in batches:
            activations.clear()
            logits = teacher(**batch.inputs).logits
            losses = [task_losses(logits, batch.labels, kind)]
            if student_logits is not None:
                losses.append(imitation_losses(student_logits(batch), logits, kind, temperature) / 2)
            found = [
                part
                for loss in losses
                for part in _absolute_mask_gradients(loss, activations, teacher.config.num_attention_heads, reduction)
            ]
            sums = found if sums is None else [total + part for total, part in zip(sums, found, strict=True)]
            count += len(batch.labels) if reduction == "example" else 1
    if sums is None:
        raise ValueError("no batch to score on")
    gradients = [total.cpu() / count for total in sums]
    if student_logits is None:
        gradients += [torch.zeros_like(expressiveness) for expressiveness in gradients]
    return UnitScores(*(part.float().numpy() for part in [*gradients, *magnitudes(teacher)]))


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


def _absolute_mask_gradients(
    losses: Tensor, activations: list[Tensor], head_count: int, reduction: Literal["example", "batch"]
) -> tuple[Tensor, Tensor]:
    """Sums over the batch of absolute mask gradients: heads (L, H) and neurons (L, N)."""
    total = losses.sum() if reduction == "example" else losses.mean()
    gradients = torch.autograd.grad(total, activations, retain_graph=True)
    # (B, T, channels) -> (B, channels): the mask is shared by all tokens
    products = [(value * slope).sum(dim=1) for value, slope in zip(activations, gradients, strict=True)]
    heads = torch.stack([product.reshape(len(product), head_count, -1).sum(dim=2) for product in products[0::2]])
    neurons = torch.stack(products[1::2])
    if reduction == "batch":
        return heads.sum(dim=1).abs().detach(), neurons.sum(dim=1).abs().detach()
    return heads.abs().sum(dim=1).detach(), neurons.abs().sum(dim=1).detach()


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
