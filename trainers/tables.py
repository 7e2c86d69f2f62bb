"""Reads one file of a user's own: CSV, TSV, JSON lines or Parquet. Nothing heavy is loaded but for Parquet."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stkd.trainers.config import DataConfig
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


def read_table(path: Path, config: DataConfig) -> Rows:
    """Read the columns that `config` names, unchecked.

    Raises:
        UserError: the file cannot be read as what it should be, or lacks a column.

    """
    form = config.format or _format_of(path)
    if form == "parquet":
        return _read_parquet(path, config)
    return _read_json_lines(path, config) if form == "jsonl" else _read_delimited(path, config, form)


def _format_of(path: Path) -> str:
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    form = FORMATS.get(ending.lower())
    if form is None or (form == "parquet" and path.suffix == ".gz"):
        raise UserError(
            f"{path}: the name does not tell the format{did_you_mean(ending, FORMATS)}; it must end with one of "
            f"{', '.join(FORMATS)} (a text may be packed: .csv.gz), or set data.format"
        )
    return form


def _columns(config: DataConfig) -> dict[str, str]:
    """The columns to read, by the setting that names them: the label, the text, and the second text if there is one."""
    pair = {} if config.text_pair is None else {"text_pair": config.text_pair}
    return {"label": config.label, "text": config.text, **pair}


def _positions(header: Sequence[str], config: DataConfig, where: str) -> list[int]:
    return [
        position(name, header, where, f"; set data.{setting} to the right one")
        for setting, name in _columns(config).items()
    ]


def _rows(path: Path, unit: str, numbers: list[int], columns: list[list[Any]]) -> Rows:
    labels, *texts = columns
    return Rows(str(path), unit, numbers, tuple(texts), labels)


def _text_of(path: Path, encoding: str) -> str:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} cannot be unpacked: {first_line(error)}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        advice = "it looks like UTF-16: set data.encoding to utf-16"
    else:
        advice = "save the file as UTF-8, or set data.encoding, as to cp1252"
    text = decode(path, content, encoding, advice)
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text


# CSV and TSV


def _read_delimited(path: Path, config: DataConfig, form: str) -> Rows:
    delimiter = config.delimiter or ("," if form == "csv" else "\t")
    quoting = form == "csv" if config.quoting is None else config.quoting
    text = _text_of(path, config.encoding)
    records = list(_quoted_records(path, text, delimiter) if quoting else _plain_records(text, delimiter))
    (line, header), body = records[0], records[1:]
    where = at(str(path), "line", [line])
    _check_delimiter(header, delimiter, where)
    positions = _positions(header, config, where)
    _check_widths(path, len(header), body, quoting)
    columns = [[fields[column] for _, fields in body] for column in positions]
    return _rows(path, "line", [number for number, _ in body], columns)


def _quoted_records(path: Path, text: str, delimiter: str) -> Iterator[Record]:
    """Rows in which quotes may enclose delimiters and line breaks; empty lines are left out."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a text may be long
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
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


def _plain_records(text: str, delimiter: str) -> Iterator[Record]:
    """Rows of files that know no quoting, in which every delimiter and line break separates."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.removesuffix("\r"):
            yield number, line.removesuffix("\r").split(delimiter)


def _check_delimiter(header: list[str], delimiter: str, where: str) -> None:
    other = next((mark for mark in ",;\t|" if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other is not None:
        raise UserError(f"{where}: the header is one column, {shown(header[0])}; set data.delimiter to {other!r}")


def _check_widths(path: Path, width: int, body: list[Record], quoting: bool) -> None:
    wrong = [(number, fields) for number, fields in body if len(fields) != width]
    if not wrong:
        return
    fields = wrong[0][1]
    columns = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
    found = shown(" | ".join(fields))
    where = at(str(path), "line", [number for number, _ in wrong])
    hint = "" if quoting or '"' not in found else "; set data.quoting to true if quotes enclose fields"
    raise UserError(f"{where}: {columns}, not {width} as in the header, in {found}{hint}")


# JSON lines


def _read_json_lines(path: Path, config: DataConfig) -> Rows:
    """Read one object a line; empty lines are left out, and a key that an object lacks counts as null."""
    numbers, objects, broken = [], [], []
    for number, line in enumerate(_text_of(path, config.encoding).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            objects.append(_json_object(line))
            numbers.append(number)
        except (ValueError, RecursionError) as error:
            broken.append((number, f"{first_line(error)} in {shown(line)}"))
    if broken:
        raise UserError(f"{at(str(path), 'line', [number for number, _ in broken])}: {broken[0][1]}")
    keys = list(dict.fromkeys(key for found in objects for key in found))
    _positions(keys, config, str(path))
    return _rows(path, "line", numbers, [[found.get(name) for found in objects] for name in _columns(config).values()])


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


def _read_parquet(path: Path, config: DataConfig) -> Rows:
    import pyarrow.parquet

    names = list(_columns(config).values())
    with _parquet_errors(path):
        header = pyarrow.parquet.read_schema(path).names
    _positions(header, config, str(path))
    with _parquet_errors(path), pyarrow.parquet.ParquetFile(path) as file:
        table = file.read(columns=names)
        columns = [table.column(name).to_pylist() for name in names]
    return _rows(path, "row", list(range(1, table.num_rows + 1)), columns)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {first_line(error)}") from error
