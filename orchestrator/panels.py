"""The parts that a report's page is made of: charts with their numbers, tables, sections."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stkd.orchestrator.results import SHORT_NAMES, TrialResult
from stkd.search_spaces.schema import setting_of

MOST_ROWS = 200


@dataclass(frozen=True)
class Numbers:
    """A table: its heading, and rows of text. The first column names the rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """As many rows as a page bears."""
        return self.rows[:MOST_ROWS]

    @property
    def left_out(self) -> int:
        """How many rows are too many."""
        return len(self.rows) - len(self.shown)


@dataclass(frozen=True)
class Panel:
    """A chart with what it says and its numbers."""

    title: str
    caption: str
    chart: Markup
    numbers: Numbers
    wide: bool = False
    """Whether it needs the whole width of the page."""


@dataclass(frozen=True)
class Section:
    """A part of the page, with its name for links."""

    name: str
    title: str
    panels: Sequence[Panel] = ()
    texts: Sequence[str] = ()
    numbers: Numbers | None = None


def heading(key: str) -> str:
    """What a searched key is called: `lambda` for `distillation.interpolation`."""
    setting = key.rpartition(".")[2]
    return SHORT_NAMES.get(setting, setting)


def value_of(trial: TrialResult, key: str) -> float | None:
    """A trial's number for a setting by its full key; None where it was not drawn, or is no number."""
    found = next((value for name, value in trial.values.items() if ".".join(setting_of(name)) == key), None)
    return float(found) if isinstance(found, int | float) else None


def short_name(name: str) -> str:
    """A contender's name without the settings that all of its kind share."""
    parts = (part for part in name.split(" ") if not part.startswith(("hard_weight=", "scorer=")))
    return " ".join(parts).rstrip(",")
