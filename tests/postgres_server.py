"""A real PostgreSQL for tests, on loopback, from the programs of Debian or the PATH; gone when its context ends."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

START_SECONDS = 120.0
END_SECONDS = 20.0
OWNER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


@contextmanager
def postgres(user: str, database: str, password: str, prefix: Sequence[str] = ()) -> Iterator[str]:
    """Yields HOST:PORT of a server with a user and a database; skips where there is no PostgreSQL.

    `prefix` is what a command begins with that shall run in a network namespace.
    """
    programs = _programs()
    with TemporaryDirectory(prefix="stkd-postgres-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        _make(programs, folder, user, password)
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        command = [str(programs / "postgres"), "-D", str(folder / "data"), *options]
        # only root may enter a namespace, so whoever shall own the process comes after it
        owned: dict[str, Any] = {} if prefix else _owner()
        as_owner = [*prefix, *OWNER] if prefix else []
        with started([*as_owner, *command], folder, **owned) as server:
            access = ["--host=127.0.0.1", f"--port={port}", f"--username={user}"]
            server.wait_until(lambda: _call(*prefix, programs / "pg_isready", *access).returncode == 0)
            _call(*prefix, programs / "createdb", *access, database, password=password).check_returncode()
            yield f"127.0.0.1:{port}"


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "/nowhere")]
    if not found[-1].is_file():
        pytest.skip("there is no PostgreSQL on this machine")
    if os.getuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return found[-1].parent


def _owner() -> dict[str, Any]:
    """PostgreSQL does not run as root: there, it runs as the user that its package made."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


def _make(programs: Path, folder: Path, user: str, password: str) -> None:
    (folder / "password").write_text(password)
    if _owner():
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    places = [f"--pgdata={folder / 'data'}", f"--pwfile={folder / 'password'}"]
    command = [str(programs / "initdb"), *places, f"--username={user}", "--auth=scram-sha-256", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **_owner())


def _call(*command: str | Path, password: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, env=os.environ | {"PGPASSWORD": password})


class Server:
    """A process that serves, with what it said in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    def wait_until(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)


@contextmanager
def started(command: list[str], folder: Path, **options: Any) -> Iterator[Server]:
    """A server in a process group of its own, which is gone at the end."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, start_new_session=True, **options)
    try:
        yield Server(process, log)
    finally:
        _signal(process, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
