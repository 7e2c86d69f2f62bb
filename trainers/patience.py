"""Storage that refuses writes for a while is tried again, and whoever looks is told what is being waited for."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from threading import get_ident
from time import monotonic, sleep
from typing import TypeVar

from stkd.trainers.errors import UserError

Answer = TypeVar("Answer")
REFUSALS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "it is read-only",
    errno.EIO: "input/output error",
    errno.ESTALE: "the network folder is gone",
    errno.ENOTCONN: "the network folder is gone",
    errno.EHOSTDOWN: "its server is down",
    errno.ETIMEDOUT: "its server does not answer",
}
"""What a disk that is full, read-only or gone answers; it may pass."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 5.0
PROBE_BYTES = 1 << 16


class StorageError(UserError):
    """Storage has refused writes for longer than anybody waits."""


class Patience:
    """How long this process waits for storage, and what it waits for at the moment."""

    def __init__(self) -> None:
        self.seconds = float("inf")
        """A worker waits for as long as its driver lets it."""
        self._problems: dict[int, str] = {}

    @property
    def problem(self) -> str:
        """What some thread waits for now, as in "/data: No space left on device"; empty where none does."""
        return next(iter(list(self._problems.values())), "")

    def refused(self, problem: str) -> None:
        """The calling thread waits because of it."""
        self._problems[get_ident()] = problem

    def served(self) -> None:
        """The calling thread waits no more."""
        self._problems.pop(get_ident(), None)


PATIENCE = Patience()
"""This process's: libraries write in threads of their own, and there is one storage."""


def patiently(write: Callable[[], Answer], folder: Path) -> Answer:
    """Write into a folder, and again where its storage refuses; what else goes wrong is raised.

    `write` must do no harm when it is done twice. Raises StorageError after as long as the process's patience.
    """
    begun, delay = monotonic(), FIRST_DELAY
    while True:
        try:
            answer = write()
        except Exception as error:
            problem = refusal(error, folder)
            if problem is None:
                PATIENCE.served()
                raise
            PATIENCE.refused(f"{folder}: {problem}")
            if monotonic() - begun > PATIENCE.seconds:
                PATIENCE.served()
                PATIENCE.seconds = 0.0  # what is still to be written, to end well, is tried once
                raise StorageError(f"{folder} refuses writes: {problem}") from error
            sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
        except BaseException:  # Ctrl-C
            PATIENCE.served()
            raise
        else:
            PATIENCE.served()
            return answer


def refusal(error: BaseException, folder: Path) -> str | None:
    """Why storage refuses writes in a folder, if that is what is wrong."""
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return REFUSALS[error.errno]
    try:
        probe(folder)
    except OSError as refused:
        return REFUSALS.get(refused.errno or 0)
    return None


def probe(folder: Path) -> None:
    """Write something, and read nothing; raises what the storage raises."""
    while not folder.exists():
        folder = folder.parent
    with TemporaryFile(dir=folder, buffering=0) as file:
        file.write(b"\0" * PROBE_BYTES)
        os.fsync(file.fileno())
