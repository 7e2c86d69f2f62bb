"""A sweep for machines: one JSON object a line, of which the last says how it ended; see docs/watching.md."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import TextIO

import click

from stkd.orchestrator.endings import INTERRUPTED, Outcome, exit_code_of, outcome_of
from stkd.orchestrator.records import finite
from stkd.search_spaces.values import without_secrets


class JsonLines:
    """Writes objects, each with its `event` and its `time` in UTC. When nobody reads any more, the sweep goes on."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._one_at_a_time = file, Lock()
        self._results: dict[str, object] = {"sweep": None, "results": None, "best": {}}

    def write(self, event: str, **fields: object) -> None:
        """Write an event down, at once."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(finite({"event": event, "time": time, **fields}), allow_nan=False)
        try:
            with self._one_at_a_time:  # the watchdog is a thread of its own
                self._file.write(line + "\n")
                self._file.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())  # where the rest of the buffer goes, too

    def keep(self, **results: object) -> None:
        """What the last object will say of the results."""
        self._results |= results

    def end(self, outcome: Outcome, exit_code: int, reason: str = "") -> None:
        """Write the last object."""
        words = without_secrets(" ".join(reason.split()))
        self.write("sweep_ended", outcome=outcome, exit_code=exit_code, reason=words, **self._results)


@contextmanager
def json_lines(wanted: bool) -> Iterator[JsonLines | None]:
    """Lines on stdout while the context lasts, and the last one as it ends, however that is; None unless wanted."""
    if not wanted:
        yield None
        return
    lines = JsonLines(sys.stdout)
    try:
        yield lines
    except (Exception, KeyboardInterrupt) as error:
        reason = error.format_message() if isinstance(error, click.ClickException) else str(error)
        lines.end(outcome_of(error), exit_code_of(error), reason)
        raise


def end_of(lines: JsonLines | None, exit_code: int) -> int:
    """Write the last object of a sweep that came to its end, or was stopped; returns the exit code."""
    if lines is not None:
        lines.end("stopped" if exit_code == INTERRUPTED else "finished", exit_code)
    return exit_code
