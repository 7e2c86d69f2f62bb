"""A tiny random classifier of every encoder family, and of settings within a family that change where units lie."""

import json
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from stkd.trainers.batches import EncodedExamples

LAYERS, HEADS, NEURONS = 4, 4, 32
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": 24,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
VERSION_3 = {
    "relative_attention": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "distilbert": {"hidden_dim": NEURONS, "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "electra": {"embedding_size": 8},
    "mpnet": {},
    "deberta": {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False},
    "deberta without relative positions": {},
    "deberta-v2": VERSION_3,
    "deberta-v2 with a convolution": VERSION_3 | {"conv_kernel_size": 3},
    "deberta-v2 with projections of positions": VERSION_3 | {"share_att_key": False, "position_biased_input": True},
    "modernbert": MODERN | {"local_attention": 4},
    "modernbert with biases": MODERN | {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
}
"""Each name starts with a family's `model_type`."""


@cache
def tiny_model(name: str, attention: str | None = None) -> PreTrainedModel:
    """A classifier in eval mode, no weight, bias or scale of which is zero or one; shared, so copy before a change."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    config = AutoConfig.for_model(name.split()[0], **SIZES | SETTINGS[name])
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    for parameter in model.parameters():
        parameter.detach().add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def tiny_examples_for(model: PreTrainedModel) -> EncodedExamples:
    """Eight examples of 2 to 16 tokens, so that a batch of them is padded."""
    rng = np.random.default_rng(3)
    lengths = np.arange(2, 18, 2)
    return EncodedExamples(
        input_ids=rng.integers(4, SIZES["vocab_size"], lengths.sum()).astype(np.int32),
        token_type_ids=None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=rng.integers(0, 2, len(lengths)),
        pad_id=int(model.config.pad_token_id),
    )


def told_on_disk(model: PreTrainedModel) -> dict[str, Any]:
    """What the model's config.json would say."""
    told: dict[str, Any] = json.loads(model.config.to_json_string())
    return told
