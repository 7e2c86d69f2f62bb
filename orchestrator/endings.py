"""How a command ended, as an exit code and as a word."""

from typing import Literal

import click

from stkd.trainers.errors import NothingFitsError

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
Outcome = Literal["finished", "stopped", "nothing_fits", "refused", "failed"]


def exit_code_of(error: BaseException) -> int:
    """What the process ends with. A ValueError of our own classes is a mistake of the user; anything else is ours."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return error.exit_code
    users = isinstance(error, ValueError) and type(error).__module__.startswith("stkd.")
    return REFUSED if users and not isinstance(error, NothingFitsError) else FAILED


def outcome_of(error: BaseException) -> Outcome:
    """The same as a word."""
    if isinstance(error, NothingFitsError):
        return "nothing_fits"
    words: dict[int, Outcome] = {INTERRUPTED: "stopped", REFUSED: "refused"}
    return words.get(exit_code_of(error), "failed")
