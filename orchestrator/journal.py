"""What happened in a sweep, one line of JSON each, and how far its reader has come.

The journal is the only link between the controller and MLflow: the controller appends, a sender reads. Both may be
killed at any moment. A line torn by a kill was never acknowledged and is dropped; a line that was sent, but whose
position was not saved, is read again, so sending a line twice must do no harm.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

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
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class _Position(BaseModel):
    """Bytes of the journal that are dealt with, the MLflow id of each run so far, and whose ids these are."""

    offset: int = 0
    run_ids: dict[str, str] = {}
    store: str = ""


class Journal:
    """A file of events with one writer and one reader, who may be in different threads.

    Beside `journal.jsonl` lie `journal.state.json`, the reader's position, and `journal.refused.jsonl`, the events that
    MLflow will never take, each with the reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused = path.with_suffix(".refused.jsonl")
        self._state = path.with_suffix(".state.json")
        self._lock = threading.Lock()
        content = _whole_lines(path)
        self._position = self._load_position(len(content))
        self._next = self._position.offset
        self._opened_at, self._peeked = len(content), 0
        self._pending = content.count(b"\n", self._position.offset)
        self._open: dict[str, None] = {}
        self._points: set[tuple[str, int, str]] = set()
        for line in content.splitlines():
            self._remember(line)

    @property
    def store(self) -> str:
        """Which MLflow the events go to; empty where that was never said."""
        return self._position.store

    def name_store(self, store: str) -> None:
        """Say which MLflow the events go to."""
        self._keep(self._position.model_copy(update={"store": store}))

    @property
    def open_runs(self) -> list[str]:
        """Keys of the runs that have begun and not ended, in the order in which they began."""
        return list(self._open)

    def without_known(self, key: str, metrics: Mapping[str, float], step: int) -> dict[str, float]:
        """The points that are not yet written down: an epoch that is trained again after a kill is a point once."""
        return {name: value for name, value in metrics.items() if (key, step, name) not in self._points}

    @property
    def pending(self) -> int:
        """How many events are not yet dealt with."""
        return self._pending

    @property
    def run_ids(self) -> dict[str, str]:
        """The MLflow id of each run, by key: a copy."""
        return dict(self._position.run_ids)

    def append(self, event: Event) -> None:
        """Writes an event down; once this returns, the event outlives a kill of the process."""
        line = event.model_dump_json().encode() + b"\n"
        with self._lock:
            patiently(lambda: append_line(self.path, line), self.path.parent)
            self._pending += 1
        self._remember(line)

    @property
    def may_be_known(self) -> bool:
        """Whether the next event was there when the journal was opened: MLflow may have been sent it already."""
        return self._position.offset < self._opened_at

    def peek(self, most: int = 1) -> list[Event]:
        """The first event that is not dealt with; none where there is none. Lines that are no events are set aside.

        With it come up to `most`, in all, of those right after it that one request can take along: points and tags of
        one run.
        """
        events: list[Event] = []
        self._next = self._position.offset
        for line in self._lines():
            try:
                event = _EVENT.validate_json(line)
            except ValidationError as error:
                if events:
                    break
                self._next += len(line)
                self._set_aside(line.decode(errors="replace").rstrip("\n"), f"not an event: {error.errors()[0]['msg']}")
                self._deal_with(1, {})
                continue
            if events and not (len(events) < most and _go_together(events[0], event)):
                break
            events.append(event)
            self._next += len(line)
        self._peeked = len(events)
        return events

    def advance(self, run_ids: Mapping[str, str] | None = None) -> None:
        """What `peek` gave is dealt with; `run_ids` are the runs that it made known."""
        self._deal_with(self._peeked, run_ids or {})

    def _deal_with(self, count: int, run_ids: Mapping[str, str]) -> None:
        known = {**self._position.run_ids, **run_ids}
        self._keep(self._position.model_copy(update={"offset": self._next, "run_ids": known}))
        with self._lock:
            self._pending -= count

    def refuse(self, event: Event, reason: str) -> None:
        """Keeps an event that cannot be sent, with the reason, for a person to read."""
        self._set_aside(event.model_dump(mode="json"), reason)

    def _lines(self) -> Iterator[bytes]:
        """Whole lines from where the reader is."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position.offset)
            yield from takewhile(lambda line: line.endswith(b"\n"), file)

    def _set_aside(self, event: object, reason: str) -> None:
        line = json.dumps({"reason": reason, "event": event}).encode() + b"\n"
        patiently(lambda: append_line(self.refused, line), self.refused.parent)

    def _remember(self, line: bytes) -> None:
        with suppress(ValueError, KeyError):  # a broken line, which `peek` sets aside
            event = json.loads(line)
            match event["kind"]:
                case "run_started":
                    self._open[event["key"]] = None
                case "run_ended":
                    self._open.pop(event["key"], None)
                case "measured":
                    self._points |= {(event["key"], event["step"], name) for name in event["metrics"]}

    def _keep(self, position: _Position) -> None:
        """Where the storage refuses that, events are sent again after a kill, which does no harm."""
        self._position = position
        with suppress(OSError):
            self._state.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._state.with_suffix(".tmp")
            temporary.write_text(position.model_dump_json())
            temporary.replace(self._state)

    def _load_position(self, size: int) -> _Position:
        try:
            position = _Position.model_validate_json(self._state.read_bytes())
        except (FileNotFoundError, ValidationError):
            return _Position()
        return position if position.offset <= size else _Position()


def _go_together(first: Event, later: Event) -> bool:
    return first.key == later.key and isinstance(first, Measured | Tagged) and isinstance(later, Measured | Tagged)


def _whole_lines(path: Path) -> bytes:
    """All lines but one that a kill cut short, which the next one will take the place of."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]
