"""Checks side by side, each with a time limit: one that hangs is named, and holds up nothing else."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic

from stkd.orchestrator.findings import Finding

TOTAL_SECONDS = 50.0
"""After so long everything has been answered, or counts as hanging; what is left of a minute is for the start."""


@dataclass
class Check:
    """Something that is looked at."""

    name: str
    look: Callable[[], Iterable[Finding]]
    """Gives what it has found. An error of ours is a finding, too."""
    seconds: float
    """How long that may take."""
    hangs: str
    """What to do where it takes longer."""
    found: list[Finding] = field(default_factory=list, init=False)
    error: Exception | None = field(default=None, init=False)

    def run(self) -> None:
        """Look, and keep what was found."""
        try:
            self.found = list(self.look())
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for this thread
            self.error = error


def examined(checks: Sequence[Check]) -> Iterator[tuple[Check, bool]]:
    """The checks in their order as they come to an end, and whether each has.

    Raises what a check raised, unless that is an error for people, which is a finding.
    """
    begun = monotonic()
    threads = [Thread(target=check.run, name=check.name, daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    for check, thread in zip(checks, threads, strict=True):
        thread.join(max(0.0, begun + min(check.seconds, TOTAL_SECONDS) - monotonic()))
        if thread.is_alive():
            waited = min(check.seconds, TOTAL_SECONDS)
            check.found = [Finding("FAIL", f"no answer within {waited:.0f} s: it hangs", check.hangs)]
        elif isinstance(check.error, ValueError) and type(check.error).__module__.startswith("stkd."):
            check.found = [Finding.of_error(check.error)]
        elif check.error is not None:
            raise check.error
        yield check, not thread.is_alive()
