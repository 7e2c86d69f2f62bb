"""Where each encoder family keeps the units that a sparse teacher loses: attention heads and FFN neurons.

A family is one `EncoderFamily`. tests/test_families.py holds each to all that is done with it.
"""

from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel

from stkd.trainers.errors import UserError


@dataclass(frozen=True)
class EncoderFamily:
    """Dotted paths of one family: `layers` starts at the classification model, all others at an encoder layer.

    Rows of a projection are its outputs, columns its inputs. Shapes: B examples, T tokens, H heads.
    """

    model_type: str
    layers: str
    """The list of encoder layers."""
    attention: str
    """Takes hidden states first; returns a tuple that starts with the heads side by side, or with their projection
    where the output projection lies inside. Replaced in a layer that loses every head."""
    heads: tuple[str, ...]
    """What has rows or entries for heads, head by head: projections and bare parameters. A configuration may lack
    some of them."""
    attention_output: str
    """The linear projection whose columns are the heads side by side."""
    neurons: str
    """The linear projection whose rows are the FFN neurons."""
    neurons_output: str
    """The linear projection whose columns are the neurons."""

    # what only some families need
    head_blocks: int = 1
    """How often all heads stand one after the other in each of `heads`: 3 where query, key and value are one."""
    neuron_blocks: int = 1
    """The same for `neurons`: 2 where the FFN is gated."""
    head_count: str | None = None
    """Attribute of the attention module that says how many heads it has."""
    channel_count: str | None = None
    """Attribute of the attention module that says how many channels all its heads have."""
    head_argument: int | None = None
    """Which argument of the attention module holds values for each head of a dense layer, (B, H, T, T)."""
    layer_settings: tuple[str, ...] = ()
    """Lists in the configuration with one entry for each layer."""
    later_norm: str | None = None
    """The norm in front of the heads that every layer but the first has."""
    autocast: bool = True
    """Whether it trains in bf16 autocast."""


BERT = EncoderFamily(
    model_type="bert",
    layers="bert.encoder.layer",
    attention="attention.self",
    heads=("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_output="attention.output.dense",
    neurons="intermediate.dense",
    neurons_output="output.dense",
)
ROBERTA = replace(BERT, model_type="roberta", layers="roberta.encoder.layer")
XLM_ROBERTA = replace(ROBERTA, model_type="xlm-roberta")
CAMEMBERT = replace(ROBERTA, model_type="camembert")
ELECTRA = replace(BERT, model_type="electra", layers="electra.encoder.layer")
DISTILBERT = EncoderFamily(
    model_type="distilbert",
    layers="distilbert.transformer.layer",
    attention="attention",
    heads=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attention_output="attention.out_lin",
    neurons="ffn.lin1",
    neurons_output="ffn.lin2",
)
MPNET = replace(
    BERT,
    model_type="mpnet",
    layers="mpnet.encoder.layer",
    attention="attention.attn",
    heads=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    attention_output="attention.attn.o",
    channel_count="all_head_size",
    head_argument=2,  # the bias of relative positions, made once for all layers
)
DEBERTA = replace(
    BERT,
    model_type="deberta",
    layers="deberta.encoder.layer",
    heads=(
        "attention.self.in_proj",  # query, key and value of one head, then of the next
        "attention.self.q_bias",
        "attention.self.v_bias",
        "attention.self.pos_proj",
        "attention.self.pos_q_proj",
    ),
    head_count="num_attention_heads",
    autocast=False,  # it fills bf16 scores with the lowest fp32 number, which overflows
)
DEBERTA_V2 = replace(
    DEBERTA,
    model_type="deberta-v2",  # of version 3 too
    heads=(
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.self.pos_key_proj",
        "attention.self.pos_query_proj",
    ),
    autocast=True,
)
MODERNBERT = EncoderFamily(
    model_type="modernbert",
    layers="model.layers",
    attention="attn",
    heads=("attn.Wqkv",),
    head_blocks=3,
    attention_output="attn.Wo",
    neurons="mlp.Wi",
    neuron_blocks=2,
    neurons_output="mlp.Wo",
    layer_settings=("layer_types",),
    later_norm="attn_norm",
)

FAMILIES = {
    family.model_type: family
    for family in (
        BERT,
        ROBERTA,
        XLM_ROBERTA,
        CAMEMBERT,
        DISTILBERT,
        ELECTRA,
        MPNET,
        DEBERTA,
        DEBERTA_V2,
        MODERNBERT,
    )
}


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
