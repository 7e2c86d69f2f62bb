"""Teacher units, the mask that says which of them stay, and teachers without the rest.

Shapes: L layers, H heads of a layer, N FFN neurons of a layer, B examples, T tokens.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from stkd.trainers.config import DistillationConfig
from stkd.trainers.families import EncoderFamily, encoder_layers, family_of, linear
from stkd.trainers.ranking import UnitScores, mask_name


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
        neuron_count = linear(layers[0], family.neurons_output).in_features
        return cls(
            torch.ones(len(layers), head_count, dtype=torch.bool),
            torch.ones(len(layers), neuron_count, dtype=torch.bool),
        )

    @classmethod
    def of(cls, scores: UnitScores, settings: DistillationConfig, seed: int = 0) -> "UnitMask":
        """The mask of the sparse teacher with these settings. `seed` is for the scorer `random` alone."""
        heads, neurons = scores.kept(settings, seed)
        return cls(torch.from_numpy(heads), torch.from_numpy(neurons))

    @property
    def is_dense(self) -> bool:
        """Whether every unit stays."""
        return bool(self.heads.all()) and bool(self.neurons.all())

    @property
    def name(self) -> str:
        """What names the sparse teacher that keeps these units."""
        return mask_name(self.heads.numpy(), self.neurons.numpy())

    def rounded_up(self, multiple: int) -> "UnitMask":
        """The mask that also keeps the first of the removed neurons, until a layer's are a multiple, or all of them."""
        missing = -self.neurons.sum(dim=1, keepdim=True) % multiple
        return UnitMask(self.heads, self.neurons | ((~self.neurons).cumsum(dim=1) <= missing))

    def save(self, path: Path) -> None:
        """Write the mask as safetensors."""
        save_file({"heads": self.heads, "neurons": self.neurons}, path)

    @classmethod
    def load(cls, path: Path) -> "UnitMask":
        """Read what `save` wrote."""
        return cls(**load_file(path))


@contextmanager
def masked(model: PreTrainedModel, mask: UnitMask) -> Iterator[None]:
    """Within the context, the model computes with the removed units at zero; its weights stay as they are."""
    family = family_of(model)
    handles = []
    for layer, heads, neurons in zip(encoder_layers(model), mask.heads, mask.neurons, strict=True):
        for path, units in ((family.attention_output, heads), (family.neurons_output, neurons)):
            projection = linear(layer, path)
            handles.append(projection.register_forward_pre_hook(_multiply_by(_spread(units, projection.in_features))))
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

    A mask that keeps everything gives a copy that is equal to the bit. `transformers` cannot load what this saves.
    """
    return cut(copy.deepcopy(model), mask)


def cut(model: PreTrainedModel, mask: UnitMask, multiple: int = 1) -> PreTrainedModel:
    """Make the model itself what `sliced` makes of a copy; returns it.

    A layer is left with a `multiple` of neurons: of the removed ones as many as it takes stay, with weights of zero.
    """
    family, held = family_of(model), mask.rounded_up(multiple)
    units = zip(encoder_layers(model), mask.heads, mask.neurons, held.neurons, strict=True)
    for layer, heads, neurons, held_neurons in units:
        owned = zip(_owned(layer, family, heads, neurons), _owned(layer, family, heads, held_neurons), strict=True)
        for (name, dimension, kept), (_, _, present) in list(owned):
            if not kept.all():
                _keep(layer, name, dimension, kept, present)
        if not heads.all():
            _tell_attention(layer, family, heads)
    return model


def zeroed(model: PreTrainedModel, mask: UnitMask) -> PreTrainedModel:
    """A copy of full size in which the weights of removed units are zero: the same function as the masked model.

    Saved, it is a folder that `transformers` loads by itself.
    """
    family = family_of(model)
    same_size = copy.deepcopy(model)
    for layer, heads, neurons in zip(encoder_layers(same_size), mask.heads, mask.neurons, strict=True):
        for name, dimension, kept in _owned(layer, family, heads, neurons):
            weights = layer.get_parameter(name).detach()
            weights.index_fill_(dimension, (~kept).nonzero().flatten().to(weights.device), 0.0)
    return same_size


def expanded(smaller: PreTrainedModel, mask: UnitMask) -> PreTrainedModel:
    """The model of full size that `sliced` makes `smaller` of: the same function, with zeros for what was removed."""
    family, full = family_of(smaller), type(smaller)(smaller.config).eval()
    weights = smaller.state_dict()
    for number, (layer, heads, neurons) in enumerate(zip(encoder_layers(full), mask.heads, mask.neurons, strict=True)):
        place = f"{family.layers}.{number}."
        if not heads.any():  # see NoHeads
            bias = f"{place}{family.attention_output}.bias"
            weights[bias] = weights.pop(f"{place}{family.attention}.projection.bias", weights.get(bias))
        for name, dimension, kept in _owned(layer, family, heads, neurons):
            weight = layer.get_parameter(name).detach().zero_().cpu()
            if kept.any():
                weight.index_copy_(dimension, kept.nonzero().flatten(), weights[place + name].cpu())
            weights[place + name] = weight
    known = full.state_dict()
    full.load_state_dict({name: weight for name, weight in weights.items() if name in known})
    return full


def _owned(
    layer: nn.Module, family: EncoderFamily, heads: Tensor, neurons: Tensor
) -> Iterator[tuple[str, int, Tensor]]:
    """Parameters with rows (dimension 0) or columns (1) that are units': name, dimension, and which of these stay."""
    yield from owned_by_heads(layer, family, heads)
    yield from owned_by_neurons(layer, family, neurons)


