"""Who computes what: a claim on work that others, on any node that sees the folder, wait for."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event, Thread
from time import sleep, time
from uuid import uuid4

from psutil import pid_exists

from stkd.trainers.patience import patiently

BEAT_SECONDS = 5.0
"""Between two signs of life of whoever holds a claim."""
STALE_SECONDS = 60.0
"""After these without one, the claim passes to the next."""
LOOK_SECONDS = 0.25


@contextmanager
def claimed(path: Path, is_done: Callable[[], bool]) -> Iterator[bool]:
    """Wait until the work is done, or is ours; yields whether it is ours to do.

    The claim is a file at `path`, made in one step, so that only one holds it, and touched while its holder lives. The
    file system's own clock says how old it is: nodes need not agree on the time. Whoever fails gives the claim back.
    Where a holder was only thought dead, the same is computed twice, and nothing worse.
    """
    holder = f"{socket.gethostname()} {os.getpid()} {uuid4().hex}"
    while not is_done():
        if not patiently(lambda: _make(path, holder), path.parent):
            _take_from_the_dead(path)
            sleep(LOOK_SECONDS)
            continue
        with _beating(path, holder):
            yield not is_done()  # it may have been done between the two looks
        return
    yield False


def holder_of(path: Path) -> str | None:
    """Who holds a claim and shows signs of life: host and process id; None where nobody does."""
    with suppress(FileNotFoundError):
        holder, age = path.read_text(encoding="utf-8"), _now(path.parent) - path.stat().st_mtime
        if age <= STALE_SECONDS and not _has_died(holder):
            return holder.rpartition(" ")[0]
    return None


def _make(path: Path, holder: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(holder)
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


@contextmanager
def _beating(path: Path, holder: str) -> Iterator[None]:
    ended = Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # storage that refuses now may take the next one
                os.utime(path)

    thread = Thread(target=beat, name="claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):  # a claim that cannot be given back passes on by itself
            if path.read_text(encoding="utf-8") == holder:
                path.unlink()


def _take_from_the_dead(path: Path) -> None:
    """Put a claim without signs of life out of the way; of several that try, one can rename it."""
    with suppress(FileNotFoundError):
        age = _now(path.parent) - path.stat().st_mtime
        if age > STALE_SECONDS or _has_died(path.read_text(encoding="utf-8")):
            aside = path.with_name(f"{path.name}-{uuid4().hex}")
            path.rename(aside)
            aside.unlink()


def _has_died(holder: str) -> bool:
    """Whether the holder was a process of this machine that is no more; a claim that is being written says nothing."""
    host, _, rest = holder.partition(" ")
    return host == socket.gethostname() and bool(rest) and not pid_exists(int(rest.split()[0]))


def _now(folder: Path) -> float:
    try:
        with NamedTemporaryFile(prefix=".clock-", dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # who only looks may not write, or nobody may; then this node's clock must do
        return time()
