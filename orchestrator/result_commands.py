"""Commands that show what sweeps have found."""

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