def owned_by_heads(layer: nn.Module, family: EncoderFamily, heads: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """Parameters with rows (dimension 0) or columns (1) that are heads': name, dimension, and `heads` (H,) for each."""
    yield from _owned_by(layer, family.heads, family.head_blocks, family.attention_output, heads)


def owned_by_neurons(layer: nn.Module, family: EncoderFamily, neurons: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """The same for neurons, `neurons` being (N,)."""
    yield from _owned_by(layer, (family.neurons,), family.neuron_blocks, family.neurons_output, neurons)


def _owned_by(
    layer: nn.Module, paths: tuple[str, ...], blocks: int, output: str, units: Tensor
) -> Iterator[tuple[str, int, Tensor]]:
    shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
    for name in (name for path in paths for name in (path, f"{path}.weight", f"{path}.bias")):
        if name in shapes:
            yield name, 0, _spread(units, shapes[name][0] // blocks).repeat(blocks)
    yield f"{output}.weight", 1, _spread(units, shapes[f"{output}.weight"][1])


def _spread(units: Tensor, size: int) -> Tensor:
    """The mask of units (H,) or (N,) as a mask of the `size` neighbouring rows, columns or channels that they own."""
    return units.repeat_interleave(size // len(units))


def _keep(layer: nn.Module, name: str, dimension: int, kept: Tensor, present: Tensor) -> None:
    """Leaves of a parameter the rows or columns that are `present`, with zeros in those that are not `kept`."""
    path, _, attribute = name.rpartition(".")
    owner, parameter = layer.get_submodule(path), layer.get_parameter(name)
    rest = parameter.detach().index_select(dimension, present.nonzero().flatten().to(parameter.device))
    rest.index_fill_(dimension, (~kept[present]).nonzero().flatten().to(parameter.device), 0.0)
    owner.register_parameter(attribute, nn.Parameter(rest))
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = owner.weight.shape


def _tell_attention(layer: nn.Module, family: EncoderFamily, heads: Tensor) -> None:
    """Makes the attention module of a sliced layer work with the heads that stay."""
    attention, projection = layer.get_submodule(family.attention), linear(layer, family.attention_output)
    if not heads.any():
        inside = family.attention_output.startswith(f"{family.attention}.")
        layer.set_submodule(family.attention, NoHeads(projection if inside else nn.Identity()))
        return
    if family.head_count is not None:
        setattr(attention, family.head_count, int(heads.sum()))
    if family.channel_count is not None:
        setattr(attention, family.channel_count, projection.in_features)
    if family.head_argument is not None:
        attention.register_forward_pre_hook(_pick_heads(family.head_argument, heads))


class NoHeads(nn.Module):
    """Attention of a layer that has lost every head: zero channels, of which the projection leaves only its bias."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        """The projection of channels (B, T, 0) for hidden states (B, T, width)."""
        return self.projection(hidden_states.new_zeros(*hidden_states.shape[:-1], 0)), None


class _pick_heads:  # noqa: N801 - reads as the verb that it is where a hook is registered
    def __init__(self, argument: int, heads: Tensor) -> None:
        self.argument, self.kept = argument, heads.nonzero().flatten()

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values = inputs[self.argument]
        picked = values.index_select(1, self.kept.to(values.device))
        return (*inputs[: self.argument], picked, *inputs[self.argument + 1 :])
