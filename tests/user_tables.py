"""Writes tables as a user's files: every format that `data.source: files` reads."""

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stkd.trainers.config import DataConfig

Row = Mapping[str, Any]
GOOD = "text,label\na,x\nb,y\nc,x\nd,y\n"
"""A CSV that makes a task."""
FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")


def write_table(path: Path, rows: Sequence[Row]) -> Path:
    """Write the rows in the format of the path's name; texts of CSV and TSV hold lists with `|` between members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
        return path
    writers = {".csv": _csv, ".tsv": _tsv, ".jsonl": _json_lines}
    content = writers[path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix](rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _csv(rows: Sequence[Row]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(rows[0])
    writer.writerows([_field(value) for value in row.values()] for row in rows)
    return file.getvalue()


def _tsv(rows: Sequence[Row]) -> str:
    lines = ["\t".join(rows[0])] + ["\t".join(_field(value) for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def _json_lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _field(value: object) -> str:
    if isinstance(value, list):
        return "|".join(_field(member) for member in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def files(train: Path | str | list[str], validation: Path | str, **settings: Any) -> DataConfig:
    """The settings of a task of these files."""
    paths = {"train": train if isinstance(train, list) else str(train), "validation": str(validation)}
    return DataConfig.model_validate({"source": "files", "selection": "official", **paths, **settings})
