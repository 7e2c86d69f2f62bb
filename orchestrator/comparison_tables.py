"""A comparison of two trials, as a person reads it. Scores are in percent."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from stkd.orchestrator.comparison import EQUAL_WEIGHTS, Comparison, Pair
from stkd.orchestrator.score_tables import print_line
from stkd.orchestrator.tables import print_whole

UNSCALED = {"loss", "epochs", "best epoch", "parameters", "megabytes", "milliseconds_per_example", "seconds"}
"""Outcomes that are no scores."""
LONGEST_HASH = 12
TEACHERS = "teacher's "
"""Begins what the teacher was computed with."""


def print_comparison(console: Console, found: Comparison, epochs: bool) -> None:
    """Print what differs in the inputs, what does not, and both outcomes; if asked for, epoch by epoch."""
    for label, run in (("A", found.left), ("B", found.right)):
        print_line(console, f"{label}  {run.name}  {run.trial.name}")
    print_line(console, "")
    if found.changed:
        print_whole(console, _table("input", found.changed, scored=False))
    else:
        print_line(console, "inputs: no difference is recorded")
    settings = [name for name in found.same if "." in name]
    known = (name for name in found.same if name not in settings)
    named = dict.fromkeys("the teacher's code and libraries" if name.startswith(TEACHERS) else name for name in known)
    print_line(console, f"the same: {', '.join(named)}; {len(settings)} other settings")
    print_line(console, "")
    print_whole(console, _table("outcome", [pair for pair in found.outcome if _is_known(pair)], scored=True))
    if epochs:
        print_line(console, "")
        print_whole(console, _epochs_table(found))


def _is_known(pair: Pair) -> bool:
    return pair.left is not None or pair.right is not None


def _table(heading: str, pairs: list[Pair], scored: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in (heading, "A", "B", *(["B - A"] if scored else [])):
        table.add_column(name, justify="left" if name == heading else "right", no_wrap=True)
    for pair in pairs:
        if pair.name == "weights" and not pair.differs:
            table.add_row(pair.name, EQUAL_WEIGHTS, EQUAL_WEIGHTS, "0")
            continue
        factor = 100 if scored and isinstance(pair.left or pair.right, float) and pair.name not in UNSCALED else 1
        cells = [_text(value, factor) for value in (pair.left, pair.right)]
        difference = [_signed(pair.difference, factor)] if scored else []
        table.add_row(pair.name, *cells, *difference)
    return table


def _epochs_table(found: Comparison) -> Table:
    names = list(dict.fromkeys(pair.name for pairs in found.epochs.values() for pair in pairs))
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("epoch", *(f"{name} {side}" for name in names for side in "AB")):
        table.add_column(heading, justify="right", no_wrap=True)
    for epoch, pairs in found.epochs.items():
        by_name = {pair.name: pair for pair in pairs}
        cells = []
        for name in names:
            factor, pair = 1 if name in UNSCALED else 100, by_name.get(name, Pair(name, None, None))
            cells += [_text(pair.left, factor), _text(pair.right, factor)]
        table.add_row(str(epoch), *cells)
    return table


def _text(value: Any, factor: int) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{factor * value:.1f}" if factor > 1 else f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.4g}"
        case str() if len(value) == 64 and value.isalnum():
            return value[:LONGEST_HASH]
        case _:
            return str(value)


def _signed(difference: float | None, factor: int) -> str:
    return "" if difference is None else "0" if not difference else f"{factor * difference:+.3g}"
