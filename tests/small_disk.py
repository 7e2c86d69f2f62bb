"""A disk of some megabytes that a test may fill, or make read-only; needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ballast = root / "ballast"

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while file.write(b"\1" * 4096):
                    pass
            except OSError:
                pass

    def empty(self) -> None:
        """Take out what `fill` has put in."""
        self._ballast.unlink()

    def remount(self, mode: str) -> None:
        """`ro` or `rw`; no file may be open for writing."""
        subprocess.run(["mount", "-o", f"remount,{mode}", self.root], check=True, capture_output=True)


@contextmanager
def small_disk(root: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mounted at `root`; skips the test where that is not allowed."""
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(root)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    try:
        yield SmallDisk(root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True, capture_output=True)
