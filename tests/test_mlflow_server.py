"""The team's MLflow server: the command of its launch file, on a real PostgreSQL, with passwords."""

import base64
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from launching import COMPOSE, documents
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

pytestmark = pytest.mark.slow
PASSWORD = "a-password-of-the-test"
START_SECONDS = 120.0


def postgres_programs() -> Path | None:
    """Where Debian or the PATH has PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    return found[-1].parent if found[-1].is_file() else None


def as_postgres() -> dict[str, Any]:
    """PostgreSQL does not run as root: there, as the user that its package made."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def ended(process: subprocess.Popen[bytes], number: signal.Signals) -> Iterator[None]:
    """Ends the process and its group at the end, at once where the signal does not."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(answers: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL with a user and a database as in the launch file."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL on this machine")
    if os.getuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    (environment,) = [documents(COMPOSE)[0]["services"]["postgres"]["environment"]]
    with tempfile.TemporaryDirectory(prefix="stkd-postgres-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        (folder / "password").write_text(PASSWORD)
        if as_postgres():
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        arguments = [f"--username={environment['POSTGRES_USER']}", "--auth=scram-sha-256", "--no-sync"]
        command = [programs / "initdb", f"--pgdata={folder / 'data'}", f"--pwfile={folder / 'password'}", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_postgres())
        settings = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-F"]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *settings],
                stdout=output, stderr=output, cwd=folder, start_new_session=True, **as_postgres(),
            )  # fmt: skip
        with ended(process, signal.SIGINT):
            ready = [programs / "pg_isready", "--host=127.0.0.1", f"--port={port}"]
            wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, process, log)
            access = ["--host=127.0.0.1", f"--port={port}", f"--username={environment['POSTGRES_USER']}"]
            made = [programs / "createdb", *access, environment["POSTGRES_DB"]]
            subprocess.run(made, check=True, env=os.environ | {"PGPASSWORD": PASSWORD})
            yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an MLflow server that runs the launch file's command in the launch file's environment."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    (compose,) = documents(COMPOSE)
    service = compose["services"]["mlflow"]
    settings = {name: value.replace("@postgres/", f"@{postgres}/") for name, value in service["environment"].items()}
    secrets = {name: PASSWORD for name, value in settings.items() if value.startswith("${")}
    assert set(secrets) == {
        "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"
    }  # fmt: skip
    here = {"MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"), "MLFLOW_AUTH_CONFIG_PATH": str(folder / "ini")}
    (folder / "ini").write_text(compose["configs"]["basic_auth"]["content"].replace("@postgres/", f"@{postgres}/"))
    command = service["command"][2].rpartition(" exec ")[2]
    for said, instead in (("0.0.0.0", "127.0.0.1"), ("--port 5000", f"--port {port}"), ("--workers 4", "--workers 1")):
        assert said in command
        command = command.replace(said, instead)
    environment = os.environ | settings | secrets | here
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.replace("mlflow", f"{sys.executable} -m mlflow", 1).split(),
            env=environment, stdout=output, stderr=output, cwd=folder, start_new_session=True,
        )  # fmt: skip
    with ended(process, signal.SIGTERM):
        wait_until(lambda: status(port, "/health", "anything") == 200, process, log)
        yield port
    assert PASSWORD not in log.read_text()


def status(port: int, path: str, host: str) -> int | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def create_user(port: int, name: str, password: str) -> None:
    """As the admin would in the browser, at /signup."""
    credentials = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"username": name, "password": password})
    connection.request("POST", "/api/2.0/mlflow/users/create", body, headers)
    assert connection.getresponse().status == 200
    connection.close()


def log_in(patch: pytest.MonkeyPatch, user: str, password: str) -> None:
    patch.setenv("MLFLOW_TRACKING_USERNAME", user)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_a_run_is_logged_and_read_back_by_those_with_a_password(
    server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = f"http://127.0.0.1:{server}"
    (tmp_path / "note.txt").write_text("an artifact")
    log_in(monkeypatch, "admin", PASSWORD)
    client = MlflowClient(uri)
    experiment = client.create_experiment("glue")
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "sparsity", 0.7)
    client.log_metric(run, "score", 91.5, step=1)
    client.log_artifact(run, str(tmp_path / "note.txt"))
    create_user(server, "colleague", "another-password")

    log_in(monkeypatch, "colleague", "another-password")
    read = MlflowClient(uri).get_run(run)
    assert (read.data.params, read.data.metrics) == ({"sparsity": "0.7"}, {"score": 91.5})
    assert read.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert Path(MlflowClient(uri).download_artifacts(run, "note.txt", str(tmp_path))).read_text() == "an artifact"
    MlflowClient(uri).create_run(experiment)  # two sweeps of one space log to one experiment

    log_in(monkeypatch, "colleague", "a wrong password")
    with pytest.raises(MlflowException, match="not authenticated"):
        MlflowClient(uri).get_run(run)


def test_only_the_names_that_it_was_told_are_answered(server: int) -> None:
    names = ("mlflow.example.com:5000", f"127.0.0.1:{server}", "elsewhere.example.com:5000")
    assert [status(server, "/api/2.0/mlflow/experiments/get?experiment_id=0", name) for name in names] == [
        401,
        401,
        403,
    ]
