"""One real sweep of two ranks, looked at from outside: where it listens, what it writes, and where a password gets."""

import ipaddress
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import psutil
import pytest
from hosts import free_port
from sweeping import STKD, environment, write_space

from stkd.orchestrator.ui import _server, _wait_until_it_answers

pytestmark = pytest.mark.slow
SECRET = "open-sesame"
PLAIN = {".safetensors", ".json", ".txt", ".npz", ""}
"""How the names of files end that hold numbers and text, and no code."""


@dataclass(frozen=True)
class Watched:
    """A sweep that has ended."""

    screen: str
    storage: Path
    ray: Path
    """Where Ray has its logs."""
    server: Path
    """Where MLflow has its store."""
    listeners: set[tuple[int, str, str]]
    """Every process that was seen to listen: its id, its name then, and the address on which."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder, server = tmp_path_factory.mktemp("sweep"), tmp_path_factory.mktemp("server")
    port = free_port("127.0.0.1")
    with ExitStack() as stack:
        ray = Path(mkdtemp(prefix="ray-"))  # short, since Ray's sockets lie in it
        stack.callback(rmtree, ray, ignore_errors=True)
        _wait_until_it_answers(stack.enter_context(_server(server, port, server / "log")), port, server / "log")
        space = write_space(
            folder,
            resources={"ranks": 2, "cpus_per_rank": 1},
            search={},
            trials={"count": 1, "searcher": "random", "scheduler": None},
            controls=False,
        )
        process = subprocess.Popen(
            [*STKD, "sweep", "--space", str(space), "--set", f"tracking.uri=http://me:{SECRET}@127.0.0.1:{port}"],
            env=environment() | {"RAY_TMPDIR": str(ray)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        listeners: set[tuple[int, str, str]] = set()
        while process.poll() is None:
            listeners |= set(listening(process.pid))
            time.sleep(0.3)
        screen, _ = process.communicate()
        assert process.returncode == 0, screen
        yield Watched(screen, folder / "runs", ray, server, listeners)


def listening(pid: int) -> Iterator[tuple[int, str, str]]:
    with suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found = process.net_connections("tcp")
                name = process.name()
                yield from ((process.pid, name, one.laddr.ip) for one in found if one.status == psutil.CONN_LISTEN)


def test_everything_listens_on_loopback_alone(watched: Watched) -> None:
    addresses = {address.removeprefix("::ffff:") for _, _, address in watched.listeners}
    names = {name.partition("::")[2].partition(".")[0] or name for _, name, _ in watched.listeners}
    assert {"gcs_server", "raylet", "GangHost", "_MemberActor"} <= names
    trials = trial_processes(watched.storage)
    assert len(trials) == 1
    assert trials <= {pid for pid, _, _ in watched.listeners}
    assert not [
        address for address in addresses if not ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback
    ]


def trial_processes(storage: Path) -> set[int]:
    """By Tune's own record: a trial is at work too shortly to be surely met by its name."""
    (state,) = storage.glob("sweeps/*/remarks/tune/experiment_state-*.json")
    return {int(pid) for pid in re.findall(r'"pid\W+(\d+)', state.read_text())}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def test_a_password_of_the_tracking_server_stands_in_the_space_alone_for_its_owner(watched: Watched) -> None:
    assert SECRET not in watched.screen
    assert "***@127.0.0.1" in watched.screen
    everything = [*files(watched.storage), *files(watched.ray), *files(watched.server)]
    assert len(everything) > 60
    told = [path for path in everything if SECRET.encode() in path.read_bytes()]
    assert [path.name for path in told] == ["space.yaml"]
    assert told[0].stat().st_mode & 0o077 == 0


def test_artifacts_hold_numbers_and_text_and_no_code(watched: Watched) -> None:
    found = files(watched.storage / "artifacts")
    assert len(found) > 20
    assert not [path for path in found if path.suffix not in PLAIN]
    assert not [path for path in found if path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05", b"\x80\x02")]
