"""Commands that look at what sweeps have found: lists, the report, comparisons, and a student rebuilt."""

from pathlib import Path

import click

from stkd.orchestrator.options import debug_option, printed_option, storage_option
from stkd.orchestrator.records import Printed, machine_text


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
@printed_option
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
    printed: Printed | None,
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
        Listing.of_trials(root.find_sweep(sweep_id or "latest"), task, selection).show(printed)
    elif sweep_id is None:
        Listing.of_sweeps(root).show(printed)
    else:
        Listing.of_tasks(root.find_sweep(sweep_id)).show(printed)


@click.command()
@storage_option
@click.option("--sweep", "sweep_id", default="latest", show_default=True, metavar="SWEEP", help="Which sweep.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it, instead of beside the sweep."
)
@debug_option
def report(storage: Path, sweep_id: str, out: Path | None) -> None:
    """Write what a sweep has found as one page of HTML, the answer first.

    The page needs no network and no other file. A sweep that ends writes it, too, and MLflow has it on the sweep's run.
    """
    from stkd.orchestrator.activity import Activity
    from stkd.orchestrator.layout import Storage
    from stkd.orchestrator.report import write_report

    root = Storage(storage.expanduser().absolute())
    sweep = root.find_sweep(sweep_id)
    path = sweep.report if out is None else out
    write_report(root, sweep, path, Activity.of(sweep))
    click.echo(f"written to {path}")


@click.command()
@click.argument("left", metavar="RUN")
@click.argument("right", metavar="RUN")
@storage_option
@click.option("--epochs", is_flag=True, help="Epoch by epoch, too.")
@printed_option
@debug_option
def compare(left: str, right: str, storage: Path, epochs: bool, printed: Printed | None) -> None:
    """Show what differs between two trials, in what went in and in what came out.

    RUN is a trial's id, SWEEP/TASK/TRIAL, or an MLflow run id; the beginning is enough where it is the only one that
    begins so. `best` is the best student of the latest sweep, SWEEP/TASK/best that of another.

    \b
      stkd compare best 3f2a
      stkd compare latest/mrpc/best quickstart-20261123-110106/remarks/best --epochs
    """  # noqa: D301 - click's mark of lines that stay as they are
    from rich.console import Console

    from stkd.orchestrator.comparison import Comparison
    from stkd.orchestrator.comparison_tables import print_comparison
    from stkd.orchestrator.finding import find_run
    from stkd.orchestrator.layout import Storage

    root = Storage(storage.expanduser().absolute())
    found = Comparison.of(find_run(root, left), find_run(root, right))
    if printed:
        click.echo(machine_text(found.as_records(epochs), printed))
    else:
        print_comparison(Console(), found, epochs)


@click.command()
@click.argument("run", metavar="RUN")
@storage_option
@click.option("--from-scratch", is_flag=True, help="Train the teacher anew, too.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Where data or models lie now; repeatable."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0, 1.0),
    default=0.02,
    show_default=True,
    help="What the score (in 0..1) may differ by where bits cannot be equal.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Keep what is rebuilt, in this new folder.")
@printed_option
@debug_option
def reproduce(
    run: str,
    storage: Path,
    from_scratch: bool,
    overrides: tuple[str, ...],
    tolerance: float,
    out: Path | None,
    printed: Printed | None,
) -> int:
    """Rebuild a student from its record alone, and compare.

    All stages and the training run anew, but for the teacher, whose files are checked; nothing of the trial is taken
    over. With the same data, code, libraries and kind of processor the student is equal to the bit. Where code,
    libraries or device have changed, that is said, and its score must be within the tolerance. The exit code is 1 where
    it is not, or where data, models or settings have changed. RUN is as in `stkd compare`.

    \b
      stkd reproduce best
      stkd reproduce latest/mrpc/3f2a --from-scratch
    """  # noqa: D301 - click's mark of lines that stay as they are
    from stkd.orchestrator.finding import find_run
    from stkd.orchestrator.layout import Storage

    found = find_run(Storage(storage.expanduser().absolute()), run)
    from stkd.orchestrator.reproducing import run_reproduce  # loads Ray and torch

    return run_reproduce(found, overrides, from_scratch, tolerance, out, printed)
