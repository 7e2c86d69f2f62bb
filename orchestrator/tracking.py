"""Records a sweep in MLflow without ever waiting for it.

Each call appends a line to a journal on disk and returns; a thread sends the lines to MLflow, in order. While MLflow is
away the journal grows, and what could not be sent before the process ended is sent when the sweep is resumed, or by
`stkd sync`.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stkd.orchestrator.journal import (
    AwayError,
    Event,
    FileMade,
    Journal,
    Measured,
    RefusedError,
    RunEnded,
    RunStarted,
    Status,
    StudentMade,
    Tagged,
)
from stkd.search_spaces.values import without_secrets

if TYPE_CHECKING:
    from stkd.orchestrator.mlflow_store import MlflowStore
    from stkd.orchestrator.registry import Registry

LONGEST_PARAMETER = 6000
LONGEST_TAG = 5000
LONGEST_PROBLEM = 200
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between two attempts while MLflow is away."""
CLOSING_DELAY = 1.0
"""The same once the caller waits in `close`."""
CLOSING_SECONDS = 15.0
"""After these without an answer, `close` no longer waits: what is in the journal is not lost."""
TOGETHER = 10
"""So many events at most go into one request: of some thirty points each, where MLflow takes 1,000."""
ATTEMPTS = 7
"""After so many, a minute in all, an event is set aside, unless it is MLflow as a whole that does not answer."""
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""For MLflow's client, unless the environment says otherwise: left alone it tries for 14 minutes, and prints."""


class Tracker:
    """The runs of a sweep, each named by a key that stays the same when the sweep is resumed.

    Only `close` waits for MLflow, and nothing raises because of it. A second tracker on the same journal goes on where
    the first ended.
    """

    def __init__(self, journal: Path, uri: str, experiment: str, artifact_location: str | None = None) -> None:
        self.uri = uri
        self._experiment = experiment
        self._artifact_location = artifact_location
        self._journal = Journal(journal)
        if not self._journal.store:
            self._journal.name_store(without_secrets(uri))
        self._store: MlflowStore | None = None
        self._problem: str | None = None
        self._news = threading.Event()
        self._closing = threading.Event()
        self._stopped = threading.Event()
        self._sender = threading.Thread(target=self._send_all, name="stkd-tracking", daemon=True)
        self._sender.start()

    @property
    def pending(self) -> int:
        """How many events are not yet sent."""
        return self._journal.pending

    @property
    def problem(self) -> str | None:
        """Why the last attempt failed, in one line and without credentials; None while all is well."""
        return self._problem

    @property
    def run_ids(self) -> dict[str, str]:
        """The MLflow run id of each key that has one so far."""
        return self._journal.run_ids

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
        """Waits until all is sent, at most `timeout` seconds and not for MLflow to come back, and ends the thread.

        Returns:
            Whether everything was sent; what was not stays in the journal for the next tracker.

        """
        self._closing.set()
        self._news.set()
        if not self._stopped.is_set():
            self._sender.join(timeout)
        self._stopped.set()
        return self.pending == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(timeout=30.0)

    def _write(self, event: Event) -> None:
        self._journal.append(event)
        self._news.set()

    def _send_all(self) -> None:
        delay, doubts, unanswered = FIRST_DELAY, 0, 0.0
        while unanswered < CLOSING_SECONDS and (events := self._next_events()):
            begun = monotonic()
            try:
                self._send(events, doubts)
            except Exception as error:  # noqa: BLE001 - artifact stores raise types of their own; none may end the thread
                doubts += self._store is not None and not isinstance(error, AwayError)
                self._problem = shorten(without_secrets(f"{type(error).__name__}: {error}"), LONGEST_PROBLEM)
                self._pause(delay)
                unanswered += (monotonic() - begun) * self._closing.is_set()
                delay = min(2 * delay, LONGEST_DELAY)
            else:
                self._problem = None
                delay, doubts, unanswered = FIRST_DELAY, 0, 0.0

    def _next_events(self) -> list[Event]:
        """Waits for what is to be sent next; none when there will be nothing."""
        while not self._stopped.is_set():
            self._news.clear()
            last_look = self._closing.is_set()  # asked before the look: what was written until then is seen by it
            # what failed may be due to one of them
            if events := self._journal.peek(TOGETHER if self._problem is None else 1):
                return events
            if last_look:
                break
            self._news.wait()
        return []

    def _connect(self) -> "MlflowStore":
        _set_client()
        from stkd.orchestrator.mlflow_store import MlflowStore

        return MlflowStore(self.uri, self._experiment, self._artifact_location)

    def _send(self, events: list[Event], doubts: int) -> None:
        self._store = self._store or self._connect()
        may_be_known = self._journal.may_be_known or self._problem is not None
        try:
            if doubts >= ATTEMPTS:
                raise RefusedError(self._problem)
            run_id = self._store.send(events, self._journal.run_ids, may_be_known)
        except RefusedError as refusal:
            if len(events) > 1:
                self._send(self._journal.peek(), doubts)
                return
            self._journal.refuse(events[0], without_secrets(str(refusal)))
            self._journal.advance()
        else:
            self._journal.advance({events[0].key: run_id})

    def _pause(self, delay: float) -> None:
        """Ends early when the tracker is closed, so that the last attempts are made at once."""
        if self._closing.is_set():
            self._stopped.wait(min(delay, CLOSING_DELAY))
        else:
            self._closing.wait(delay)


def registry_of(configured: str | None, storage: Path) -> "Registry":
    """The model registry beside the runs of a storage's sweeps."""
    _set_client()
    from stkd.orchestrator.registry import Registry

    return Registry(tracking_uri(configured, storage))


def _set_client() -> None:
    """Settle how MLflow's client behaves; it looks when it is imported."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)


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
