"""Fixtures of real MLflow stores that the tracker writes to: a SQLite file, and a server on loopback."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stkd.orchestrator.tracking import Tracker, default_artifact_location, default_uri


class Place:
    """A journal in a folder, the store that its events go to, and a client to look at that."""

    def __init__(self, folder: Path, uri: str, artifacts: str) -> None:
        from mlflow import MlflowClient

        self.journal = folder / "sweep" / "journal.jsonl"
        self.uri = uri
        self.artifacts = artifacts
        self.client = MlflowClient(tracking_uri=uri)
        self.experiment = f"space {uuid4().hex}"

    def tracker(self, apart: bool = False) -> Tracker:
        output = self.journal.with_name("sent.log") if apart else None
        return Tracker(self.journal, self.uri, self.experiment, self.artifacts, output)

    def runs(self) -> dict[str, Any]:
        found = self.client.search_runs([self.client.get_experiment_by_name(self.experiment).experiment_id])
        assert len({run.info.run_name for run in found}) == len(found), "a run was made twice"
        return {run.info.run_name: run for run in found}

    def points(self, name: str, metric: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(self.runs()[name].info.run_id, metric)
        return sorted((point.step, point.value) for point in history)

    def refused(self) -> list[dict[str, Any]]:
        file = self.journal.with_suffix(".refused.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def failing(times: int, error: Exception, real: Callable[..., Any]) -> Callable[..., Any]:
    """The real method, after so many failures."""
    left = iter(range(times))

    def method(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is not None:
            raise error
        return real(*arguments, **options)

    return method


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables: made once, copied by each test."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("store")
    MlflowClient(tracking_uri=default_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store_folder(empty_store: Path, tmp_path: Path) -> Path:
    shutil.copy(empty_store, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tracking_server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from stkd.orchestrator.ui import _free_port, _server, _wait_until_it_answers

    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder)
    port = _free_port(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ARTIFACTS_DESTINATION", str(folder / "uploads"))
        with _server(folder, port, folder / "log") as process:
            _wait_until_it_answers(process, port, folder / "log")
            yield f"http://127.0.0.1:{port}"


@pytest.fixture
def place(store_folder: Path) -> Place:
    return Place(store_folder, default_uri(store_folder), default_artifact_location(store_folder))


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def any_place(request: pytest.FixtureRequest, store_folder: Path) -> Place:
    if request.param == "sqlite":
        return Place(store_folder, default_uri(store_folder), default_artifact_location(store_folder))
    return Place(store_folder, request.getfixturevalue("tracking_server"), "mlflow-artifacts:/uploads")
