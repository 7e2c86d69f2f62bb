"""Learns from the labels of a user's files what the task is, and checks that they fit each other.

A table is one file; a split is a list of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.labels import Label, class_name, is_fraction, is_label, is_missing, label_type, score
from stkd.trainers.rows import Rows, shown
from stkd.trainers.tasks import Kind, did_you_mean

MOST_NUMBERS = 20
"""Different whole numbers that are taken for classes without asking."""


@dataclass(frozen=True)
class Labelled:
    """A table whose labels are read."""

    rows: Rows
    labels: list[list[Label]]
    """Of each row, as they were found; one for classification."""
    names: list[list[str]]
    """The same as names of classes."""

    def each(self) -> Iterator[tuple[int, Label]]:
        """Every label with the index of its row."""
        return ((index, label) for index, labels in enumerate(self.labels) for label in labels)


def check_present(table: Rows, config: DataConfig) -> None:
    """Raises UserError where a row has no label; only the text of a multi-label may be empty: no class applies."""
    may_be_empty = config.separator is not None
    missing = [
        index
        for index, label in enumerate(table.labels)
        if is_missing(label) and not (may_be_empty and isinstance(label, str))
    ]
    if missing:
        label = shown(table.labels[missing[0]])
        raise UserError(f"{table.where(*missing)}: there is no label ({label}); give one, or leave the row out")


def find_kind(train: Sequence[Rows], config: DataConfig) -> Kind:
    """Return what kind of task the training labels are of; raises UserError where numbers leave it open."""
    if config.separator is not None or any(isinstance(label, list) for table in train for label in table.labels):
        return "multilabel"
    if config.classes is None:
        _check_whole(train)
        _check_few(train)
    return "classification"


def _check_whole(train: Sequence[Rows]) -> None:
    for table in train:
        fractions = [index for index, label in enumerate(table.labels) if is_label(label) and is_fraction(label)]
        if fractions:
            label = shown(table.labels[fractions[0]])
            raise UserError(
                f"{table.where(*fractions)}: the label {label} is a number with a fraction; set data.kind to "
                "regression if labels are scores, or to classification if each number is a class"
            )


def _check_few(train: Sequence[Rows]) -> None:
    labels = [label for table in train for label in table.labels if is_label(label)]
    count = len({class_name(label) for label in labels})
    if count > MOST_NUMBERS and all(label_type(label) == "number" for label in labels):
        raise UserError(
            f"{places(train)}: the labels are {count} different numbers; set data.kind to classification if each is a "
            "class, or to regression if they are scores"
        )


def scores(table: Rows) -> list[float]:
    """Return the labels of a regression; raises UserError where one is no finite number."""
    found = [score(label) for label in table.labels]
    wrong = [index for index, number in enumerate(found) if number is None]
    if wrong:
        label = shown(table.labels[wrong[0]])
        raise UserError(f"{table.where(*wrong)}: the label is {label}, but must be a finite number")
    return [number for number in found if number is not None]


def check_scores_differ(split: Sequence[Rows], numbers: Sequence[float]) -> None:
    """Raises UserError where all scores are equal: nothing could be learned from them, or told by them."""
    if min(numbers) == max(numbers):
        raise UserError(f"{places(split)}: every label is {numbers[0]:g}; a regression needs scores that differ")


def labelled(table: Rows, kind: Kind, separator: str | None) -> Labelled:
    """Read the classes of each row; raises UserError where a label is not of the kind."""
    read = _listed if kind == "multilabel" else _single
    labels = [read(label, separator) for label in table.labels]
    wrong = [index for index, row in enumerate(labels) if row is None]
    if wrong:
        raise UserError(f"{table.where(*wrong)}: {_wrong_shape(table.labels[wrong[0]], kind)}")
    found = [row for row in labels if row is not None]
    return Labelled(table, found, [[class_name(label) for label in row] for row in found])


def _single(label: Any, _separator: str | None) -> list[Label] | None:
    return [label] if is_label(label) else None


def _listed(label: Any, separator: str | None) -> list[Label] | None:
    if separator is not None and isinstance(label, str):
        return [part for part in label.split(separator) if part.strip()]
    members: list[Any] = label if isinstance(label, list) else [label] if separator is not None else [None]
    return members if all(is_label(member) and not is_missing(member) for member in members) else None


def _wrong_shape(label: Any, kind: Kind) -> str:
    found = f"the label is {shown(label)}"
    if kind == "multilabel" and is_label(label):
        return f"{found}, but must be a list; for texts of several classes set data.separator to what stands between"
    if kind == "multilabel":
        return f"{found}, but must be a list of words, numbers or booleans, none of them empty"
    listed = "; for several classes at once set data.kind to multilabel" if isinstance(label, list) else ""
    return f"{found}, but must be a word, a finite number or a boolean{listed}"


def find_classes(train: Sequence[Labelled]) -> tuple[str, ...]:
    """Return the classes that occur, words by alphabet and numbers by size; raises UserError where types are mixed."""
    first: dict[str, tuple[Labelled, int, Label]] = {}
    for table in train:
        for index, label in table.each():
            first.setdefault(label_type(label), (table, index, label))
    if len(first) > 1:
        (one, (table, index, label)), (other, (other_table, other_index, other_label)) = list(first.items())[:2]
        raise UserError(
            f"{other_table.rows.where(other_index)}: the label {shown(other_label)} is a {other}, but "
            f"{shown(label)} in {table.rows.where(index)} is a {one}; mend them, or list all in data.classes"
        )
    names = {class_name(label) for table in train for _, label in table.each()}
    if len(names) < 2:
        found = f"every label is {names.pop()!r}" if names else "no example has a label"
        raise UserError(f"{places([table.rows for table in train])}: {found}; there must be two classes at least")
    return tuple(sorted(names, key=lambda name: (float(name), name)) if "number" in first else sorted(names))


def check_known(split: Sequence[Labelled], classes: Sequence[str]) -> None:
    """Raises UserError where a row has a class that is none of the `classes`."""
    known = set(classes)
    for table in split:
        unknown = [(index, name) for index, names in enumerate(table.names) for name in names if name not in known]
        if unknown:
            where = table.rows.where(*dict.fromkeys(index for index, _ in unknown))
            name = unknown[0][1]
            raise UserError(
                f"{where}: the label {shown(name)} is unknown{did_you_mean(name, classes)}; the classes, from the "
                f"training files or data.classes, are {shown(', '.join(classes), 200)}"
            )


def check_frequent(train: Sequence[Labelled], validation: Sequence[Labelled], classes: Sequence[str]) -> None:
    """Raises UserError where a class has less than two training examples, or no validation example."""
    counts = _counts(train)
    lonely = [name for name in classes if counts[name] == 1]
    if lonely:
        where = next(
            table.rows.where(index) for table in train for index, names in enumerate(table.names) if lonely[0] in names
        )
        near = did_you_mean(lonely[0], [name for name in classes if name != lonely[0]])
        more = f" ({len(lonely) - 1} more like it)" if len(lonely) > 1 else ""
        raise UserError(
            f"{where}: the class {lonely[0]!r} has this one training example{near}; add some, or take it out{more}"
        )
    _check_all_there(train, classes, "training")
    _check_all_there(validation, classes, "validation")


def _check_all_there(split: Sequence[Labelled], classes: Sequence[str], name: str) -> None:
    counts = _counts(split)
    absent = [known for known in classes if not counts[known]]
    if absent:
        raise UserError(
            f"{places([table.rows for table in split])}: no {name} example has the class "
            f"{shown(', '.join(absent), 200)}; add some, or take the class out of the data"
        )


def _counts(split: Sequence[Labelled]) -> Counter[str]:
    return Counter(chain.from_iterable(set(names) for table in split for names in table.names))


def places(split: Sequence[Rows]) -> str:
    """Return the names of a split's files, for a message: the first, and how many more there are."""
    more = len(split) - 1
    return split[0].place + (f" and {more} more file{'s' if more > 1 else ''}" if more else "")
