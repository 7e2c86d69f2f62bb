"""Which records are shown: conditions such as `sparsity>=0.3`, an order, and how many of them."""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stkd.orchestrator.records import Record
from stkd.orchestrator.results import SHORT_NAMES
from stkd.trainers.errors import UserError
from stkd.trainers.tasks import did_you_mean

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
SHAPE = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*")
LONG_NAMES = {short: name for name, short in SHORT_NAMES.items()}


@dataclass(frozen=True)
class Condition:
    """A comparison of one column with one value."""

    text: str
    column: str
    comparison: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Reads `COLUMN=VALUE`, with any comparison; raises UserError."""
        found = SHAPE.fullmatch(text)
        if found is None:
            raise UserError(f"--where {text}: no comparison; write one of {' '.join(COMPARISONS)}, as in 'score>=0.8'")
        return cls(text, *found.groups())

    def holds(self, record: Record, column: str) -> bool:
        """Whether the record meets it; one without a value is only unequal to everything. Raises UserError."""
        found = record.get(column)
        if found is None or found == "":
            return self.comparison == "!="
        compare = COMPARISONS[self.comparison]
        if isinstance(found, int | float) and not isinstance(found, bool):
            return compare(found, self._number(found))
        if self.comparison not in ("=", "!="):
            raise UserError(f"--where {self.text}: {column} is no number; compare it with = or !=")
        return compare(str(found).lower(), self.value.lower())

    def _number(self, example: float) -> float:
        try:
            return float(self.value)
        except ValueError as error:
            raise UserError(f"--where {self.text}: {self.value!r} is no number, as {example:g} is") from error


@dataclass(frozen=True)
class Selection:
    """Conditions that must all hold, the column that says what comes first, and how many are taken."""

    where: Sequence[str] = ()
    sort: str | None = None
    ascending: bool = False
    top: int | None = None

    def __bool__(self) -> bool:
        return bool(self.where or self.sort or self.top)

    def of(self, records: Sequence[Record]) -> tuple[list[Record], list[str]]:
        """The records selected, and the columns that they were selected by; raises UserError."""
        conditions = [Condition.parse(text) for text in self.where]
        columns = [column_of(condition.column, records, f"--where {condition.text}") for condition in conditions]
        found = [
            record
            for record in records
            if all(condition.holds(record, column) for condition, column in zip(conditions, columns, strict=True))
        ]
        if self.sort is not None:
            columns.append(column_of(self.sort, records, f"--sort {self.sort}"))
            found = _ordered(found, columns[-1], self.ascending)
        return found[: self.top], columns


def _ordered(records: Sequence[Record], column: str, ascending: bool) -> list[Record]:
    """Those without a value come last; texts are not mixed with numbers in one column."""
    known = [record for record in records if record.get(column) not in (None, "")]
    unknown = [record for record in records if record.get(column) in (None, "")]
    return [*sorted(known, key=lambda record: _key(record[column]), reverse=not ascending), *unknown]


def _key(value: object) -> tuple[float, str]:
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def column_of(name: str, records: Iterable[Record], place: str) -> str:
    """The column that is meant: by its name, a short one (`lambda`), or the end of one (`sparsity`)."""
    columns = list(dict.fromkeys(column for record in records for column in record))
    name = LONG_NAMES.get(name, name)
    if name in columns or not columns:
        return name
    ending = [column for column in columns if column.endswith(f".{name}")]
    first = next((column for column in ending if column == f"distillation.{name}"), None)
    if first or len(ending) == 1:
        return first or ending[0]
    if ending:
        raise UserError(f"{place}: {name} may be {' or '.join(ending)}; write it out")
    near = did_you_mean(name, [*columns, *(column.rpartition(".")[2] for column in columns), *LONG_NAMES])
    shown = ", ".join(column for column in columns if not column.startswith("seconds_"))
    raise UserError(f"{place}: there is no {name!r}{near}; there are: {shown}")
