"""Where the time goes: a watch that is always in one phase, so that the phases add up to all of it."""

from collections import Counter
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Generic, Literal, TypeVar

Phase = Literal["start", "data", "teacher", "forward", "backward", "step", "evaluation", "checkpoint", "waiting"]
"""What a trial's time goes to. `waiting` is for others: for a place, for whoever decides whether it goes on."""
Mark = TypeVar("Mark")
PREFIX = "seconds_"


class Stopwatch(Generic[Mark]):
    """Divides the time from its making among phases.

    `now` marks a moment and `between` gives the seconds from one mark to another: of the clock, or of the queue of a
    GPU, which runs behind whoever fills it.
    """

    def __init__(self, now: Callable[[], Mark], between: Callable[[Mark, Mark], float], phase: Phase) -> None:
        self._now, self._between = now, between
        self._marks: list[tuple[Phase, Mark]] = [(phase, now())]

    def enter(self, phase: Phase) -> None:
        """What follows belongs to this phase."""
        self._marks.append((phase, self._now()))

    def read(self) -> dict[Phase, float]:
        """Seconds by phase since the last reading; the phase goes on."""
        self.enter(self._marks[-1][0])
        seconds: Counter[Phase] = Counter()
        for (phase, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            seconds[phase] += self._between(start, end)  # type: ignore[assignment]
        del self._marks[:-1]
        return dict(seconds)


def wall_clock(phase: Phase) -> Stopwatch[float]:
    """A stopwatch by the clock."""
    return Stopwatch(perf_counter, lambda start, end: end - start, phase)


def as_metrics(seconds: Mapping[Phase, float]) -> dict[str, float]:
    """Seconds by phase under the names that reports have for them: `seconds_forward`."""
    return {f"{PREFIX}{phase}": value for phase, value in seconds.items()}


def from_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase of a report."""
    return {name.removeprefix(PREFIX): value for name, value in metrics.items() if name.startswith(PREFIX)}
