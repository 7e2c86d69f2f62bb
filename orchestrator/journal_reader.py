"""How far the events of a journal have been sent: whoever reads it goes on there, in whatever process."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path

from pydantic import BaseModel, ValidationError

from stkd.orchestrator.journal import EVENT, Event, whole_lines
from stkd.orchestrator.writing import append_line
from stkd.trainers.patience import patiently


class _Position(BaseModel):
    """Bytes of the journal that are dealt with, the MLflow id of each run so far, and whose ids these are."""

    offset: int = 0
    run_ids: dict[str, str] = {}
    store: str = ""


class JournalReader:
    """The reader of a journal, of which there is one at a time.

    Beside `journal.jsonl` lie `journal.state.json`, the reader's position, and `journal.refused.jsonl`, the events that
    MLflow will never take, each with the reason. A line that was sent, but whose position was not saved, is read again:
    sending a line twice must do no harm.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused = path.with_suffix(".refused.jsonl")
        self._state = path.with_suffix(".state.json")
        content = whole_lines(path)
        self._position = self._load_position(len(content))
        self._next = self._position.offset
        self._opened_at, self._peeked = len(content), 0
        self._dealt_with = content.count(b"\n", 0, self._position.offset)

    @property
    def store(self) -> str:
        """Which MLflow the events go to; empty where that was never said."""
        return self._position.store

    def name_store(self, store: str) -> None:
        """Say which MLflow the events go to."""
        self._keep(self._position.model_copy(update={"store": store}))

    @property
    def dealt_with(self) -> int:
        """How many lines of the journal are dealt with in all."""
        return self._dealt_with

    @property
    def run_ids(self) -> dict[str, str]:
        """The MLflow id of each run, by key: a copy."""
        return dict(self._position.run_ids)

    @property
    def may_be_known(self) -> bool:
        """Whether the next event was there when the reader began: MLflow may have been sent it already."""
        return self._position.offset < self._opened_at

    def peek(self, most: int = 1) -> list[Event]:
        """The next events, up to `most`; none where there is none. Lines that are no events are set aside."""
        events: list[Event] = []
        self._next = self._position.offset
        for line in islice(self._lines(), most):
            try:
                event = EVENT.validate_json(line)
            except ValidationError as error:
                if events:
                    break
                self._next += len(line)
                self._set_aside(line.decode(errors="replace").rstrip("\n"), f"not an event: {error.errors()[0]['msg']}")
                self._deal_with(1, {})
                return self.peek(most)
            events.append(event)
            self._next += len(line)
        self._peeked = len(events)
        return events

    def advance(self, run_ids: Mapping[str, str] | None = None) -> None:
        """What `peek` gave is dealt with; `run_ids` are the runs that it made known."""
        self._deal_with(self._peeked, run_ids or {})

    def refuse(self, event: Event, reason: str) -> None:
        """Keeps an event that cannot be sent, with the reason, for a person to read."""
        self._set_aside(event.model_dump(mode="json"), reason)

    def _deal_with(self, count: int, run_ids: Mapping[str, str]) -> None:
        known = {**self._position.run_ids, **run_ids}
        self._keep(self._position.model_copy(update={"offset": self._next, "run_ids": known}))
        self._dealt_with += count

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
