"""Records a sweep in MLflow without ever waiting for it.

Each call appends a line to a journal on disk and returns; a sender takes the lines to MLflow, in order. While MLflow is
away the journal grows, and what could not be sent before the process ended is sent when the sweep is resumed, or by
`stkd sync`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stkd.orchestrator.journal import (
    Event,
    FileMade,
    Journal,
    Measured,
    RunEnded,
    RunStarted,
    Status,
    StudentMade,
    Tagged,
)
from stkd.orchestrator.journal_reader import JournalReader
from stkd.orchestrator.sender import Destination, Progress, SenderThread, set_client
from stkd.orchestrator.sender_process import SenderProcess
from stkd.search_spaces.values import without_secrets

if TYPE_CHECKING:
    from stkd.orchestrator.registry import Registry

LONGEST_PARAMETER = 6000
LONGEST_TAG = 5000


class Tracker:
    """The runs of a sweep, each named by a key that stays the same when the sweep is resumed.

    Only `close` waits for MLflow, and nothing raises because of it. A second tracker on the same journal goes on where
    the first ended.
    """

    def __init__(
        self, journal: Path, uri: str, experiment: str, artifact_location: str | None = None, output: Path | None = None
    ) -> None:
        """With `output`, MLflow's client runs in a process of its own, and this file takes what it prints."""
        self.uri = uri
        self._journal, reader = Journal(journal), JournalReader(journal)
        if not reader.store:
            reader.name_store(without_secrets(uri))
        self._dealt_with, self._run_ids = reader.dealt_with, reader.run_ids
        self._problem: str | None = None
        to = Destination(
            journal=journal.absolute(), uri=uri, experiment=experiment, artifact_location=artifact_location
        )
        self._sender = SenderProcess(to, self._hear, output) if output else SenderThread(to, self._hear)

    @property
    def pending(self) -> int:
        """How many events are not yet sent."""
        return self._journal.lines - self._dealt_with

    @property
    def problem(self) -> str | None:
        """Why the last attempt failed, in one line and without credentials; None while all is well."""
        return self._problem

    @property
    def run_ids(self) -> dict[str, str]:
        """The MLflow run id of each key that has one so far."""
        return dict(self._run_ids)

    @property
    def open_runs(self) -> list[str]:
        """Keys of the runs that have begun and not ended."""
        return self._journal.open_runs

    def start_run(
        self, key: str, name: str, parent: str | None, params: Mapping[str, object], tags: Mapping[str, str]
    ) -> None:
        """Begins a run under the run of key `parent`; a key that is known is opened again."""
        texts = {name: str(value)[:LONGEST_PARAMETER] for name, value in params.items()}
        self._write(RunStarted(key=key, name=name, parent=parent, params=texts, tags=_shortened(tags)))

    def log_metrics(self, key: str, metrics: Mapping[str, float], step: int) -> None:
        """One point of each metric, in one request. What the run has of a step stays: nothing is measured twice."""
        new = self._journal.without_known(key, metrics, int(step))
        if new:
            numbers = {name: float(value) for name, value in new.items()}
            self._write(Measured(key=key, metrics=numbers, step=int(step)))

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Sets tags, or replaces their values."""
        self._write(Tagged(key=key, tags=_shortened(tags)))

    def log_file(self, key: str, path: Path, folder: str) -> None:
        """Puts a file into the run's artifact folder `folder`. The file must stay until it was sent."""
        self._write(FileMade(key=key, path=path.absolute(), folder=folder))

    def log_student(self, key: str, folder: Path, pairs: bool = False) -> None:
        """Makes a folder of transformers the run's MLflow model. The folder must stay until it was sent.

        Args:
            key: the run.
            folder: config.json, weights as safetensors, and the tokenizer.
            pairs: whether the model reads two texts, `text` and `text_pair`, instead of one.

        """
        self._write(StudentMade(key=key, path=folder.absolute(), pairs=pairs))

    def end_run(self, key: str, status: Status) -> None:
        """Ends a run."""
        self._write(RunEnded(key=key, status=status))

    def close(self, timeout: float) -> bool:
        """Waits until all is sent, at most `timeout` seconds and not for MLflow to come back.

        Returns:
            Whether everything was sent; what was not stays in the journal for the next tracker.

        """
        self._sender.close(timeout)
        return self.pending == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(timeout=30.0)

    def _write(self, event: Event) -> None:
        self._journal.append(event)
        self._sender.look()

    def _hear(self, progress: Progress) -> None:
        self._run_ids |= progress.run_ids
        self._problem = progress.problem
        if progress.dealt_with is not None:
            self._dealt_with = progress.dealt_with


def registry_of(configured: str | None, storage: Path) -> "Registry":
    """The model registry beside the runs of a storage's sweeps."""
    set_client()
    from stkd.orchestrator.registry import Registry

    return Registry(tracking_uri(configured, storage))


def default_uri(storage: Path) -> str:
    """The MLflow store of a storage folder: a SQLite file in it."""
    return f"sqlite:///{storage.absolute()}/mlflow.db"


def tracking_uri(configured: str | None, storage: Path) -> str:
    """Where MLflow keeps what a storage's sweeps tell it: where the space says, the environment, or the default."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(storage)


def default_artifact_location(storage: Path) -> str:
    """Where the default store keeps its artifacts, as a file URI."""
    return (storage.absolute() / "mlflow-artifacts").as_uri()


def _shortened(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: str(value)[:LONGEST_TAG] for name, value in tags.items()}
