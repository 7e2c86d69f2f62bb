"""Three disjoint splits: to train and score on, to choose students by, and to test on once, at the end."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples

SELECTION_SHARE = 10
"""One training example of so many is held out to choose by, where the settings name no number ..."""
MOST_SELECTED = 2000
"""... but no more than these: a standard error of one point is reached, and the teacher has to read them each epoch."""


@dataclass(frozen=True)
class Splits:
    """The examples of a task by what they are for; `validation` is what students are chosen by."""

    train: Examples
    validation: Examples
    test: Examples


def three_splits(train: Examples, validation: Examples, test: Examples | None, config: DataConfig) -> Splits:
    """Return the splits as `config.selection` wants them.

    Where a source has no labelled test split, as with GLUE, its validation split becomes the test, and what students
    are chosen by is held out from the training examples, in equal shares of every label. `official` chooses and tests
    on the validation split, as the paper does.

    Raises:
        UserError: there are too few training examples.

    """
    if config.selection == "official":
        splits = Splits(train, validation, test or validation)
    elif test is not None:
        splits = Splits(train, validation, test)
    else:
        held_out, rest = _hold_out(train, config)
        splits = Splits(rest, held_out, validation)
    if config.train_examples is not None:
        splits = Splits(_sample(splits.train, config.train_examples, config.seed), splits.validation, splits.test)
    return splits


def _hold_out(train: Examples, config: DataConfig) -> tuple[Examples, Examples]:
    count = config.selection_examples or min(len(train) // SELECTION_SHARE, MOST_SELECTED)
    if not 0 < count < len(train):
        raise UserError(
            f"data.selection held_out cannot take {count} of {len(train)} training examples to choose students by; "
            "set data.selection_examples to fewer, or give more training data"
        )
    order = _shuffled(len(train), config.seed)
    order.sort(key=lambda index: train.labels[index])  # stable: shuffled within a label, so that each gives its share
    chosen = {order[(2 * place + 1) * len(train) // (2 * count)] for place in range(count)}
    return (
        _subset(train, sorted(chosen)),
        _subset(train, [index for index in range(len(train)) if index not in chosen]),
    )


def _sample(examples: Examples, count: int, seed: int) -> Examples:
    """Return the first `count` examples of a seeded shuffle: a larger sample holds all of a smaller one."""
    return _subset(examples, _shuffled(len(examples), seed)[:count])


def _shuffled(count: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311 (no secret depends on it)
    return order


def _subset(examples: Examples, chosen: Sequence[int]) -> Examples:
    pairs = None if examples.pairs is None else [examples.pairs[i] for i in chosen]
    # The annotation says that labels stay of one type, which the comprehension forgets.
    labels: list[Any] = [examples.labels[i] for i in chosen]
    return Examples([examples.texts[i] for i in chosen], pairs, labels)
