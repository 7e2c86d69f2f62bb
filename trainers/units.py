"""Teacher units, the mask that says which of them stay, and teachers without the rest.

Shapes: L layers, H heads of a layer, N FFN neurons of a layer, D channels of a head.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stkd.trainers.families import EncoderFamily, encoder_layers, family_of, linear
from stkd.trainers.ranking import mask_name


@dataclass(frozen=True)
class UnitMask:
    """Which units stay: `heads` (L, H) and `neurons` (L, N), both boolean on the CPU."""

    heads: Tensor
    neurons: Tensor

    @classmethod
    def dense(cls, model: PreTrainedModel) -> "UnitMask":
        """The mask that keeps every unit of a model whose units are still complete."""
        family, layers = family_of(model), encoder_layers(model)
        head_count = int(model.config.num_attention_heads)
        neuron_count = linear(layers[0], family.neurons).out_features
        return cls(
            torch.ones(len(layers), head_count, dtype=torch.bool),
            torch.ones(len(layers), neuron_count, dtype=torch.bool),
        )

    @property
    def is_dense(self) -> bool:
        """Whether every unit stays."""
        return bool(self.heads.all()) and bool(self.neurons.all())

    @property
    def name(self) -> str:
        """What names the sparse teacher that keeps these units."""
        return mask_name(self.heads.numpy(), self.neurons.numpy())


@contextmanager
def masked(model: PreTrainedModel, mask: UnitMask) -> Iterator[None]:
    """Within the context, the model computes with the removed units at zero; its weights stay as they are."""
    family = family_of(model)
    handles = []
    for layer, heads, neurons in zip(encoder_layers(model), mask.heads, mask.neurons, strict=True):
        attention_output = linear(layer, family.attention_output)
        channels = heads.repeat_interleave(attention_output.in_features // len(heads))
        handles.append(attention_output.register_forward_pre_hook(_multiply_by(channels)))
        handles.append(linear(layer, family.neurons_output).register_forward_pre_hook(_multiply_by(neurons)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _multiply_by:  # noqa: N801 - reads as the verb that it is where a hook is registered
    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * self.mask.to(inputs[0]), *inputs[1:])


def sliced(model: PreTrainedModel, mask: UnitMask) -> PreTrainedModel:
    """A copy of the model that lacks the removed units: smaller matrices, the same function as the masked model.

    A mask that keeps everything gives a copy that is equal to the bit.
    """
    family = family_of(model)
    smaller = copy.deepcopy(model)
    for layer, heads, neurons in zip(encoder_layers(smaller), mask.heads, mask.neurons, strict=True):
        if not heads.all():
            _keep_heads(layer, family, heads)
        if not neurons.all():
            _keep_neurons(layer, family, neurons)
    return smaller


class NoHeads(nn.Module):
    """Attention of a layer that has lost every head: zero channels, so that only the projection's bias is left."""

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        """Channels (batch, tokens, 0) for hidden states (batch, tokens, width)."""
        return hidden_states.new_zeros(*hidden_states.shape[:-1], 0), None


def _keep_heads(layer: nn.Module, family: EncoderFamily, heads: Tensor) -> None:
    output = linear(layer, family.attention_output)
    channels = heads.repeat_interleave(output.in_features // len(heads)).nonzero().flatten()
    for path in (family.query, family.key, family.value):
        _keep_rows(linear(layer, path), channels)
    _keep_columns(output, channels)
    if not heads.any():
        layer.set_submodule(family.attention, NoHeads())


def _keep_neurons(layer: nn.Module, family: EncoderFamily, neurons: Tensor) -> None:
    kept = neurons.nonzero().flatten()
    _keep_rows(linear(layer, family.neurons), kept)
    _keep_columns(linear(layer, family.neurons_output), kept)


def _keep_rows(projection: nn.Linear, kept: Tensor) -> None:
    kept = kept.to(projection.weight.device)
    projection.out_features = len(kept)
    projection.weight = nn.Parameter(projection.weight.detach()[kept])
    if projection.bias is not None:
        projection.bias = nn.Parameter(projection.bias.detach()[kept])


def _keep_columns(projection: nn.Linear, kept: Tensor) -> None:
    projection.in_features = len(kept)
    projection.weight = nn.Parameter(projection.weight.detach()[:, kept.to(projection.weight.device)])
