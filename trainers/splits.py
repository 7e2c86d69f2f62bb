"""Three disjoint splits: to train and score on, to choose students by, and to test on once, at the end."""

import random
from collections.abc import Sequence
from typing import Any

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples, Splits

SELECTION_SHARE = 10
"""One training example of so many is held out to choose by, where the settings name no number ..."""
MOST_SELECTED = 2000
"""... but no more than these: a standard error of one point is reached, and the teacher has to read them each epoch."""


def three_splits(found: Splits, config: DataConfig) -> tuple[Examples, Examples, Examples]:
    """Return what is trained and scored on, what students are chosen by, and what is read once, at the end.

    A source without a labelled test split lacks one of them, and examples held out from training stand in for it, in
    equal shares of every label. GLUE's validation split becomes the test, and students are chosen by what was held
    out; a user's own validation file is what students are chosen by, and what was held out is the test. `official`
    chooses and tests on the validation split, as the paper does.

    Raises:
        UserError: there are too few training examples.

    """
    train, validation, test = found.train, found.validation, found.test
    if config.selection == "official":
        test = test or validation
    elif test is None:
        held_out, train = _hold_out(train, config)
        validation, test = (validation, held_out) if config.source == "files" else (held_out, validation)
    if config.train_examples is not None:
        train = _sample(train, config.train_examples, config.seed)
    return train, validation, test


def _hold_out(train: Examples, config: DataConfig) -> tuple[Examples, Examples]:
    count = config.held_out_examples or min(len(train) // SELECTION_SHARE, MOST_SELECTED)
    if not 0 < count < len(train):
        raise UserError(
            f"data.selection held_out cannot take {count} of {len(train)} training examples to choose students by; "
            "set data.held_out_examples to fewer, or give more training data"
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
