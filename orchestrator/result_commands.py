"""Commands that show and hand over what sweeps have found."""

import json
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
@storage_option
@click.option("--sweep", "sweep_id", default="latest", show_default=True, metavar="SWEEP", help="Which sweep.")
@click.option("--task", metavar="TASK", help="Which task; may be left out where the sweep has one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--export", type=click.Path(path_type=Path), metavar="DIR", help="Write the student as a model folder.")
@click.option("--onnx", is_flag=True, help="With --export: as model.onnx, too. A pruned student gets that anyway.")
@debug_option
def best(storage: Path, sweep_id: str, task: str | None, as_json: bool, export: Path | None, onnx: bool) -> None:
    """Show the best student of a sweep, and export it for transformers and as ONNX."""
    if onnx and export is None:
        raise click.UsageError("--onnx writes into the folder of --export; give both, as in --export my-student --onnx")
    from stkd.orchestrator.best import best_student

    student = best_student(storage, sweep_id, task)
    click.echo(json.dumps(student.as_dict(), indent=2) if as_json else student.as_text())
    if export:
        from stkd.orchestrator.exporting import export_student

        exported = export_student(student, export, onnx)
        click.echo(f"written to {export}", err=as_json)
        if exported.lacking:
            click.echo(f"without model.onnx, the small form of a pruned student: {exported.lacking}", err=True)
