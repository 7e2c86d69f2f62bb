"""Writing and removing as a whole: whoever is killed meanwhile leaves the old or the new, and nothing in between."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from time import time
from uuid import uuid4

from psutil import pid_exists

ASIDE_SECONDS = 3 * 24 * 3600.0
"""What was not touched for so long, nobody is writing any more, on whatever node."""
OWN_ASIDE_SECONDS = 60.0
"""The same for a process of this machine that is gone; process ids may mean something else in a container beside it."""


def append_line(path: Path, line: bytes) -> None:
    """Add a line, which outlives a power cut once this returns.

    What a kill or a full disk left of an earlier line is cut off first: nothing is ever glued to half a line. Where
    this one cannot be written, nothing of it stays. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "x+b", buffering=0) as file:
        start = _end_of_last_line(file.fileno())
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(file.fileno(), line[written:], start + written)
            file.truncate(start + len(line))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise


def _end_of_last_line(file: int) -> int:
    """Where the next line belongs; half a line may have been left after that."""
    end = os.fstat(file).st_size
    while end:
        begin = max(0, end - 4096)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def remove_whole(path: Path) -> None:
    """Remove a folder; of one that is only half removed nothing is found under its name. It need not be there."""
    aside = path.with_name(f".removed-{uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def settle(folder: Path) -> None:
    """Have a folder's files on the disk itself, and not only in the memory of this node."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def aside_prefix(name: str) -> str:
    """How the name of what is being written begins; it says who writes it."""
    return f".{name}-{socket.gethostname()}-{os.getpid()}-"


def remove_left_behind(folder: Path) -> list[str]:
    """Remove what killed processes left half written or half removed in a folder; returns the names."""
    removed = []
    for path in _hidden(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path.name)
    return removed


def _hidden(folder: Path) -> Iterator[Path]:
    for path in folder.glob(".*"):
        try:
            age = time() - max(each.stat().st_mtime for each in (path, *path.rglob("*")))
        except FileNotFoundError:  # its owner has just finished with it
            continue
        if age > ASIDE_SECONDS or (age > OWN_ASIDE_SECONDS and _left_by_the_dead(path.name)):
            yield path


def _left_by_the_dead(name: str) -> bool:
    """Whether a process of this machine wrote it that is no more, or whoever removed it was killed."""
    if name.startswith(".removed-"):
        return True
    owner, _, _ = name.rpartition("-")
    owner, _, process = owner.rpartition("-")
    return owner.endswith(f"-{socket.gethostname()}") and process.isdigit() and not pid_exists(int(process))
