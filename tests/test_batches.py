"""Tokenised examples and the order in which they are read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import GOOD, Case, tiny_case, tiny_examples
from transformers import PreTrainedTokenizerBase

from stkd.trainers.batches import BUCKET_BATCHES, EncodedExamples, encode, epoch_order, micro_batches, sorted_batches
from stkd.trainers.examples import Examples
from stkd.trainers.models import load_tokenizer

CPU = torch.device("cpu")
WORD = GOOD[0]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return tiny_case(tmp_path_factory.mktemp("batches"), train=40)


@pytest.fixture(scope="module")
def tokenizer(case: Case) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(case.model))


def words(*counts: int) -> list[str]:
    return [" ".join([WORD] * count) for count in counts]


def lengths_between(low: int, high: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(low, high, count)


# --- the order of an epoch


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=300),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 100),
)
def test_an_epoch_reads_each_example_once_in_as_few_batches_as_can_be(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    order = epoch_order(np.asarray(lengths), batch_size, seed, epoch)
    assert sorted(np.concatenate(order).tolist()) == list(range(len(lengths)))
    assert len(order) == -(-len(lengths) // batch_size)
    assert sum(len(batch) != batch_size for batch in order) <= 1


def test_buckets_pad_far_less_than_a_random_order() -> None:
    lengths = lengths_between(4, 128, 3000)
    bucketed = padding(lengths, epoch_order(lengths, 16, seed=0, epoch=0))
    shuffled = np.random.default_rng(1).permutation(3000)
    assert bucketed < 0.2 * padding(lengths, [shuffled[start : start + 16] for start in range(0, 3000, 16)])


def padding(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> int:
    return int(sum((lengths[batch].max() - lengths[batch]).sum() for batch in batches))


def test_the_order_belongs_to_seed_and_epoch() -> None:
    lengths = lengths_between(4, 60, 200)
    orders = {
        (seed, epoch): [batch.tolist() for batch in epoch_order(lengths, 16, seed, epoch)]
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len({str(order) for order in orders.values()}) == len(orders)
    assert orders[1, 2] == [batch.tolist() for batch in epoch_order(lengths, 16, 1, 2)]


def test_batches_are_not_read_from_short_to_long_and_have_other_members_each_epoch() -> None:
    lengths = lengths_between(4, 60, 16 * BUCKET_BATCHES * 2)
    orders = [epoch_order(lengths, 16, 0, epoch) for epoch in (0, 1)]
    means = [lengths[batch].mean() for batch in orders[0]]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5
    members = [{frozenset(batch.tolist()) for batch in order} for order in orders]
    assert members[0].isdisjoint(members[1])


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=100), tokens=st.integers(1, 200))
def test_sorted_batches_hold_each_example_once_longest_first(lengths: list[int], tokens: int) -> None:
    row = np.asarray(lengths)
    batches = sorted_batches(row, tokens)
    assert all(len(batch) * row[batch].max() <= tokens or len(batch) == 1 for batch in batches)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(row[order]) <= 0).all()


# --- shares


@settings(deadline=None)
@given(size=st.integers(1, 40), accumulation=st.integers(1, 5), ranks=st.integers(1, 4))
def test_shares_cover_a_batch_once_over_ranks_and_micro_batches(size: int, accumulation: int, ranks: int) -> None:
    batch = np.arange(100, 100 + size)
    shares = [list(micro_batches(batch, accumulation, rank, ranks)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {accumulation}
    counted = [
        (int(position), weight)
        for share in shares
        for positions, weights in share
        for position, weight in zip(positions, weights, strict=True)
    ]
    assert sorted(position for position, weight in counted if weight == 1.0) == batch.tolist()
    fillers = [position for position, weight in counted if weight == 0.0]
    assert len(fillers) == max(0, accumulation * ranks - size)
    assert set(fillers) <= set(batch.tolist())


def test_shares_differ_by_one_example_at_most() -> None:
    shares = [len(share) for rank in (0, 1) for share, _ in micro_batches(np.arange(15), 2, rank, 2)]
    assert max(shares) - min(shares) == 1


# --- padding


def test_longer_neighbours_do_not_change_an_examples_logits(case: Case, tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(Examples(words(1, 3, 14), None, [0, 1, 0]), tokenizer, 16)
    model = case.load()
    with torch.inference_mode():
        together = model(**encoded.batch(np.arange(3), CPU).inputs).logits
        alone = [model(**encoded.batch(np.asarray([i]), CPU).inputs).logits for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_a_batch_is_padded_to_its_longest_and_no_further(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = replace(encode(Examples(words(1, 5, 12), None, [0, 1, 1]), tokenizer, 16), pad_id=9)
    batch = encoded.batch(np.asarray([1, 0]), CPU, [1.0, 0.0])
    assert batch.inputs["input_ids"].shape == (2, 7)
    assert batch.inputs["attention_mask"].tolist() == [[1] * 7, [1] * 3 + [0] * 4]
    assert batch.inputs["input_ids"][1, 3:].tolist() == [9] * 4
    assert {name: tensor.dtype for name, tensor in batch.inputs.items()} == dict.fromkeys(batch.inputs, torch.int64)
    assert batch.labels.tolist() == [1, 0]
    assert batch.weights.tolist() == [1.0, 0.0]
    assert encoded.batch(np.arange(3), CPU).weights.tolist() == [1.0] * 3


def test_a_batch_equals_the_tokenizers_own(case: Case, tokenizer: PreTrainedTokenizerBase) -> None:
    examples = tiny_examples(40, seed=1)
    own = tokenizer(examples.texts, padding=True, return_tensors="pt")
    batch = case.train.batch(np.arange(40), CPU)
    assert own.keys() == batch.inputs.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in batch.inputs.items())


# --- tokens


def test_a_pair_is_one_example_of_two_kinds_of_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(Examples(words(2, 1), words(3, 1), [0, 1]), tokenizer, 16)
    kinds = encoded.batch(np.arange(2), CPU).inputs["token_type_ids"]
    assert kinds.tolist() == [[0] * 4 + [1] * 4, [0] * 3 + [1] * 2 + [0] * 3]
    assert encoded.lengths.tolist() == [8, 5]


def test_truncation_cuts_the_longer_text_first(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(Examples(words(20, 2), words(2, 20), [0, 1]), tokenizer, 10)
    assert encoded.lengths.tolist() == [10, 10]
    kinds = encoded.batch(np.arange(2), CPU).inputs["token_type_ids"]
    assert kinds.sum(dim=1).tolist() == [3, 6]
    ids = encoded.batch(np.arange(2), CPU).inputs["input_ids"]
    assert (ids[:, -1] == tokenizer.sep_token_id).all()


def test_labels_are_class_numbers_or_scores(tokenizer: PreTrainedTokenizerBase) -> None:
    assert encode(tiny_examples(4, 0), tokenizer, 16).labels.dtype == np.int64
    scores = encode(tiny_examples(4, 0, regression=True), tokenizer, 16)
    assert scores.labels.dtype == np.float32
    assert scores.batch(np.arange(4), CPU).labels.dtype == torch.float32


@pytest.mark.parametrize("kind", ["single", "pair", "regression", "without token types"])
def test_saved_and_loaded_examples_are_equal(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, kind: str) -> None:
    examples = tiny_examples(5, 0, regression=kind == "regression")
    if kind == "pair":
        examples = replace(examples, pairs=words(1, 2, 3, 4, 5))
    encoded = encode(examples, tokenizer, 16)
    if kind == "without token types":
        encoded = replace(encoded, token_type_ids=None)
    encoded.save(tmp_path / "split.safetensors")
    assert_equal(EncodedExamples.load(tmp_path / "split.safetensors"), encoded)


def assert_equal(left: EncodedExamples, right: EncodedExamples) -> None:
    assert left.pad_id == right.pad_id
    for name in ("input_ids", "token_type_ids", "offsets", "labels"):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert ours.dtype == theirs.dtype, name
            assert np.array_equal(ours, theirs), name


@pytest.mark.parametrize("pairs", [False, True])
def test_a_subset_is_the_chosen_examples_in_the_chosen_order(tokenizer: PreTrainedTokenizerBase, pairs: bool) -> None:
    texts, seconds = words(1, 4, 2, 3), words(2, 1, 1, 2)
    chosen = [3, 0, 1]
    whole = encode(Examples(texts, seconds if pairs else None, [0, 1, 1, 0]), tokenizer, 16)
    part = Examples(
        [texts[i] for i in chosen], [seconds[i] for i in chosen] if pairs else None, [[0, 1, 1, 0][i] for i in chosen]
    )
    assert_equal(whole.subset(np.asarray(chosen)), encode(part, tokenizer, 16))
