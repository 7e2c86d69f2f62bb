"""The command line. Each command imports what it needs when it runs, so that `stkd --help` answers at once."""

import gc
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import click

from stkd.orchestrator import (
    cluster_commands,
    doctor_commands,
    handover_commands,
    inspect_commands,
    result_commands,
    sweep_commands,
)
from stkd.orchestrator.endings import exit_code_of, outcome_of
from stkd.orchestrator.options import Settings, debug_option
from stkd.search_spaces.values import without_secrets

FRESH_OBJECTS = 100_000
"""Python looks for garbage after so many new objects, not after 700: what imports make stays."""
COMMANDS = (
    sweep_commands.sweep,
    sweep_commands.score,
    doctor_commands.doctor,
    cluster_commands.submit,
    cluster_commands.status,
    cluster_commands.logs,
    cluster_commands.stop,
    inspect_commands.list_,
    inspect_commands.report,
    inspect_commands.compare,
    inspect_commands.reproduce,
    result_commands.ui,
    result_commands.sync,
    handover_commands.pick,
    handover_commands.export,
    handover_commands.predict,
)


def guarded(command: Callable[[], int | None], settings: Settings) -> int:
    """Runs `command` and returns the exit code; whatever it raises becomes one line for a person."""
    try:
        return command() or 0
    except (KeyboardInterrupt, click.Abort) as error:
        return exit_code_of(error)
    except click.ClickException as error:
        return _complain(error.format_message(), settings, error.exit_code)
    except Exception as error:  # noqa: BLE001 - the one place where a traceback turns into a sentence
        if outcome_of(error) != "failed":
            return _complain(str(error), settings, exit_code_of(error))
        hint = "" if settings.debug else "; run again with --debug for the traceback"
        return _complain(f"internal error: {type(error).__name__}: {error}{hint}", settings, exit_code_of(error))


def _complain(message: str, settings: Settings, exit_code: int) -> int:
    if settings.debug:
        traceback.print_exc()
    click.echo(f"stkd: {without_secrets(' '.join(message.split()))}", err=True)
    return exit_code


class Guarded(click.Group):
    """A command line whose every end is an exit code and, if it failed, one line on stderr."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Runs the command line, with click's own arguments, and leaves the process."""
        gc.set_threshold(FRESH_OBJECTS)
        settings = Settings()
        run = super().main
        code = guarded(lambda: run(*args, **{**options, "standalone_mode": False, "obj": settings}), settings)
        gc.freeze()  # what is left goes with the process: to look for garbage in it takes up to a second
        sys.exit(code)


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
      stkd pick --max-p95 5ms
      stkd export my-student
    """  # noqa: D301 - click's mark of lines that stay as they are
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
