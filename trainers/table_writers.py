"""Writes tables window by window: CSV, TSV, JSON lines or Parquet. A window is a list of values for each column."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stkd.trainers.errors import UserError
from stkd.trainers.tables import FORMATS
from stkd.trainers.tasks import did_you_mean

Window = Mapping[str, list[Any]]
Write = Callable[[Window], None]
SEPARATOR = ";"
"""Between the classes of an example, where a text must hold them."""


def format_of(path: Path) -> str:
    """The format that a name tells; raises UserError where it tells none."""
    packed = path.suffix == ".gz"
    ending = (path.with_suffix("").suffix if packed else path.suffix).lower()
    form = FORMATS.get(ending)
    if form is None or (form == "parquet" and packed):
        near = did_you_mean(ending, FORMATS)
        raise UserError(
            f"{path}: the name does not tell the format{near}; it must end with one of {', '.join(FORMATS)}"
        )
    return form


@contextmanager
def table_writer(path: Path, form: str, packed: bool = False) -> Iterator[Write]:
    """Gives what writes a window into the file."""
    if form == "parquet":
        with _parquet(path) as write:
            yield write
        return
    with (
        path.open("wb") as raw,
        gzip.open(raw, "wb") if packed else raw as binary,
        io.TextIOWrapper(binary, encoding="utf-8", newline="") as file,
    ):
        yield text_writer(file, form)


def text_writer(file: IO[str], form: str) -> Write:
    """What writes windows as CSV, TSV or JSON lines; CSV and TSV begin with a header."""
    return _json_lines(file) if form == "jsonl" else _delimited(file, "," if form == "csv" else "\t")


def _delimited(file: IO[str], delimiter: str) -> Write:
    rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    begun = False

    def write(window: Window) -> None:
        nonlocal begun
        if not begun:
            rows.writerow(window)
            begun = True
        rows.writerows(zip(*map(_fields, window.values()), strict=True))

    return write


def _fields(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, float):
            yield f"{value:.6g}"
        else:
            yield SEPARATOR.join(value) if isinstance(value, list) else str(value)


def _json_lines(file: IO[str]) -> Write:
    def write(window: Window) -> None:
        for row in zip(*window.values(), strict=True):
            file.write(json.dumps(dict(zip(window, row, strict=True)), ensure_ascii=False) + "\n")

    return write


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow
    import pyarrow.parquet

    writer: pyarrow.parquet.ParquetWriter | None = None

    def write(window: Window) -> None:
        nonlocal writer
        table = pyarrow.table(dict(window), schema=None if writer is None else writer.schema)
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
