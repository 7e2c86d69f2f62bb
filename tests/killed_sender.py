"""Records runs in MLflow, and is killed again and again between a record's sending and its acknowledgement."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from stkd.orchestrator import sender
from stkd.orchestrator.journal_reader import JournalReader
from stkd.orchestrator.sender import set_client
from stkd.orchestrator.tracking import Tracker

KILLS, POINTS = 4, 4


def killed_at_the(count: int) -> None:
    """The process dies when it is about to acknowledge so many records."""
    advance, left = JournalReader.advance, iter(range(count - 1))

    def killed(reader: JournalReader, run_ids: Mapping[str, str] | None = None) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        advance(reader, run_ids)

    JournalReader.advance = killed  # type: ignore[method-assign, assignment]


def record(journal: Path, uri: str, attempt: int) -> None:
    """A parent and a trial, which goes on one epoch before where it was."""
    tracker = Tracker(journal, uri, "killed")
    tracker.start_run("s", "s", None, {"a": 1}, {})
    tracker.start_run("s/t", "t", "s", {"b": 2}, {})
    for epoch in range(max(1, attempt), POINTS + 1):
        tracker.log_metrics("s/t", {"score": epoch / 8, "seconds": attempt + 0.5}, epoch)
    tracker.end_run("s/t", "FINISHED")
    tracker.end_run("s", "FINISHED")
    assert tracker.close(60), tracker.problem


if __name__ == "__main__":
    set_client()
    sender.TOGETHER = 2  # else all is acknowledged at once
    import stkd.orchestrator.mlflow_store  # noqa: F401 - seconds, for all attempts

    for attempt in range(KILLS + 1):
        child = os.fork()
        if not child:
            if attempt < KILLS:
                killed_at_the(attempt + 1)
            record(Path(sys.argv[1]), sys.argv[2], attempt)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
