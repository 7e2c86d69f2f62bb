"""A sweep on this machine, begun to be disturbed, and the processes of it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from sweeping import STKD, environment

from stkd.orchestrator.layout import Storage

SECONDS = 300.0
END_SECONDS = 120.0
TRIAL = ("Trial", "ResourceTrainable")
"""What Ray calls a trial's process: between two calls, and in one."""


@dataclass
class Driver:
    """A `stkd sweep` that runs."""

    process: "subprocess.Popen[str]"
    log: Path

    def wait_until(self, condition: Callable[[], bool], pause: float = 0.02) -> None:
        """Until something is so, which must come before the end."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, f"it was over before that was seen: {self.log.read_text()}"
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(pause)

    def finish(self, code: int = 0) -> str:
        """Wait for its end, a good one by default; returns what it said."""
        assert self.process.wait(SECONDS) == code, self.log.read_text()
        return self.log.read_text()

    def processes(self, *titles: str) -> list[psutil.Process]:
        """Those of its processes that Ray calls so, by any of these names."""
        beginnings = tuple(f"ray::{title}" for title in titles)
        return [process for process in family_of(self.process.pid) if _title(process).startswith(beginnings)]

    def kill(self) -> None:
        """All that is left of it, at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


@contextmanager
def begun(folder: Path, *options: str, **variables: str) -> Iterator[Driver]:
    """`stkd sweep` with these options and variables; killed if it is still there at the end."""
    log = folder / "driver.log"
    command = [*STKD, "sweep", *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment() | variables, stdout=output, stderr=output, text=True, start_new_session=True
        )
    with ended(Driver(process, log)) as driver:
        yield driver


@contextmanager
def ended(driver: Driver) -> Iterator[Driver]:
    """Killed if it is still there at the end."""
    try:
        yield driver
    finally:
        driver.kill()


def results_text(storage: Storage) -> str:
    """What the newest sweep has written down so far; nothing before it does."""
    return "".join(path.read_text() for path in storage.sweeps.glob("*/remarks/results.jsonl"))


def family_of(pid: int) -> list[psutil.Process]:
    """All processes below one."""
    found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    return found


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """They end by themselves."""
    _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
    assert [_title(process) for process in alive] == []
