"""Expressiveness and friendliness of a teacher's units, and the sparse teachers that they lead to.

Source: Yang, Zhang, Song: Sparse Teachers Can Be Dense with Knowledge (EMNLP 2022), section 3.
Shapes: L layers, H heads of a layer, N FFN neurons of a layer, D channels of a head, B examples, T tokens, C classes.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from stkd.trainers.batches import Batch
from stkd.trainers.families import encoder_layers, family_of, linear
from stkd.trainers.losses import Kind, imitation_losses, task_losses
from stkd.trainers.ranking import highest, mixed
from stkd.trainers.units import UnitMask


@dataclass(frozen=True)
class UnitScores:
    """Raw scores of the teacher's units: mean absolute gradients of their masks, heads (L, H) and neurons (L, N)."""

    head_expressiveness: Tensor
    neuron_expressiveness: Tensor
    head_friendliness: Tensor
    neuron_friendliness: Tensor

    def knowledge(self, interpolation: float) -> tuple[Tensor, Tensor]:
        """K = lambda * E + (1 - lambda) * F of heads (L, H) and neurons (L, N), each of E and F at layer norm one."""
        return (
            _mix(self.head_expressiveness, self.head_friendliness, interpolation),
            _mix(self.neuron_expressiveness, self.neuron_friendliness, interpolation),
        )

    def mask(self, interpolation: float, sparsity: float) -> UnitMask:
        """The mask without the share `sparsity` of heads, and of neurons: lowest knowledge first, over all layers."""
        heads, neurons = self.knowledge(interpolation)
        return UnitMask(*(torch.from_numpy(highest(part.numpy(), sparsity)) for part in (heads, neurons)))

    def save(self, path: Path) -> None:
        """Write the scores as safetensors."""
        save_file({field.name: getattr(self, field.name) for field in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "UnitScores":
        """Read what `save` wrote."""
        return cls(**load_file(path))


def score_units(
    teacher: PreTrainedModel,
    trial_student: PreTrainedModel,
    batches: Iterable[Batch],
    kind: Kind,
    temperature: float,
    reduction: Literal["example", "batch"] = "example",
) -> UnitScores:
    """Score the teacher's units in one pass over the batches; both models are in eval mode and stay as they are.

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
            with torch.no_grad():
                student_logits = trial_student(**batch.inputs).logits
            losses = (
                task_losses(logits, batch.labels, kind),
                imitation_losses(student_logits, logits, kind, temperature) / 2,
            )
            found = [
                part
                for loss in losses
                for part in _absolute_mask_gradients(loss, activations, teacher.config.num_attention_heads, reduction)
            ]
            sums = found if sums is None else [total + part for total, part in zip(sums, found, strict=True)]
            count += len(batch.labels) if reduction == "example" else 1
    if sums is None:
        raise ValueError("no batch to score on")
    return UnitScores(*(total.cpu() / count for total in sums))


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


def _mix(expressiveness: Tensor, friendliness: Tensor, interpolation: float) -> Tensor:
    return torch.from_numpy(mixed(expressiveness.numpy(), friendliness.numpy(), interpolation))
