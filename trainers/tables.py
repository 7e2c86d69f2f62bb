"""Reads files of a user's own: CSV, TSV, JSON lines or Parquet, as a whole or window by window.

Nothing heavy is loaded but for Parquet.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from stkd.trainers.config import DataConfig, encoding_name, one_character
from stkd.trainers.errors import UserError
from stkd.trainers.rows import Rows, at, decode, first_line, position, shown
from stkd.trainers.tasks import did_you_mean

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
"""Formats by the end of a file's name."""
QUOTING_ERRORS = {
    "unexpected end of data": "a quote is opened and never closed",
    "expected after": "text follows a closing quote; a quote inside a quoted field is written twice",
}
"""What Python's `csv` says, and what that means."""

Record = tuple[int, list[str]]
"""The line on which a row begins, and its fields."""


@dataclass(frozen=True)
class Layout:
    """How a table lies in its file, and which of its columns are read; None is found out."""

    columns: Mapping[str, str]
    """Names of columns by the settings that name them; the texts are those of `text` and `text_pair`."""
    format: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quoting: bool | None = None
    by_options: bool = False
    """Whether settings are options of the command line, and not keys of a space."""

    def __post_init__(self) -> None:
        """Raises UserError where a setting is none."""
        self._check("encoding", self.encoding, encoding_name)
        if self.delimiter is not None:
            self._check("delimiter", self.delimiter, one_character)

    def _check(self, setting: str, value: str, check: Callable[[str], object]) -> None:
        try:
            check(value)
        except ValueError as error:
            raise UserError(f"{self.named(setting)} {value!r}: {error}") from error

    @classmethod
    def of(cls, config: DataConfig) -> "Layout":
        """That of a task's files."""
        pair = {} if config.text_pair is None else {"text_pair": config.text_pair}
        columns = {"label": config.label, "text": config.text, **pair}
        return cls(columns, config.format, config.encoding, config.delimiter, config.quoting)

    def named(self, setting: str) -> str:
        """What messages call a setting."""
        return f"--{setting.replace('_', '-')}" if self.by_options else f"data.{setting}"

    def positions(self, header: Sequence[str], where: str) -> list[int]:
        """Where the columns stand; raises UserError where one does not."""
        return [
            position(name, header, where, f"; set {self.named(setting)} to the right one")
            for setting, name in self.columns.items()
        ]


def read_table(path: Path, config: DataConfig) -> Rows:
    """Read the columns that `config` names, unchecked.

    Raises:
        UserError: the file cannot be read as what it should be, or lacks a column.

    """
    return next(read_windows(path, Layout.of(config)))


def read_windows(path: Path, layout: Layout, size: int | None = None) -> Iterator[Rows]:
    """Read so many rows at a time, or all at once; no more of the file is held. There is always a first window.

    Raises:
        UserError: the file cannot be read as what it should be, or lacks a column; names all such rows of a window.

    """
    form = layout.format or _format_of(path, layout)
    if form == "parquet":
        yield from _parquet_windows(path, layout, size)
    elif form == "jsonl":
        yield from _json_windows(path, layout, size)
    else:
        yield from _delimited_windows(path, layout, form, size)


def _format_of(path: Path, layout: Layout) -> str:
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    form = FORMATS.get(ending.lower())
    if form is None or (form == "parquet" and path.suffix == ".gz"):
        raise UserError(
            f"{path}: the name does not tell the format{did_you_mean(ending, FORMATS)}; it must end with one of "
            f"{', '.join(FORMATS)} (a text may be packed: .csv.gz), or set {layout.named('format')}"
        )
    return form


def _rows(path: Path, layout: Layout, unit: str, numbers: list[int], columns: Sequence[list[Any]]) -> Rows:
    by_setting = dict(zip(layout.columns, columns, strict=True))
    labels = by_setting.pop("label", [])
    return Rows(str(path), unit, numbers, tuple(by_setting.values()), labels)


def _windows(items: Iterator[Any], size: int | None) -> Iterator[list[Any]]:
    """Lists of so many items; the first one also where there are none."""
    window = list(islice(items, size))
    yield window
    while size is not None and (window := list(islice(items, size))):
        yield window


def _lines(path: Path, layout: Layout, newline: str) -> Iterator[str]:
    """The lines of a text, each with its end, without a byte order mark."""
    try:
        with _opened(path) as raw, io.TextIOWrapper(raw, layout.encoding, newline=newline) as text:
            yield next(text, "").removeprefix("\ufeff")
            yield from text
    except UnicodeError:
        _explain_encoding(path, layout)
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be unpacked: {first_line(error)}") from error


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _explain_encoding(path: Path, layout: Layout) -> None:
    """Raises UserError with the line on which a byte does not fit."""
    with _opened(path) as file:
        content = file.read()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        advice = f"it looks like UTF-16: set {layout.named('encoding')} to utf-16"
    else:
        advice = f"save the file as UTF-8, or set {layout.named('encoding')}, as to cp1252"
    decode(path, content, layout.encoding, advice)


