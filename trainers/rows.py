"""Rows as they were found in a file or a data set, unchecked, and the words that point at one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stkd.trainers.errors import UserError
from stkd.trainers.tasks import did_you_mean

SHOWN_ROWS = 5
"""Rows that a message names; of more it says how many they are."""


@dataclass(frozen=True)
class Rows:
    """One split, or one file of it, as it was found, and what it takes to point at one of its rows."""

    place: str
    """The file or the data set."""
    unit: str
    """What `numbers` count: `line` or `row`."""
    numbers: Sequence[int]
    texts: tuple[list[Any], ...]
    """One list for each text column."""
    labels: list[Any]
    """Empty where none were read."""

    def where(self, *indices: int) -> str:
        """Return where the rows lie, for a message."""
        return at(self.place, self.unit, [self.numbers[index] for index in indices])


def at(place: str, unit: str, numbers: Sequence[int]) -> str:
    """Return `place, line 3`, or `place, lines 3, 5 and 9`; of many the first few, and how many there are."""
    words = [str(number) for number in numbers[:SHOWN_ROWS]]
    if len(numbers) == 1:
        return f"{place}, {unit} {words[0]}"
    if len(numbers) > SHOWN_ROWS:
        return f"{place}, {unit}s {', '.join(words)}, ... ({len(numbers):,} in all)"
    return f"{place}, {unit}s {', '.join(words[:-1])} and {words[-1]}"


def check_texts(rows: Rows, empty_allowed: bool = False) -> None:
    """Raises UserError where there are no rows, or what should be a text is none or is empty."""
    if not rows.numbers:
        raise UserError(f"{rows.place} has no examples")
    for texts in rows.texts:
        foreign = [index for index, text in enumerate(texts) if not isinstance(text, str)]
        if foreign:
            raise UserError(f"{rows.where(*foreign)}: {shown(texts[foreign[0]])} stands where a text must be")
        empty = [index for index, text in enumerate(texts) if not text.strip()]
        if empty and not empty_allowed:
            text = texts[empty[0]]
            raise UserError(f"{rows.where(*empty)}: the text is empty ({text!r}); give it words, or leave the row out")


def decode(path: Path, content: bytes, encoding: str, advice: str) -> str:
    """Return a file's text without a byte order mark; `advice` ends the message where a byte does not fit."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        number = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        byte = f"0x{content[error.start]:02x}"
        raise UserError(f"{path}, line {number}: byte {byte} is not {encoding.upper()}; {advice}") from error
    return text.removeprefix("\ufeff")


def position(name: str, header: Sequence[str], where: str, advice: str = "") -> int:
    """Return where the column stands in the header; raises UserError where it does not, or stands twice."""
    if name not in header:
        found = shown(", ".join(header), 200)
        raise UserError(f"{where}: no column {name!r}{did_you_mean(name, header)}; the columns are {found}{advice}")
    if header.count(name) > 1:
        raise UserError(f"{where}: the column {name!r} stands {header.count(name)} times; leave one")
    return header.index(name)


def existing(path: Path) -> Path:
    """Return the path; if it does not exist, say which part of it does not, and what is there instead."""
    if path.exists():
        return path
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    if not missing.parent.is_dir():
        raise UserError(f"{missing.parent} is a file, not a folder: there is no {path}")
    names = sorted(entry.name for entry in missing.parent.iterdir())
    hint = did_you_mean(missing.name, names) or f"; {missing.parent} holds {shown(', '.join(names) or 'nothing', 120)}"
    raise UserError(f"{path} does not exist: there is no {missing.name!r} in {str(missing.parent)!r}{hint}")


def shown(value: object, width: int = 80) -> str:
    """Return the value as a literal of one line, cut to about `width` characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= width else value[: width - 3] + "...")
    literal = repr(value)
    return literal if len(literal) <= width else literal[: width - 3] + "..."


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
