"""Commands that bring what sweeps have found to MLflow, and show it there."""

from pathlib import Path

import click

from stkd.orchestrator.options import debug_option, storage_option


@click.command()
@storage_option
@click.option("--port", type=click.IntRange(1, 65535), help="Serve there; a free port otherwise.")
@debug_option
def ui(storage: Path, port: int | None) -> int:
    """Show the sweeps of a storage folder in the browser, with MLflow."""
    from stkd.orchestrator.ui import serve_ui

    return serve_ui(storage, port)


@click.command()
@click.argument("sweep_id", metavar="[SWEEP]", required=False)
@storage_option
@debug_option
def sync(sweep_id: str | None, storage: Path) -> int:
    """Send MLflow what it could not be told while a sweep ran.

    Of all sweeps in the storage folder, or of one (`latest` is the newest). Everything is there once afterwards,
    however often this is run. The exit code is 1 where MLflow does not take it.
    """
    from stkd.orchestrator.layout import Storage
    from stkd.orchestrator.syncing import run_sync

    return run_sync(Storage(storage.expanduser().absolute()), sweep_id)
