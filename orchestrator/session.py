"""What surrounds a command that computes for long: where libraries write, and how the command is stopped."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from shlex import join

from ray._raylet import setproctitle  # type: ignore[attr-defined]

from stkd.search_spaces.values import without_secrets

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an Interruption has one
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # searchers say themselves how many trials there are at a time
}
LIBRARIES = ("ray", "optuna", "matplotlib", "py.warnings", "stkd")


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler's or service manager's SIGTERM ends the command as cleanly as Ctrl-C does, also where SIGINT was
    blocked by whoever started it, as Ray does for jobs.
    """

    def interrupt(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so it is for what a shell runs in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def hide_secrets_of_the_command() -> None:
    """Ray notes the command line of whoever connects to it, for everybody who asks: leave no password in it."""
    command = join(sys.argv)
    if without_secrets(command) != command:
        setproctitle(without_secrets(command))


@contextmanager
def quiet_libraries(log: Path) -> Iterator[None]:
    """What Ray and the other libraries log or print goes to a file; the screen is for the command's own lines."""
    os.environ.update({name: value for name, value in TUNE_SETTINGS.items() if name not in os.environ})
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    kept = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written is no news for the screen
    try:
        with redirect_stdout(handler.stream):  # where Ray prints how its workers ended
            yield
    finally:
        logging.captureWarnings(False)
        logging.raiseExceptions = True
        for logger, handlers, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
        with suppress(OSError):  # what a full disk does not take is lost
            handler.close()
