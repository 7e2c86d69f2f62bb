"""Sends a journal's events from a process of its own, so that MLflow's client takes no time from whoever runs trials.

The process is told on its standard input where to send, and then, by single bytes, that there is news or that there
will be none; it answers with a line of JSON for every attempt. It ends with whoever started it, however that ends.
"""

import gc
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from stkd.orchestrator.sender import FIRST_DELAY, LONGEST_DELAY, Destination, Progress, Sender, Told

PROCESS = (sys.executable, "-m", "stkd.orchestrator.sender_process")
NEWS, CLOSE = b"n", b"c"
ENDING_SECONDS = 5.0
"""For a process to be gone that was told to."""


class SenderProcess:
    """A sender in a process of its own, which is started again where it is lost; what it prints goes to a file."""

    def __init__(self, destination: Destination, told: Told, output: Path) -> None:
        self._destination, self._told, self._output = destination, told, output
        self._closing, self._stopped = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_sending, name="stkd-tracking", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def look(self) -> None:
        """There is something new in the journal."""
        self._say(NEWS)

    def close(self, timeout: float) -> None:
        """Waits until all is sent, at most `timeout` seconds and not for MLflow to come back, and ends the process."""
        deadline = monotonic() + timeout
        self._closing.set()
        while self._thread.is_alive() and not self._say(CLOSE) and monotonic() < deadline:
            sleep(0.01)
        self._thread.join(max(0.0, deadline - monotonic()))
        self._stopped.set()
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join(ENDING_SECONDS)

    def _keep_sending(self) -> None:
        delay = FIRST_DELAY
        while not self._stopped.is_set():
            last, begun = self._closing.is_set(), monotonic()
            ending = self._run_process()
            if not ending or last or self._stopped.is_set():
                break
            self._told(Progress(problem=f"the process that tells MLflow has ended: {ending}"))
            if monotonic() - begun > LONGEST_DELAY:
                delay = FIRST_DELAY
            self._closing.wait(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _run_process(self) -> str:
        """How the process ended; empty where it has nothing left to do."""
        try:
            with self._output.open("ab") as output:
                process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    PROCESS,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    process_group=0,  # Ctrl-C is for the sweep, which has the rest sent
                )
        except OSError as error:
            return str(error)
        with process:
            self._listen_to(process)
        return f"exit code {process.returncode}" if process.returncode else ""

    def _listen_to(self, process: subprocess.Popen[bytes]) -> None:
        words, answers = process.stdin, process.stdout
        assert words is not None and answers is not None, "they were asked for"  # noqa: PT018
        os.set_blocking(words.fileno(), False)
        with suppress(BrokenPipeError):
            os.write(words.fileno(), self._destination.model_dump_json().encode() + b"\n")
        with self._lock:
            self._process = process
        self._say(CLOSE if self._closing.is_set() else NEWS)  # what was said until now, nobody heard
        if self._stopped.is_set():
            process.kill()
        for line in answers:
            self._told(Progress.model_validate_json(line))
        with self._lock:
            self._process = None

    def _say(self, word: bytes) -> bool:
        """Whether the process will hear it; never waits."""
        with self._lock:
            if self._process is None or self._process.stdin is None:
                return False
            try:
                return bool(os.write(self._process.stdin.fileno(), word))
            except (BlockingIOError, BrokenPipeError):
                return False


def _listen(words: int, sender: Sender) -> None:
    """Pass on what is said, until nobody is there any more to say anything."""
    while said := os.read(words, 4096):
        if CLOSE in said:
            sender.close()
        else:
            sender.look()
    os._exit(1)


def main() -> None:
    """Send what the first line of the standard input says, until it is said that there is no more."""
    words, answers = sys.stdin.fileno(), os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(words, 1)):
            return
        line += byte
    destination = Destination.model_validate_json(line)
    sender = Sender(destination, lambda progress: _write(answers, progress.model_dump_json().encode() + b"\n"))
    threading.Thread(target=_listen, args=(words, sender), daemon=True).start()
    sender.run()
    gc.freeze()  # what is left goes with the process, for which a sweep waits at its end


def _write(file: int, line: bytes) -> None:
    while line:
        line = line[os.write(file, line) :]


if __name__ == "__main__":
    main()
