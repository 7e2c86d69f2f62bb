"""The scores of a teacher's heads and neurons by layer, as tables for a person."""

from rich import box
from rich.console import Console
from rich.table import Table

from stkd.orchestrator.score_report import ScoreReport, UnitsReport
from stkd.orchestrator.tables import percent, print_whole


def print_scores(console: Console, name: str, report: ScoreReport) -> None:
    """Print both tables, and what they say of lambda."""
    for units, found in (("heads", report.heads), ("neurons", report.neurons)):
        print_line(console, f"\n{name}: each layer's % of all scores, and how many of its {found.units:,} {units} go")
        print_whole(console, scores_table(found))
    heads, neurons = report.heads.correlation, report.neurons.correlation
    lines = (
        f"knowledge is at lambda {report.interpolation:g}; s is the sparsity, and units go by {report.scorer}",
        f"Spearman's rank correlation of expressiveness and friendliness: heads {heads:.2f}, neurons {neurons:.2f}",
        "(near 1, both rank units alike, and lambda changes little)",
    )
    for line in lines:
        print_line(console, line)


def scores_table(found: UnitsReport) -> Table:
    """A row for each layer, fitting into 80 columns."""
    table = Table(box=box.SIMPLE_HEAD)
    removed = (f"s={sparsity:g}" for sparsity in found.sparsities)
    for column in ("layer", "expressiveness", "friendliness", "knowledge", *removed):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in found.layers:
        shares = (layer.expressiveness, layer.friendliness, layer.knowledge)
        table.add_row(str(layer.layer), *(percent(share) for share in shares), *(f"{gone:,}" for gone in layer.removed))
    table.add_section()
    totals = (sum(gone) for gone in zip(*(layer.removed for layer in found.layers), strict=True))
    table.add_row("all", "", "", "", *(f"{total:,}" for total in totals))
    return table


def print_line(console: Console, text: str) -> None:
    """Print a line as it is, also where it is wider than the screen."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
