"""The team's MLflow server: the command of its launch file, on a real PostgreSQL, with passwords."""

import base64
import json
import os
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from launching import COMPOSE, documents
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from postgres_server import free_port, postgres, started

pytestmark = pytest.mark.slow
PASSWORD = "a-password-of-the-test"
SECRETS = ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an MLflow server that runs the launch file's command in the launch file's environment."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    (compose,) = documents(COMPOSE)
    database = compose["services"]["postgres"]["environment"]
    with postgres(database["POSTGRES_USER"], database["POSTGRES_DB"], PASSWORD) as address:
        settings: dict[str, str] = compose["services"]["mlflow"]["environment"]
        placed = {name: value.replace("@postgres/", f"@{address}/") for name, value in settings.items()}
        assert [name for name, value in settings.items() if value.startswith("${")] == list(SECRETS)
        environment = os.environ | placed | dict.fromkeys(SECRETS, PASSWORD)
        access = folder / "basic_auth.ini"
        access.write_text(compose["configs"]["basic_auth"]["content"].replace("@postgres/", f"@{address}/"))
        environment |= {"MLFLOW_ARTIFACTS_DESTINATION": f"{folder}/kept", "MLFLOW_AUTH_CONFIG_PATH": str(access)}
        command = as_here(compose["services"]["mlflow"]["command"][2].rpartition(" exec ")[2], port)
        with started(command, folder, env=environment) as process:
            process.wait_until(lambda: status(port, "/health", "anyone") == 200)
            yield port
            assert PASSWORD not in process.log.read_text()


def as_here(command: str, port: int) -> list[str]:
    for said, instead in (("0.0.0.0", "127.0.0.1"), ("--port 5000", f"--port {port}"), ("--workers 4", "--workers 1")):
        assert said in command
        command = command.replace(said, instead)
    assert command.startswith("mlflow server ")
    return [sys.executable, "-m", *command.split()]


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
    """As the admin does in the browser, at /signup."""
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
    client = MlflowClient(f"http://127.0.0.1:{server}")
    (tmp_path / "note.txt").write_text("an artifact")
    log_in(monkeypatch, "admin", PASSWORD)
    experiment = client.create_experiment("glue")
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "sparsity", 0.7)
    client.log_metric(run, "score", 91.5, step=1)
    client.log_artifact(run, str(tmp_path / "note.txt"))
    create_user(server, "colleague", "another-password")

    log_in(monkeypatch, "colleague", "another-password")
    read = client.get_run(run)
    assert (read.data.params, read.data.metrics) == ({"sparsity": "0.7"}, {"score": 91.5})
    assert read.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert Path(client.download_artifacts(run, "note.txt", str(tmp_path / "copy"))).read_text() == "an artifact"
    client.create_run(experiment)  # as two sweeps of one space do

    log_in(monkeypatch, "colleague", "a wrong password")
    with pytest.raises(MlflowException, match="not authenticated"):
        client.get_run(run)


def test_only_the_names_that_it_was_told_are_answered(server: int) -> None:
    experiment = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert status(server, experiment, "mlflow.example.com:5000") == 401
    assert status(server, experiment, f"127.0.0.1:{server}") == 401
    assert status(server, experiment, "elsewhere.example.com:5000") == 403
