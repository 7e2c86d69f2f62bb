"""Sends a journal's events to MLflow, in order, however long that takes."""

import os
import threading
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from textwrap import shorten
from time import monotonic
from typing import TYPE_CHECKING

from stkd.orchestrator.journal import AwayError, Event, Measured, RefusedError, RunStarted, Tagged
from stkd.orchestrator.journal_reader import JournalReader
from stkd.search_spaces.values import without_secrets
from stkd.trainers.config import Config

if TYPE_CHECKING:
    from stkd.orchestrator.mlflow_store import MlflowStore

LONGEST_PROBLEM = 200
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between two attempts while MLflow is away."""
CLOSING_DELAY = 1.0
"""The same once nothing is added any more."""
CLOSING_SECONDS = 15.0
"""After these without an answer, nobody waits any longer: what is in the journal is not lost."""
TOGETHER = 50
"""So many events at most are sent before it is written down that they were."""
GATHERING_SECONDS = 0.2
"""So long news may wait for more: what is told of a run by then is one request, and not five."""
ATTEMPTS = 7
"""After so many, a minute in all, an event is set aside, unless it is MLflow as a whole that does not answer."""
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""For MLflow's client, unless the environment says otherwise: left alone it tries for 14 minutes, prints, and tells
its makers what is called.
"""


class Destination(Config):
    """Which events are sent, and where to."""

    journal: Path
    uri: str
    experiment: str
    artifact_location: str | None


class Progress(Config):
    """How far the events of a journal are sent."""

    dealt_with: int | None = None
    """Lines of the journal, in all; None where that is not known to have changed."""
    run_ids: Mapping[str, str] = {}
    """The MLflow id of each run that has become known since this was told last, by key."""
    problem: str | None = None
    """Why the last attempt failed, in one line and without credentials; None while all is well."""


Told = Callable[[Progress], None]


class Sender:
    """Sends until it is closed and nothing is left; whoever reads along is told after every attempt."""

    def __init__(self, destination: Destination, told: Told) -> None:
        self._destination, self._told = destination, told
        self._reader = JournalReader(destination.journal)
        self._store: MlflowStore | None = None
        self._problem: str | None = None
        self._tried = 0
        """Lines of the journal, in all, of which MLflow may have been sent any."""
        self._news, self._closing, self._stopped = threading.Event(), threading.Event(), threading.Event()

    def look(self) -> None:
        """There may be something new in the journal."""
        self._news.set()

    def close(self) -> None:
        """Nothing is added any more: `run` ends when all is sent, or MLflow does not answer."""
        self._closing.set()
        self._news.set()

    def stop(self) -> None:
        """`run` ends after what it sends at the moment."""
        self._stopped.set()
        self.close()

    def run(self) -> None:
        """Send what there is and what comes."""
        delay, doubts, unanswered = FIRST_DELAY, 0, 0.0
        while unanswered < CLOSING_SECONDS and (events := self._next_events()):
            begun = monotonic()
            try:
                self._send(events, doubts)
            except Exception as error:  # noqa: BLE001 - artifact stores raise types of their own; none may end this
                doubts += self._store is not None and not isinstance(error, AwayError)
                self._problem = shorten(without_secrets(f"{type(error).__name__}: {error}"), LONGEST_PROBLEM)
                self._tell()
                self._pause(delay)
                unanswered += (monotonic() - begun) * self._closing.is_set()
                delay = min(2 * delay, LONGEST_DELAY)
            else:
                delay, doubts, unanswered = FIRST_DELAY, 0, 0.0

    def _next_events(self) -> list[Event]:
        """Waits for what is to be sent next; none when there will be nothing."""
        while not self._stopped.is_set():
            self._news.clear()
            last_look = self._closing.is_set()  # asked before the look: what was written until then is seen by it
            known = self._reader.dealt_with
            # what failed may be due to one of them
            events = self._reader.peek(1 if known < self._tried else TOGETHER)
            if self._reader.dealt_with > known:  # it has set lines aside
                self._tell()
            if events:
                return events
            if last_look:
                break
            self._news.wait()
            self._closing.wait(GATHERING_SECONDS)
        return []

    def _send(self, events: list[Event], doubts: int) -> None:
        self._store = self._store or self._connect()
        may_be_known = self._reader.may_be_known or self._reader.dealt_with < self._tried
        self._tried = max(self._tried, self._reader.dealt_with + len(events))
        new: dict[str, str] = {}
        for request in requests_of(events):
            new |= self._send_request(
                self._store, request, new, may_be_known, self._problem if doubts >= ATTEMPTS else None
            )
        self._reader.advance(new)
        self._problem = None
        self._tell(new)

    def _send_request(
        self,
        store: "MlflowStore",
        request: Sequence[Event],
        new: Mapping[str, str],
        may_be_known: bool,
        doubt: str | None,
    ) -> dict[str, str]:
        """The ids of runs that it made known; of what MLflow does not take together, each event is tried by itself."""
        key = request[0].key
        try:
            if doubt is not None:
                raise RefusedError(doubt)
            run_id = store.send(request, ChainMap(dict(new), self._reader.run_ids), may_be_known)
        except RefusedError as refusal:
            if len(request) == 1:
                self._reader.refuse(request[0], without_secrets(str(refusal)))
                return {}
            found: dict[str, str] = {}
            for event in request:
                found |= self._send_request(store, [event], {**new, **found}, True, None)
            return found
        return {} if key in self._reader.run_ids else {key: run_id}

    def _tell(self, run_ids: Mapping[str, str] | None = None) -> None:
        self._told(Progress(dealt_with=self._reader.dealt_with, run_ids=run_ids or {}, problem=self._problem))

    def _connect(self) -> "MlflowStore":
        set_client()
        from stkd.orchestrator.mlflow_store import MlflowStore

        to = self._destination
        return MlflowStore(to.uri, to.experiment, to.artifact_location)

    def _pause(self, delay: float) -> None:
        """Ends early when the sender is closed, so that the last attempts are made at once."""
        if self._closing.is_set():
            self._stopped.wait(min(delay, CLOSING_DELAY))
        else:
            self._closing.wait(delay)


def requests_of(events: Iterable[Event]) -> list[list[Event]]:
    """The events run by run, those together that one request takes: a run's start, and its points and tags."""
    runs: dict[str, list[list[Event]]] = {}
    for event in events:
        requests = runs.setdefault(event.key, [])
        joins = isinstance(event, Measured | Tagged)
        if joins and requests and isinstance(requests[-1][0], RunStarted | Measured | Tagged):
            requests[-1].append(event)
        else:
            requests.append([event])
    return list(chain.from_iterable(runs.values()))


class SenderThread:
    """A sender on a thread of this process."""

    def __init__(self, destination: Destination, told: Told) -> None:
        self._sender, self._stopped = Sender(destination, told), False
        self._thread = threading.Thread(target=self._sender.run, name="stkd-tracking", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """There is something new in the journal."""
        self._sender.look()

    def close(self, timeout: float) -> None:
        """Waits until all is sent, at most `timeout` seconds and not for MLflow to come back, and ends the thread."""
        self._sender.close()
        if not self._stopped:
            self._thread.join(timeout)
        self._stopped = True
        self._sender.stop()


def set_client() -> None:
    """Settle how MLflow's client behaves; it looks when it is imported."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
