"""Where each encoder family keeps the units that a sparse teacher loses: attention heads and FFN neurons."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from stkd.trainers.errors import UserError


@dataclass(frozen=True)
class EncoderFamily:
    """Dotted module paths of one family; all but `layers` start at a layer."""

    model_type: str
    layers: str
    """From the classification model to its list of encoder layers."""
    attention: str
    """The module that computes attention before its output projection."""
    query: str
    key: str
    value: str
    attention_output: str
    """The linear projection whose input holds the heads side by side."""
    neurons: str
    """The linear projection whose outputs are the FFN neurons."""
    neurons_output: str
    """The linear projection that reads the neurons."""


BERT = EncoderFamily(
    model_type="bert",
    layers="bert.encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    neurons="intermediate.dense",
    neurons_output="output.dense",
)

FAMILIES = {family.model_type: family for family in (BERT,)}


def family_of(model: PreTrainedModel) -> EncoderFamily:
    """The declaration for a model; raises UserError for a family that nobody has declared."""
    model_type = str(model.config.model_type)
    if model_type not in FAMILIES:
        raise UserError(f"encoder family {model_type!r} is not supported; supported are: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[model_type]


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of encoder layers of a classification model."""
    layers = model.get_submodule(family_of(model).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def linear(layer: nn.Module, path: str) -> nn.Linear:
    """The linear projection at a dotted path below an encoder layer."""
    module = layer.get_submodule(path)
    assert isinstance(module, nn.Linear)
    return module
