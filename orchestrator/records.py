"""Rows of a table as machines read them: JSON or CSV."""

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from math import isfinite
from typing import Literal

Printed = Literal["json", "csv"]
"""How a table is printed for machines."""
Record = Mapping[str, object]
"""A row: what stands in it, by column. Values may be nested; CSV has them under dotted names."""


def machine_text(records: Sequence[Record], printed: Printed) -> str:
    """The rows as a list of JSON, or as CSV with a line of names, without a line end."""
    return as_json(records) if printed == "json" else as_csv(records)


def as_json(content: object) -> str:
    """JSON by the standard: what is no number, as an interval without an end, is null."""
    return json.dumps(finite(content), indent=2, allow_nan=False)


def as_csv(records: Sequence[Record]) -> str:
    """A column for every name that any row has, in the order of their first appearance."""
    rows = [{name: _cell(value) for name, value in flat(record).items()} for record in records]
    text = StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _cell(value: object) -> object:
    return " ".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings by their dotted keys."""
    found: dict[str, object] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def finite(content: object) -> object:
    """The same, with None for every number that JSON has not."""
    match content:
        case float():
            return content if isfinite(content) else None
        case Mapping():
            return {key: finite(value) for key, value in content.items()}
        case list() | tuple():
            return [finite(value) for value in content]
        case _:
            return content
