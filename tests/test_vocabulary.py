"""Training the rows of the tokens at hand comes to what training the whole table comes to, in every family."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import SETTINGS, tiny_examples_for, tiny_model
from torch import Tensor

from stkd.trainers import loop
from stkd.trainers.batches import EncodedExamples
from stkd.trainers.config import TrainingConfig
from stkd.trainers.loop import Training, label_loss, predict
from stkd.trainers.ranks import Ranks
from stkd.trainers.vocabulary import TrainedRows, train_rows

TOKENS = np.asarray([5, 6, 9, 20])
"""All that the training data hold; the families have 40."""
UNTRAINED = 12
EPOCHS = 3


def some_tokens(name: str) -> EncodedExamples:
    whole = tiny_examples_for(tiny_model(name))
    return replace(whole, input_ids=TOKENS[whole.input_ids % len(TOKENS)].astype(np.int32))


def begin(name: str, accumulation: int = 1) -> Training:
    settings = TrainingConfig(
        epochs=EPOCHS,
        batch_size=4,
        learning_rate=1e-2,
        weight_decay=0.1,
        warmup=0.0,
        precision="fp32",
        accumulation=accumulation,
    )
    model = copy.deepcopy(tiny_model(name))
    return Training(model, some_tokens(name), label_loss("classification"), settings, Ranks(), {})


@pytest.fixture
def whole_table(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(loop, "train_rows", lambda *_: None)


def assert_same_weights(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, weight in left.items():
        # its true gradient is zero: Adam turns rounding errors into steps of full length
        if "key" not in name and "Wqkv.bias" not in name:
            torch.testing.assert_close(weight, right[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_comes_to_the_same_as_on_the_whole_table(name: str, whole_table: Callable[[], None]) -> None:
    rows = begin(name)
    losses = [rows.run_epoch() for _ in range(EPOCHS)]
    whole_table()
    table = begin(name)
    assert isinstance(rows.engine.model.get_input_embeddings(), TrainedRows)
    assert not isinstance(table.engine.model.get_input_embeddings(), TrainedRows)
    np.testing.assert_allclose(losses, [table.run_epoch() for _ in range(EPOCHS)], rtol=0, atol=1e-6)
    assert_same_weights(dict(rows.engine.model.state_dict()), dict(table.engine.model.state_dict()))
    unseen = tiny_examples_for(tiny_model(name))
    expected = predict(table.engine.model, unseen, Ranks())
    torch.testing.assert_close(predict(rows.engine.model, unseen, Ranks()), expected, rtol=0, atol=1e-5)


def test_rows_that_are_not_trained_only_decay() -> None:
    before = tiny_model("bert").get_input_embeddings().weight[UNTRAINED].clone()
    training = begin("bert", accumulation=2)
    training.run_epoch()
    after = training.engine.model.get_input_embeddings().whole()[UNTRAINED].clone()
    # two steps of a linear schedule over six, without warm-up
    torch.testing.assert_close(after, before * (1 - 1e-3) * (1 - 1e-3 * 5 / 6))
    training.run_epoch()
    assert (training.engine.model.get_input_embeddings().whole()[UNTRAINED].abs() < after.abs()).all()


def test_a_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    straight = begin("bert")
    for _ in range(2):
        straight.run_epoch()
    straight.engine.save(tmp_path)
    expected = straight.run_epoch()
    resumed = begin("bert")
    resumed.engine.load(tmp_path)
    resumed.epoch = 2
    assert resumed.run_epoch() == expected
    left, right = straight.engine.model.state_dict(), resumed.engine.model.state_dict()
    assert all(torch.equal(weight, right[name]) for name, weight in left.items())


def test_where_it_saves_nothing_the_table_stays() -> None:
    model: Any = copy.deepcopy(tiny_model("bert"))
    assert train_rows(model, np.arange(40, dtype=np.int32), pad_id=0) is None
    assert type(model.get_input_embeddings()) is torch.nn.Embedding


def test_a_table_that_another_layer_shares_stays() -> None:
    model: Any = copy.deepcopy(tiny_model("bert"))
    model.decoder = torch.nn.Linear(16, 40)
    model.decoder.weight = model.get_input_embeddings().weight
    assert train_rows(model, TOKENS.astype(np.int32), pad_id=0) is None
