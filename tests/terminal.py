"""A command in a terminal of its own: a real pty, and what a person would see on it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte


class Terminal:
    """Runs a command as a terminal's foreground process, whose Ctrl-C is a real one."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = pty.openpty()
        self._size(columns, lines)
        self.process = subprocess.Popen(
            command,
            env={**environment, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """As a person does with the window."""
        self.screen.resize(lines, columns)
        self._size(columns, lines)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def ctrl_c(self) -> None:
        """As on the keyboard: the terminal sends SIGINT to everything in the foreground."""
        os.write(self._master, b"\x03")

    @property
    def shown(self) -> list[str]:
        """The lines on the screen, without trailing blanks."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def history(self) -> list[str]:
        """All lines: those that have scrolled away, too."""
        gone = ["".join(line[column].data for column in sorted(line)).rstrip() for line in self.screen.history.top]
        return [*gone, *self.shown]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 600) -> None:
        """Go on reading until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.history)
            assert self._read(), "\n".join(self.history)

    def end(self, seconds: float = 300) -> int:
        """Read to the end; returns the exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, "\n".join(self.history)
        return self.process.wait(timeout=seconds)

    def close(self) -> None:
        """Kill what is left, and close the terminal."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        """Read what there is; False when nobody writes any more."""
        ready, _, _ = select.select([self._master], [], [], 0.1)
        if not ready:
            return self.process.poll() is None
        try:
            found = os.read(self._master, 65536)
        except OSError:  # as Linux says that the other side was closed
            return False
        self.raw += found
        self._stream.feed(found)
        return bool(found)
