"""Commands that look at what sweeps have found: lists, the report, comparisons, and a student rebuilt."""

from pathlib import Path

import click

from stkd.orchestrator.options import debug_option, format_option, storage_option
from stkd.orchestrator.records import Form


@click.command("list")
@storage_option
@click.option("--sweep", "sweep_id", metavar="SWEEP", help="The tasks of this sweep (`latest` is the newest).")
@click.option("--trials", is_flag=True, help="Trials instead of tasks; the options below mean them, too.")
@click.option("--task", metavar="TASK", help="Only trials of this task.")
@click.option("--status", type=click.Choice(["finished", "stopped", "failed", "running"]), help="Only those.")
@click.option("--phase", type=click.Choice(["search", "control", "confirm"]), help="Only those.")
@click.option(
    "--role", type=click.Choice(["candidate", "no teacher", "dense teacher", "random teacher"]), help="Only those."
)
@click.option("--where", multiple=True, metavar="COND", help="As in 'sparsity>=0.3' or 'score>0.8'; repeatable.")
@click.option("--sort", metavar="COLUMN", help="Highest first, by any setting or metric.")
@click.option("--ascending", is_flag=True, help="With --sort: lowest first.")
@click.option("--top", type=click.IntRange(1), help="At most so many.")
@format_option
@debug_option
def list_(
    storage: Path,
    sweep_id: str | None,
    trials: bool,
    task: str | None,
    status: str | None,
    phase: str | None,
    role: str | None,
    where: tuple[str, ...],
    sort: str | None,
    ascending: bool,
    top: int | None,
    form: Form | None,
) -> None:
    """List the sweeps of a storage folder, the tasks of a sweep, or its trials.

    Scores in conditions are in 0..1, settings go by their full keys or by what they end with.

    \b
      stkd list
      stkd list --sweep latest
      stkd list --sweep latest --status finished --where 'sparsity>=0.3' --sort score --top 5
    """  # noqa: D301 - click's mark of lines that stay as they are
    from stkd.orchestrator.filters import Selection
    from stkd.orchestrator.layout import Storage
    from stkd.orchestrator.list_tables import Listing

    equal = {"status": status, "phase": phase, "role": role}
    conditions = [*(f"{column}={value}" for column, value in equal.items() if value), *where]
    selection, root = Selection(conditions, sort, ascending, top), Storage(storage.expanduser().absolute())
    if trials or task or selection:
        Listing.of_trials(root.find_sweep(sweep_id or "latest"), task, selection).show(form)
    elif sweep_id is None:
        Listing.of_sweeps(root).show(form)
    else:
        Listing.of_tasks(root.find_sweep(sweep_id)).show(form)
