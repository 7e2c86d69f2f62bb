"""The three splits: disjoint, reproducible, and fair to every label."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples, Splits
from stkd.trainers.splits import three_splits


class ThreeSplits(NamedTuple):
    train: Examples
    validation: Examples
    test: Examples


def examples(count: int, name: str = "train", pairs: bool = False, classes: int = 2) -> Examples:
    texts = [f"{name} {number}" for number in range(count)]
    # one label in four is of class 1
    labels = [0 if number % 4 else number // 4 % (classes - 1) + 1 for number in range(count)]
    return Examples(texts, [f"pair of {text}" for text in texts] if pairs else None, labels)


def three(train: Examples, validation: Examples, test: Examples | None, settings: DataConfig) -> ThreeSplits:
    return ThreeSplits(*three_splits(Splits(train, validation, test), settings))


def config(**changes: Any) -> DataConfig:
    return DataConfig(source="glue_dir", path="x", **changes)


def test_by_default_a_tenth_of_training_is_held_out_to_choose_by_and_validation_is_the_test() -> None:
    train, official = examples(400, pairs=True), examples(50, "validation")
    splits = three(train, official, None, config())
    assert splits.test == official
    assert (len(splits.train), len(splits.validation)) == (360, 40)
    assert set(splits.train.texts) | set(splits.validation.texts) == set(train.texts)
    assert Counter(splits.validation.labels) == {0: 30, 1: 10}
    assert splits.validation.pairs == [f"pair of {text}" for text in splits.validation.texts]


def test_no_more_than_two_thousand_are_held_out() -> None:
    assert len(three(examples(30_000), examples(5, "v"), None, config()).validation) == 2000


def test_official_chooses_and_tests_on_validation() -> None:
    train, official = examples(40), examples(8, "validation")
    splits = three(train, official, None, config(selection="official"))
    assert splits == (train, official, official)


def test_a_labelled_test_split_leaves_training_whole() -> None:
    train, validation, test = examples(40), examples(8, "validation"), examples(9, "test")
    splits = three(train, validation, test, config())
    assert splits == (train, validation, test)
    official = three(train, validation, test, config(selection="official"))
    assert official.test == test


def test_own_validation_files_are_chosen_by_and_the_test_is_held_out() -> None:
    train, validation = examples(400), examples(50, "validation")
    splits = three(train, validation, None, DataConfig(source="files", train=("a.csv",), validation=("b.csv",)))
    assert splits.validation == validation
    assert (len(splits.train), len(splits.test)) == (360, 40)


def test_a_sample_of_training_leaves_what_is_held_out_as_it_is() -> None:
    train, official = examples(400), examples(50, "validation")
    whole = three(train, official, None, config())
    sampled = three(train, official, None, config(train_examples=100))
    assert sampled.validation == whole.validation
    assert len(sampled.train) == 100
    assert set(sampled.train.texts) < set(whole.train.texts)


def test_scores_are_held_out_over_their_whole_range() -> None:
    train = Examples([f"t{number}" for number in range(100)], None, [number / 20 for number in range(100)])
    held_out = np.asarray(three(train, train, None, config()).validation.labels)
    assert np.array_equal(np.sort(held_out) * 2 // 1, np.arange(10))


@given(
    count=st.integers(20, 300),
    wanted=st.integers(1, 19),
    seed=st.integers(0, 1000),
    classes=st.integers(2, 4),
)
def test_splits_are_disjoint_and_reproducible(count: int, wanted: int, seed: int, classes: int) -> None:
    train, official = examples(count, classes=classes), examples(9, "validation")
    settings = config(held_out_examples=wanted, seed=seed)
    splits = three(train, official, None, settings)
    assert splits == three(train, official, None, settings)
    parts = [set(split.texts) for split in splits]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == count + 9
    assert len(splits.validation) == wanted


def test_the_seed_decides_what_is_held_out() -> None:
    first, second = (three(examples(400), examples(5, "v"), None, config(seed=seed)) for seed in (0, 1))
    assert set(first.validation.texts) != set(second.validation.texts)


@pytest.mark.parametrize(("count", "wanted"), [(9, None), (5, 5), (5, 9)])
def test_too_few_training_examples_are_refused(count: int, wanted: int | None) -> None:
    with pytest.raises(UserError, match=rf"data\.selection held_out cannot take \d+ of {count} training examples"):
        three(examples(count), examples(5, "v"), None, config(held_out_examples=wanted))


def test_examples_that_are_in_training_too_are_counted_by_text_and_pair() -> None:
    train = Examples(["a", "b", "b"], ["x", "y", "z"], [0, 1, 1])
    assert Examples(["a", "b", "b", "c"], ["x", "y", "other", "x"], [1, 0, 0, 0]).count_in(train) == 2
    assert Examples(["a", "c"], None, [0, 1]).count_in(Examples(["a"], None, [0])) == 1
