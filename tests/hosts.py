"""Ray clusters for tests: heads and workers started as a user starts them, with a token, and ended by process id.

A host is a loopback address of this machine, which costs nothing and looks like a machine of its own to Ray; or a
network namespace on a bridge, which has links that can be cut, and needs root.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import IO, Literal

import psutil
import pytest
from sweeping import STKD

START_SECONDS = 120.0
COMMAND_SECONDS = 400.0
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass(frozen=True)
class Host:
    """Where a node of a cluster runs."""

    address: str
    prefix: Sequence[str] = ()
    """What a command begins with that shall run there."""
    link: str = ""
    """The bridge's end of its cable, where it has one."""

    def plug(self, state: Literal["up", "down"]) -> None:
        """Pull the cable out, or put it back."""
        _ip("link", "set", self.link, state)


@dataclass
class Node:
    """A running head or worker."""

    host: Host
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """As `ray stop` would, on this host alone."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def runs(self, title: str) -> bool:
        """Whether a process of it has this title, as Ray calls it."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return any(" ".join(process.cmdline()).startswith(f"ray::{title}") for process in found)

    def kill(self) -> None:
        """As if the host lost its power: every process of it, at once."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for process in (psutil.Process(self.process.pid), *family):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(20)


@dataclass
class RayCluster:
    """A cluster of hosts; gone, with all its processes and files, when the context ends."""

    token: str | None = field(default_factory=lambda: token_hex(16))
    """None is a cluster that asks for no token."""
    nodes: list[Node] = field(default_factory=list)
    address: str = ""
    """Of the head's GCS."""
    dashboard: str = ""
    """Where jobs are submitted, if the head serves that."""

    def __enter__(self) -> "RayCluster":
        self._folder = Path(tempfile.mkdtemp(prefix="hosts-"))  # short, since Ray's sockets lie in it
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.stop()
        for process in psutil.process_iter(["cmdline"]):  # what an autoscaler has started is nobody's child
            if any(str(self._folder) in part for part in process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        rmtree(self._folder, ignore_errors=True)

    def choose_ports(self, host: Host) -> None:
        """Where a head on this host is going to listen."""
        gcs, jobs = free_port(host.address), free_port(host.address)
        self.address, self.dashboard = f"{host.address}:{gcs}", f"http://{host.address}:{jobs}"

    def environment(self, **changes: str) -> dict[str, str]:
        """What a command on one of the hosts runs with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        token = {"RAY_AUTH_TOKEN": self.token} if self.token else {}
        return kept | token | changes

    def start_head(self, host: Host, *options: str, jobs: bool = False, **variables: str) -> Node:
        """The first node. `jobs` has it serve Ray's dashboard, too."""
        if not self.address:
            self.choose_ports(host)
        gcs, served = (address.rpartition(":")[2] for address in (self.address, self.dashboard))
        dashboard = [f"--dashboard-host={host.address}", f"--dashboard-port={served}"]
        command = ["--head", f"--port={gcs}", f"--temp-dir={self._folder}/r", "--disable-usage-stats"]
        command += dashboard if jobs else ["--include-dashboard=false"]
        return self._start(host, [*command, *options], variables)

    def start_worker(self, host: Host, *options: str, **variables: str) -> Node:
        """A further node."""
        own = f"--temp-dir={self._folder}/w{len(self.nodes)}"  # else nodes of one machine would tidy each other's files
        return self._start(host, [f"--address={self.address}", own, *options], variables)

    def stkd(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end, where the head is."""
        command = [*self.nodes[0].host.prefix, *STKD, *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment(**variables), capture_output=True, text=True, timeout=COMMAND_SECONDS
        )

    def begin_stkd(self, *arguments: str | Path, **variables: str) -> "subprocess.Popen[str]":
        """Begin to run the command line, where the head is; both its outputs are one."""
        return self._begin(subprocess.PIPE, arguments, variables)

    def begin_stkd_into(self, log: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
        """The same, with its outputs in a file."""
        with log.open("w") as file:
            return self._begin(file, arguments, {})

    def _begin(
        self, output: int | IO[str], arguments: Sequence[str | Path], variables: Mapping[str, str]
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.nodes[0].host.prefix, *STKD, *map(str, arguments)],
            env=self.environment(**variables),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def _start(self, host: Host, options: Sequence[str], variables: Mapping[str, str]) -> Node:
        mode = {"RAY_AUTH_MODE": "token" if self.token else "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        command = [*host.prefix, *RAY, "start", "--block", f"--node-ip-address={host.address}", *options]
        command += ["--dashboard-agent-listen-port=0"]  # Ray's default is taken on 127.0.0.1, too, by each node
        log = self._folder / f"{len(self.nodes)}.log"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # pip, for wheels that are shipped
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=self.environment(PATH=path, **mode, **variables),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        node = Node(host, process, log)
        self.nodes.append(node)
        wait_for(lambda: "Ray runtime started" in log.read_text(), lambda: self._alive(node))
        return node

    @staticmethod
    def _alive(node: Node) -> None:
        assert node.process.poll() is None, node.log.read_text()


def wait_for(condition: Callable[[], bool], check: Callable[[], object] = lambda: None) -> None:
    """Until the condition holds; `check` fails the test where that can no longer come."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        check()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def free_port(address: str) -> int:
    """A port that is free now on an address of this machine; any, where the address belongs to a namespace."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def bridged_hosts(count: int) -> Iterator[list[Host]]:
    """Hosts with links of their own, in network namespaces on a bridge; skips the test where that is not allowed."""
    tag = token_hex(3)
    subnet = f"10.{int(tag[:2], 16)}.{int(tag[2:4], 16)}"
    names = [f"h{tag}{number}" for number in range(count)]
    try:
        _ip("link", "add", f"b{tag}", "type", "bridge")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces need root, and the command `ip`")
    try:
        _ip("address", "add", f"{subnet}.254/24", "dev", f"b{tag}")  # so that a test reaches them, too
        _ip("link", "set", f"b{tag}", "up")
        for number, name in enumerate(names, start=1):
            _add_namespace(name, f"b{tag}", f"{subnet}.{number}/24")
        places = [(f"{subnet}.{number}", name) for number, name in enumerate(names, start=1)]
        yield [Host(address, ("ip", "netns", "exec", name), f"v{name}") for address, name in places]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        _ip("link", "delete", f"b{tag}")


def _add_namespace(name: str, bridge: str, address: str) -> None:
    _ip("netns", "add", name)
    _ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", f"v{name}", "master", bridge, "up")
    _ip("-n", name, "address", "add", address, "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip("-n", name, "link", "set", device, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
