"""The part of a word embedding that a training can change: the rows of the tokens that its data hold."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

WORTHWHILE = 0.9
"""A training that meets a larger share of the vocabulary keeps the table as it is."""


class TrainedRows(nn.Module):
    """Stands in for a word embedding of V tokens, and trains the rows of `tokens` alone.

    A token that the data lack never gets a gradient, so AdamW leaves its row as it is but for weight decay, and that is
    one factor for all such rows: the optimizer's passes over them come to a single number. What is learned, saved and
    computed in eval mode is what the whole table would give; its weight has the same name in the state dict. The table
    that it stands in for is used up: the memory of its weight holds the whole table as it stands.
    """

    _whole: Tensor
    _tokens: Tensor
    _places: Tensor

    def __init__(self, table: nn.Embedding, tokens: NDArray[np.int64]) -> None:
        super().__init__()
        held = torch.from_numpy(tokens).to(table.weight.device)
        places = torch.zeros(table.num_embeddings, dtype=torch.int64, device=held.device)
        places[held] = torch.arange(len(held), device=held.device)
        self.weight = nn.Parameter(table.weight.detach()[held])
        self.register_buffer("_whole", table.weight.detach(), persistent=False)
        self.register_buffer("_tokens", held, persistent=False)
        self.register_buffer("_places", places, persistent=False)
        self._pad = None if table.padding_idx is None else int(places[table.padding_idx])
        self._factor, self._stale = 1.0, False

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embeddings (B, T, width) of tokens (B, T); in training mode, of the tokens that are trained."""
        if not self.training:
            return functional.embedding(input_ids, self.whole())
        return functional.embedding(self._places[input_ids], self.weight, self._pad)

    def stepped(self, decayed: float) -> None:
        """The optimizer made a step, which took this share (learning rate times weight decay) of every weight."""
        self._factor *= 1.0 - decayed
        self._stale = True

    def whole(self) -> Tensor:
        """The whole table as it stands, (V, width)."""
        if self._stale:
            with torch.no_grad():
                self._whole.mul_(self._factor)
                self._whole[self._tokens] = self.weight.detach()
            self._factor, self._stale = 1.0, False
        return self._whole

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, _: bool) -> None:
        destination[f"{prefix}weight"] = self.whole()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        with torch.no_grad():
            self._whole.copy_(state_dict[f"{prefix}weight"])
            self.weight.copy_(self._whole[self._tokens])
        self._factor, self._stale = 1.0, False


def train_rows(model: PreTrainedModel, input_ids: NDArray[np.int32], pad_id: int) -> TrainedRows | None:
    """Let a model train only the word embeddings of the tokens in `input_ids`; None where that saves nothing."""
    table = model.get_input_embeddings()
    if type(table) is not nn.Embedding or _is_shared(model, table.weight):
        return None
    present = np.bincount(input_ids, minlength=table.num_embeddings) > 0
    present[[pad_id, *([] if table.padding_idx is None else [table.padding_idx])]] = True
    if present.mean() > WORTHWHILE:
        return None
    rows = TrainedRows(table, np.flatnonzero(present))
    model.set_input_embeddings(rows)
    return rows


def _is_shared(model: PreTrainedModel, weight: Tensor) -> bool:
    return sum(found is weight for _, found in model.named_parameters(remove_duplicate=False)) > 1
