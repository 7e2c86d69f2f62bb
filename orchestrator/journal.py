"""What happened in a sweep, one line of JSON each.

The journal is the only link between the controller and MLflow: the controller appends, a sender reads. Both may be
killed at any moment. A line torn by a kill was never acknowledged and is dropped.
"""

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from stkd.orchestrator.writing import append_line
from stkd.trainers.config import Config
from stkd.trainers.patience import patiently

Status = Literal["FINISHED", "FAILED", "KILLED"]


class RefusedError(Exception):
    """An event will never be taken: sending it again is useless."""


class AwayError(Exception):
    """MLflow does not answer, whatever the event: it is worth waiting for."""


def _now() -> int:
    return time.time_ns() // 1_000_000


class Occurrence(Config):
    """Base of all events: which run, and when (milliseconds since 1970)."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    key: str
    at: int = Field(default_factory=_now)


class RunStarted(Occurrence):
    """A run begins, or goes on after it had ended."""

    kind: Literal["run_started"] = "run_started"
    name: str
    parent: str | None
    params: Mapping[str, str]
    tags: Mapping[str, str]


class Measured(Occurrence):
    """Metrics of one step, for all of which one request is enough."""

    kind: Literal["measured"] = "measured"
    metrics: Mapping[str, float]
    step: int


class Tagged(Occurrence):
    """Tags are set, or set anew."""

    kind: Literal["tagged"] = "tagged"
    tags: Mapping[str, str]


class FileMade(Occurrence):
    """A file belongs to the run; it must stay where it is until it was sent."""

    kind: Literal["file_made"] = "file_made"
    path: Path
    folder: str


class StudentMade(Occurrence):
    """A student was saved as a folder of transformers; it must stay where it is until it was sent."""

    kind: Literal["student_made"] = "student_made"
    path: Path
    pairs: bool


class RunEnded(Occurrence):
    """A run is over."""

    kind: Literal["run_ended"] = "run_ended"
    status: Status


Event = Annotated[
    RunStarted | Measured | Tagged | FileMade | StudentMade | RunEnded,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class Journal:
    """The writer of a file of events, of which there is one; a `JournalReader` may read along, in whatever process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        content = whole_lines(path)
        self._lines = content.count(b"\n")
        self._open: dict[str, None] = {}
        self._points: set[tuple[str, int, str]] = set()
        for line in content.splitlines():
            self._remember(line)

    @property
    def lines(self) -> int:
        """How many events there are in all."""
        return self._lines

    @property
    def open_runs(self) -> list[str]:
        """Keys of the runs that have begun and not ended, in the order in which they began."""
        return list(self._open)

    def without_known(self, key: str, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """The points that are not yet written down: an epoch that is trained again after a kill is a point once."""
        return {name: value for name, value in metrics.items() if (key, step, name) not in self._points}

    def append(self, event: Event) -> None:
        """Writes an event down; once this returns, the event outlives a kill of the process."""
        line = event.model_dump_json().encode() + b"\n"
        with self._lock:
            patiently(lambda: append_line(self.path, line), self.path.parent)
            self._lines += 1
        self._remember(line)

    def _remember(self, line: bytes) -> None:
        with suppress(ValueError, KeyError):  # a broken line, which the reader sets aside
            event = json.loads(line)
            match event["kind"]:
                case "run_started":
                    self._open[event["key"]] = None
                case "run_ended":
                    self._open.pop(event["key"], None)
                case "measured":
                    self._points |= {(event["key"], event["step"], name) for name in event["metrics"]}


def whole_lines(path: Path) -> bytes:
    """All lines but one that a kill cut short, which the next one will take the place of."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]
