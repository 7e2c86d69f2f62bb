"""The MLflow UI over a storage folder, on this machine only."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from stkd.orchestrator.mlflow_view import VIEW_QUERY, VIEW_TAG
from stkd.orchestrator.tracking import default_artifact_location, default_uri
from stkd.trainers.errors import UserError

HOST = "127.0.0.1"
USUAL_PORT = 5000
START_SECONDS = 120.0
END_SECONDS = 10.0
ANSWER_SECONDS = 30.0


def serve_ui(storage: Path, port: int | None) -> int:
    """Serves the MLflow UI until Ctrl-C or SIGTERM; says its address once it answers.

    Args:
        storage: the storage folder of the sweeps.
        port: a port, which must be free; None takes 5000, or any other where that is taken.

    Returns:
        The exit code: 0 where the user ended it, the server's own where that ended by itself.

    Raises:
        UserError: there is no store, the port is taken, or the server does not start.

    """
    if not (storage / "mlflow.db").is_file():
        raise UserError(f"there is no store {storage / 'mlflow.db'}: run `stkd sweep` with this storage first")
    port = _free_port(port)
    log = storage / "mlflow-ui.log"
    with _sigterm_as_interrupt(), _server(storage, port, log) as server:
        try:
            _wait_until_it_answers(server, port, log)
            print(f"MLflow UI: {_first_page(port)}  (Ctrl-C ends it)", flush=True)
            return server.wait()
        except KeyboardInterrupt:
            return 0


def _first_page(port: int) -> str:
    """The runs of the newest experiment of ours, in the view that was made for them; else what MLflow shows first."""
    ours = {"max_results": 1, "filter": f"tags.`{VIEW_TAG}` LIKE '%'", "order_by": "last_update_time DESC"}
    search = f"api/2.0/mlflow/experiments/search?{urlencode(ours)}"
    with urlopen(f"http://{HOST}:{port}/{search}", timeout=ANSWER_SECONDS) as answer:
        found = json.load(answer).get("experiments", [])
    runs = f"/#/experiments/{found[0]['experiment_id']}/runs?{VIEW_QUERY}" if found else ""
    return f"http://{HOST}:{port}{runs}"


def _free_port(port: int | None) -> int:
    if port is not None:
        if not is_free(port):
            raise UserError(f"port {port} is taken: give another with --port, or none to take any free one")
        return port
    if is_free(USUAL_PORT):
        return USUAL_PORT
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free: int = probe.getsockname()[1]
        return free


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine's loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@contextmanager
def _server(storage: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own, which is gone when the context ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", default_uri(storage)]
    command += ["--default-artifact-root", default_artifact_location(storage)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as output:
        server = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ends the whole group: the server's workers outlive it when it alone is killed."""
    try:
        _signal_group(server, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(END_SECONDS)
    finally:  # also when Ctrl-C comes twice
        _signal_group(server, signal.SIGKILL)
        server.wait()


def _signal_group(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, number)


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"http://{HOST}:{port}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise UserError(f"the MLflow UI does not start on port {port}: see the end of {log}")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
