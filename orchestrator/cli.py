"""The command line. Each command imports what it needs when it runs, so that `stkd --help` answers at once."""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from shlex import join
from typing import Any, NoReturn

import click

from stkd.search_spaces.values import without_secrets

EXIT_INTERNAL = 1
EXIT_USER = 2
EXIT_INTERRUPTED = 130
DEFAULT_STORAGE = "./stkd-runs"


@dataclass
class Settings:
    """What holds for the whole command line."""

    debug: bool = False


def guarded(command: Callable[[], int | None], settings: Settings) -> int:
    """Runs `command` and returns the exit code; whatever it raises becomes one line for a person.

    A ValueError of our own classes is a mistake of the user, for whom its message was written. Anything else is ours.
    """
    try:
        return command() or 0
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        return _complain(error.format_message(), settings, error.exit_code)
    except Exception as error:  # noqa: BLE001 - the one place where a traceback turns into a sentence
        if isinstance(error, ValueError) and type(error).__module__.startswith("stkd."):
            return _complain(str(error), settings, EXIT_USER)
        hint = "" if settings.debug else "; run again with --debug for the traceback"
        return _complain(f"internal error: {type(error).__name__}: {error}{hint}", settings, EXIT_INTERNAL)


def _complain(message: str, settings: Settings, exit_code: int) -> int:
    if settings.debug:
        traceback.print_exc()
    click.echo(f"stkd: {without_secrets(' '.join(message.split()))}", err=True)
    return exit_code


class Guarded(click.Group):
    """A command line whose every end is an exit code and, if it failed, one line on stderr."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Runs the command line, with click's own arguments, and leaves the process."""
        settings = Settings()
        run = super().main
        sys.exit(guarded(lambda: run(*args, **{**options, "standalone_mode": False, "obj": settings}), settings))


def _remember_debug(context: click.Context, _parameter: click.Parameter, debug: bool) -> None:
    settings = context.find_object(Settings)
    if debug and settings:
        settings.debug = True


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_debug,
    help="Show the traceback of an error.",
)
storage_option = click.option(
    "--storage",
    type=click.Path(path_type=Path),
    default=DEFAULT_STORAGE,
    show_default=True,
    metavar="DIR",
    help="The folder that holds the sweeps.",
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the file; repeatable."
)
tasks_option = click.option("--tasks", default="", metavar="A,B", help="Only these tasks.")


@click.group(cls=Guarded, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stkd")
@debug_option
@click.pass_context
def main(context: click.Context) -> None:
    """Find the best small student for a text classifier.

    A sweep fine-tunes a teacher, then trains students from sparse versions of it and keeps the best:

    \b
      stkd sweep --space quickstart
      stkd ui
      stkd best --export my-student
    """  # noqa: D301 - click's mark of lines that stay as they are
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command()
@click.option("--space", type=click.Path(path_type=Path), metavar="FILE", help="A search-space file, or `quickstart`.")
@set_option
@tasks_option
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[SWEEP]",
    help="Continue a sweep that was stopped: this one, or the latest.",
)
@click.option(
    "--storage",
    metavar="DIR",
    help=f"Where results go, instead of the file's storage; with --resume, where they are ({DEFAULT_STORAGE}).",
)
@debug_option
def sweep(space: Path | None, overrides: tuple[str, ...], tasks: str, resume: str | None, storage: str | None) -> int:
    """Search for the best student.

    \b
      stkd sweep --space quickstart
      stkd sweep --space minilm_glue --tasks mrpc,rte --set trials.count=20
      stkd sweep --resume
    """  # noqa: D301 - click's mark of lines that stay as they are
    if resume is not None:
        if space or overrides or tasks:
            raise click.UsageError("--resume continues a sweep as it was begun; leave out --space, --set and --tasks")
        return _resume(resume, storage)
    if space is None:
        raise click.UsageError("give a search space, as in stkd sweep --space quickstart, or --resume")
    from stkd.orchestrator.preflight import check
    from stkd.search_spaces.reading import read_space

    chosen = read_space(space, overrides, _names(tasks), storage)
    prepared = check(chosen)
    from stkd.orchestrator.sweep import run_sweep  # loads Ray and torch

    return run_sweep(chosen, prepared)


def _resume(sweep_id: str, storage: str | None) -> int:
    from stkd.orchestrator.layout import Storage
    from stkd.orchestrator.preflight import check
    from stkd.search_spaces.reading import read_space

    root = storage or DEFAULT_STORAGE
    folder = Storage(Path(root)).find_sweep(sweep_id)
    space = read_space(folder.space, storage=root)
    prepared = check(space)
    from stkd.orchestrator.sweep import resume_sweep

    return resume_sweep(space, prepared, folder.sweep_id)


def _names(listed: str) -> list[str]:
    return [name for name in (part.strip() for part in listed.split(",")) if name]


@main.command()
@click.option(
    "--space",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="A search-space file, or `quickstart`.",
)
@set_option
@tasks_option
@click.option("--storage", metavar="DIR", help="Where finished stages are kept, instead of the file's storage.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="./stkd-scores",
    show_default=True,
    metavar="DIR",
    help="Where pictures go, in a folder for each task.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def score(space: Path, overrides: tuple[str, ...], tasks: str, storage: str | None, out: Path, as_json: bool) -> int:
    """Show which of the teacher's heads and neurons matter, without a search.

    Runs a sweep's stages up to the scores. What is finished is kept: a sweep with the same settings takes it over.

    \b
      stkd score --space quickstart
      stkd score --space minilm_glue --tasks mrpc --set distillation.interpolation=0.2
    """  # noqa: D301 - click's mark of lines that stay as they are
    from stkd.orchestrator.preflight import check, check_storage
    from stkd.search_spaces.reading import read_space

    chosen = read_space(space, overrides, _names(tasks), storage)
    prepared = check(chosen)
    check_storage(out, "--out")
    from stkd.orchestrator.scoring import run_score  # loads Ray and torch

    options = [("--space", str(space)), *(("--set", without_secrets(override)) for override in overrides)]
    options += [(option, value) for option, value in (("--tasks", tasks), ("--storage", storage)) if value]
    return run_score(chosen, prepared, out, join(["stkd", "sweep", *chain.from_iterable(options)]), as_json)


@main.command()
@storage_option
@click.option("--port", type=click.IntRange(1, 65535), help="Serve there; a free port otherwise.")
@debug_option
def ui(storage: Path, port: int | None) -> int:
    """Show the sweeps of a storage folder in the browser, with MLflow."""
    from stkd.orchestrator.ui import serve_ui

    return serve_ui(storage, port)


@main.command()
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


if __name__ == "__main__":
    main()
