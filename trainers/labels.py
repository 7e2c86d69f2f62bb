"""What a label can be as it stands in a user's file, and what the class is called that it names."""

import math
import re
from typing import Literal, TypeGuard

Label = str | int | float | bool
LabelType = Literal["word", "number", "boolean"]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
"""As people write numbers: `01`, `+1` and `1e3` are codes, and stay the words that they are."""


def is_label(value: object) -> TypeGuard[Label]:
    """Whether a value can be a label: a word, a finite number or a boolean."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def is_missing(value: object) -> bool:
    """Whether there is no label where one could stand: nothing, an empty text, or not a number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def label_type(label: Label) -> LabelType:
    """What a label is; a text that is a number counts as one, since CSV knows only texts."""
    if isinstance(label, bool):
        return "boolean"
    if isinstance(label, str):
        return "number" if _NUMBER.fullmatch(label.strip()) else "word"
    return "number"


def class_name(label: Label) -> str:
    """The name of the class that a label stands for: `1`, `1.0` and the text `1.0` are one class, `01` is another."""
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, str):
        word = label.strip()
        return re.sub(r"\.0+$", "", word) if label_type(word) == "number" else word
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def is_fraction(label: Label) -> bool:
    """Whether a label is a number that is not whole."""
    return label_type(label) == "number" and not re.fullmatch(r"-?[0-9]+", class_name(label))


def score(value: object) -> float | None:
    """The finite number that a label of a regression is, or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
