"""Options that several commands share, and what holds for the whole command line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])
DEFAULT_STORAGE = "./stkd-runs"


@dataclass
class Settings:
    """What holds for the whole command line."""

    debug: bool = False


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
address_option = click.option(
    "--address",
    metavar="HOST:PORT",
    help="Run on the Ray cluster whose GCS is there, from one of its nodes; without it, on this machine alone.",
)
tasks_option = click.option("--tasks", default="", metavar="A,B", help="Only these tasks.")
space_option = click.option(
    "--space", type=click.Path(path_type=Path), metavar="FILE", help="A search-space file, or `quickstart`."
)
resume_option = click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[SWEEP]",
    help="Continue a sweep that was stopped: this one, or the latest.",
)
results_option = click.option(
    "--storage",
    metavar="DIR",
    help=f"Where results go, instead of the file's storage; with --resume, where they are ({DEFAULT_STORAGE}).",
)


def sweep_options(command: Command) -> Command:
    """What says which sweep it is to be."""
    for option in (results_option, resume_option, tasks_option, set_option, space_option):
        command = option(command)
    return command


def speech_options(command: Command) -> Command:
    """How a sweep speaks."""
    quiet = click.option("--quiet", is_flag=True, help="Print only the result, and what goes wrong.")
    machine = click.option(
        "--json-lines",
        "as_lines",
        is_flag=True,
        help="Print an object of JSON for each event; the rest goes to stderr.",
    )
    return quiet(machine(command))


def one_of_space_and_resume(space: Path | None, overrides: tuple[str, ...], tasks: str, resume: str | None) -> Path:
    """The space of a new sweep; any path where one is resumed. Raises UsageError unless it is one or the other."""
    if resume is not None:
        if space or overrides or tasks:
            raise click.UsageError("--resume continues a sweep as it was begun; leave out --space, --set and --tasks")
        return Path()
    if space is None:
        raise click.UsageError("give a search space, as in --space quickstart, or --resume")
    return space


def printed_option(command: Command) -> Command:
    """Options `--json` and `--csv`, as the argument `printed`: None for a person."""
    for name in ("csv", "json"):
        command = click.option(f"--{name}", "printed", flag_value=name, help=f"Print {name.upper()}.")(command)
    return command


def names(listed: str) -> list[str]:
    """The names of a list with commas between them."""
    return [name for name in (part.strip() for part in listed.split(",")) if name]
