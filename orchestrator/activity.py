"""Whether a sweep runs, and how it ended."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from stkd.orchestrator.artifacts import write_json
from stkd.orchestrator.claims import claimed, holder_of
from stkd.orchestrator.layout import SweepFolder
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import UserError
from stkd.trainers.patience import StorageError

State = Literal["running", "finished", "stopped", "crashed"]
"""`stopped` is a sweep that was interrupted cleanly; one that was killed, or failed, has crashed."""


@dataclass(frozen=True)
class Activity:
    """What a sweep does, or how it ended."""

    state: State
    at: str = ""
    """When it ended, in UTC; empty where that is not known."""
    reason: str = ""
    """Why it crashed; empty where nobody could write it down."""

    @classmethod
    def of(cls, sweep: SweepFolder) -> "Activity":
        """A sweep that nobody runs, and of which nobody wrote how it ended, was killed."""
        if holder_of(sweep.claim):
            return cls("running")
        if not sweep.ending.is_file():
            return cls("crashed")
        return cls(**json.loads(sweep.ending.read_text(encoding="utf-8")))


@contextmanager
def held(sweep: SweepFolder) -> Iterator[None]:
    """Nobody else has the sweep while the context lasts; raises UserError where somebody has it already."""
    holder = holder_of(sweep.claim)
    if holder:
        host, _, process = holder.partition(" ")
        raise UserError(f"sweep {sweep.sweep_id} runs already, as process {process} on {host}; stop that one first")
    with claimed(sweep.claim, lambda: False):
        yield


@contextmanager
def running(sweep: SweepFolder) -> Iterator[None]:
    """Show signs of life while the context lasts; what it raises is kept as the reason why the sweep crashed.

    Raises UserError where somebody else runs the sweep.
    """
    with held(sweep):
        sweep.ending.unlink(missing_ok=True)
        try:
            yield
        except KeyboardInterrupt:
            keep_ending(sweep, "stopped")
            raise
        except Exception as error:
            with suppress(StorageError):
                keep_ending(sweep, "crashed", f"{type(error).__name__}: {error}")
            raise


def keep_ending(sweep: SweepFolder, state: State, reason: str = "") -> None:
    """Write down how the sweep ended."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(sweep.ending, asdict(Activity(state, at, without_secrets(" ".join(reason.split())))))
