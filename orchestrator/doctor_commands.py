"""The command that looks before a sweep leaps."""

from pathlib import Path

import click

from stkd.orchestrator.options import (
    debug_option,
    names,
    printed_option,
    results_option,
    set_option,
    space_option,
    tasks_option,
)
from stkd.orchestrator.records import Printed


@click.command()
@click.option(
    "--address", metavar="HOST:PORT", help="Look at the Ray cluster whose GCS is there, from one of its nodes."
)
@space_option
@set_option
@tasks_option
@results_option
@click.option("--only", default="", metavar="A,B", help="Only these checks, by the names in front of their lines.")
@printed_option
@debug_option
def doctor(
    address: str | None,
    space: Path | None,
    overrides: tuple[str, ...],
    tasks: str,
    storage: str | None,
    only: str,
    printed: Printed | None,
) -> int:
    """Look whether sweeps can run on this machine or on a cluster, and say what to do where they cannot.

    Every node is asked for its Python, packages, GPUs, memory and disks, trains a DeepSpeed step, and reads what the
    others wrote into the storage; the MLflow server and the hub are asked, too. With --space also its models, data and
    room. It takes a minute at most, also where something hangs. The exit code is 1 where something fails.

    \b
      stkd doctor
      stkd doctor --address 10.0.0.1:6379 --space glue --storage /shared/stkd
      stkd doctor --only mlflow,storage
    """  # noqa: D301 - click's mark of lines that stay as they are
    if space is None and (overrides or tasks):
        raise click.UsageError("--set and --tasks change a space; give one with --space")
    from stkd.search_spaces.reading import read_space

    chosen = read_space(space, overrides, names(tasks), storage) if space else None
    from stkd.orchestrator.doctor import run_doctor  # loads Ray

    return run_doctor(address, chosen, Path(storage) if storage else None, names(only), printed)
