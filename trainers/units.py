"""Teacher units, the mask that says which of them stay, and teachers without the rest.

Shapes: L layers, H heads of a layer, N FFN neurons of a layer, D channels of a head.
"""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stkd.trainers.families import EncoderFamily, encoder_layers, family_of, linear


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

    def fingerprint(self) -> str:
        """A hash that is equal for equal masks."""
        digest = hashlib.sha256(repr((self.heads.shape, self.neurons.shape)).encode())
        digest.update(self.heads.numpy().tobytes() + self.neurons.numpy().tobytes())
        return digest.hexdigest()[:16]


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
        layer.set_submodule(path, _rows(linear(layer, path), channels))
    layer.set_submodule(family.attention_output, _columns(output, channels))
    if not heads.any():
        layer.set_submodule(family.attention, NoHeads())


def _keep_neurons(layer: nn.Module, family: EncoderFamily, neurons: Tensor) -> None:
    kept = neurons.nonzero().flatten()
    layer.set_submodule(family.neurons, _rows(linear(layer, family.neurons), kept))
    layer.set_submodule(family.neurons_output, _columns(linear(layer, family.neurons_output), kept))


def _rows(projection: nn.Linear, kept: Tensor) -> nn.Linear:
    kept = kept.to(projection.weight.device)
    return _linear_from(projection.weight[kept], None if projection.bias is None else projection.bias[kept])


def _columns(projection: nn.Linear, kept: Tensor) -> nn.Linear:
    return _linear_from(projection.weight[:, kept.to(projection.weight.device)], projection.bias)


def _linear_from(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    # made without storage first, so that no random numbers are drawn for weights that are overwritten at once
    empty = nn.Linear(inputs, outputs, bias=bias is not None, device="meta", dtype=weight.dtype)
    projection = empty.to_empty(device=weight.device)
    with torch.no_grad():
        projection.weight.copy_(weight)
        if bias is not None:
            projection.bias.copy_(bias)
    return projection
