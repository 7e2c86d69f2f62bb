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
tasks_option = click.option("--tasks", default="", metavar="A,B", help="Only these tasks.")


def printed_option(command: Command) -> Command:
    """Options `--json` and `--csv`, as the argument `printed`: None for a person."""
    for name in ("csv", "json"):
        command = click.option(f"--{name}", "printed", flag_value=name, help=f"Print {name.upper()}.")(command)
    return command


def names(listed: str) -> list[str]:
    """The names of a list with commas between them."""
    return [name for name in (part.strip() for part in listed.split(",")) if name]
