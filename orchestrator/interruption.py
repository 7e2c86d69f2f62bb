"""What Ctrl-C means while trials run."""

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from stkd.orchestrator.events import Observer


class Interruption:
    """Once, trials finish their epoch, which is kept; twice, Tune ends at once; a third time, so does everything.

    Tune is told to end by the signal that it listens to for that, `SIGUSR1`; its own Ctrl-C is switched off.
    """

    active: "Interruption | None" = None
    """What schedulers ask, since Tune pickles them."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._presses = 0
        self._listens = False
        self._told = 0
        self._finishing: set[str] = set()
        Interruption.active = self

    @property
    def asked(self) -> bool:
        """Whether the sweep is to stop."""
        return self._presses > 0

    @property
    def waits(self) -> bool:
        """Whether trials are waited for that were asked to finish their epoch."""
        return self._listens and self._presses == 1

    @contextmanager
    def heard(self) -> Iterator[None]:
        """While the context lasts, Ctrl-C is this one's."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
        signal.signal(signal.SIGINT, self._press)
        signal.signal(signal.SIGUSR1, signal.default_int_handler)  # until Tune listens
        self._listens = True
        try:
            yield
        finally:
            self._listens = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def _press(self, *_: object) -> None:
        self._presses += 1
        if self._presses == 2:
            signal.raise_signal(signal.SIGUSR1)
        elif self._presses > 2:
            raise KeyboardInterrupt

    def reported(self, trial: str) -> None:
        """A trial has trained an epoch, which will be stored next."""
        if self.asked:
            self._finishing.add(trial)

    def look(self, running: Collection[str]) -> set[str]:
        """Told after each of Tune's steps which trials run; returns those that have just finished their last epoch.

        When all that ran at the first Ctrl-C have, Tune is told to end. What begins meanwhile is not waited for, unless
        it has `reported` an epoch.
        """
        if self._presses > self._told:
            if not self._told:
                self._finishing |= set(running)
            self._told = self._presses
            self._observer.interrupted(len(self._finishing), at_once=self._presses > 1)
        rested = self._finishing.difference(running)
        self._finishing -= rested
        if self.asked and not self._finishing:
            signal.raise_signal(signal.SIGUSR1)
        return rested


def is_asked() -> bool:
    """Whether the sweep that this process runs is to stop."""
    return Interruption.active is not None and Interruption.active.asked


def is_waiting() -> bool:
    """Whether this process waits for trials to finish their epoch, before its sweep stops."""
    return Interruption.active is not None and Interruption.active.waits
