"""What surrounds a command that computes for long: where libraries write, and how the command is stopped."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # searchers say themselves how many trials there are at a time
}
LIBRARIES = ("ray", "optuna", "matplotlib", "py.warnings")


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler's or service manager's SIGTERM ends the command as cleanly as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so it is for what a shell runs in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def quiet_libraries(log: Path) -> Iterator[None]:
    """What Ray and the other libraries log goes to a file; the screen is for the command's own lines."""
    os.environ.update({name: value for name, value in TUNE_SETTINGS.items() if name not in os.environ})
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    kept = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()
