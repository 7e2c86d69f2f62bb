"""Numbers of the paper's reference implementation on two tiny random BERT pairs, and the models they belong to."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from stkd.trainers.batches import Batch
from stkd.trainers.tasks import Kind

FOLDER = Path(__file__).parent / "golden"
KINDS: tuple[Kind, ...] = ("classification", "regression")


@dataclass(frozen=True)
class Golden:
    """One pair of models with what the reference computed for it: 5 batches of 8 examples of 24 tokens."""

    kind: Kind
    teacher: PreTrainedModel
    student: PreTrainedModel
    tensors: dict[str, Tensor]
    reference: dict[str, Any]

    def batches(self) -> list[Batch]:
        names = ("input_ids", "attention_mask", "token_type_ids")
        return [
            Batch(
                indices=torch.arange(8).numpy(),
                inputs={name: self.tensors[name][number].long() for name in names},
                labels=self.tensors["labels"][number],
                weights=torch.ones(8),
            )
            for number in range(5)
        ]


@cache
def golden(kind: Kind) -> Golden:
    tensors = load_file(FOLDER / f"{kind}.safetensors")
    reference = json.loads((FOLDER / f"{kind}.json").read_text())
    models = {who: _model(who, tensors, reference["config"]) for who in ("teacher", "student")}
    return Golden(kind, models["teacher"], models["student"], tensors, reference)


def _model(who: str, tensors: dict[str, Tensor], sizes: dict[str, Any]) -> PreTrainedModel:
    config = BertConfig(
        num_hidden_layers=sizes[f"{who}_layers"],
        **{name: value for name, value in sizes.items() if not name.endswith("_layers")},
    )
    model = BertForSequenceClassification(config)
    weights = {name.removeprefix(f"{who}."): tensor for name, tensor in tensors.items() if name.startswith(f"{who}.")}
    model.load_state_dict(weights)
    return model.eval()