# CSV and TSV


def _delimited_windows(path: Path, layout: Layout, form: str, size: int | None) -> Iterator[Rows]:
    delimiter = layout.delimiter or ("," if form == "csv" else "\t")
    quoting = form == "csv" if layout.quoting is None else layout.quoting
    lines = _lines(path, layout, "" if quoting else "\n")
    records = _quoted_records(path, lines, delimiter) if quoting else _plain_records(lines, delimiter)
    line, header = next((record for record in records if any(map(str.strip, record[1]))), (0, []))
    if not header:
        raise UserError(f"{path} is empty")
    where = at(str(path), "line", [line])
    _check_delimiter(header, delimiter, where, layout)
    positions = layout.positions(header, where)
    for body in _windows(records, size):
        _check_widths(path, len(header), body, quoting, layout)
        columns = [[fields[column] for _, fields in body] for column in positions]
        yield _rows(path, layout, "line", [number for number, _ in body], columns)


def _quoted_records(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[Record]:
    """Rows in which quotes may enclose delimiters and line breaks; empty lines are left out."""
    csv.field_size_limit(sys.maxsize)  # a text may be long
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            meaning = next((words for part, words in QUOTING_ERRORS.items() if part in str(error)), str(error))
            raise UserError(f"{at(str(path), 'line', [number])}: {meaning}") from error
        if fields:
            yield number, fields


def _plain_records(lines: Iterable[str], delimiter: str) -> Iterator[Record]:
    """Rows of files that know no quoting, in which every delimiter and line break separates."""
    for number, line in enumerate(lines, start=1):
        text = line.removesuffix("\n").removesuffix("\r")
        if text:
            yield number, text.split(delimiter)


def _check_delimiter(header: list[str], delimiter: str, where: str, layout: Layout) -> None:
    other = next((mark for mark in ",;\t|" if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other is not None:
        advice = f"set {layout.named('delimiter')} to {other!r}"
        raise UserError(f"{where}: the header is one column, {shown(header[0])}; {advice}")


def _check_widths(path: Path, width: int, body: list[Record], quoting: bool, layout: Layout) -> None:
    wrong = [(number, fields) for number, fields in body if len(fields) != width]
    if not wrong:
        return
    fields = wrong[0][1]
    columns = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
    found = shown(" | ".join(fields))
    where = at(str(path), "line", [number for number, _ in wrong])
    mend = f"; set {layout.named('quoting')} to true if quotes enclose fields"
    hint = "" if quoting or '"' not in found else mend
    raise UserError(f"{where}: {columns}, not {width} as in the header, in {found}{hint}")


# JSON lines


def _json_windows(path: Path, layout: Layout, size: int | None) -> Iterator[Rows]:
    """One object a line; empty lines are left out, and a key that an object lacks counts as null."""
    numbered = enumerate((line.removesuffix("\n") for line in _lines(path, layout, "\n")), start=1)
    lines = ((number, line) for number, line in numbered if line.strip())
    for place, window in enumerate(_windows(lines, size)):
        if not place and not window:
            raise UserError(f"{path} is empty")
        objects = _json_objects(path, window)
        if not place:
            layout.positions(list(dict.fromkeys(key for found in objects for key in found)), str(path))
        columns = [[found.get(name) for found in objects] for name in layout.columns.values()]
        yield _rows(path, layout, "line", [number for number, _ in window], columns)


def _json_objects(path: Path, lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    objects, broken = [], []
    for number, line in lines:
        try:
            objects.append(_json_object(line))
        except (ValueError, RecursionError) as error:
            broken.append((number, f"{first_line(error)} in {shown(line)}"))
    if broken:
        raise UserError(f"{at(str(path), 'line', [number for number, _ in broken])}: {broken[0][1]}")
    return objects


def _json_object(line: str) -> dict[str, Any]:
    """Return one line's object; raises ValueError or RecursionError where there is none."""
    try:
        found = json.loads(line, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg}, at character {error.colno})") from error
    if not isinstance(found, dict):
        raise ValueError("no JSON object ({key: value, ...})")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("half of an escaped character") from error
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


# Parquet


def _parquet_windows(path: Path, layout: Layout, size: int | None) -> Iterator[Rows]:
    import pyarrow.parquet

    names = list(layout.columns.values())
    with _parquet_errors(path):
        header = pyarrow.parquet.read_schema(path).names
    layout.positions(header, str(path))
    with _parquet_errors(path), pyarrow.parquet.ParquetFile(path) as file:
        batches = file.iter_batches(size or max(1, file.metadata.num_rows), columns=names)
        first = 1
        for columns in chain(_columns(batches, names), [[[] for _ in names]]):
            count = len(columns[0])
            if count or first == 1:
                yield _rows(path, layout, "row", list(range(first, first + count)), columns)
            first += count


def _columns(batches: Iterable[Any], names: Sequence[str]) -> Iterator[list[list[Any]]]:
    for batch in batches:
        yield [batch.column(name).to_pylist() for name in names]


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {first_line(error)}") from error
