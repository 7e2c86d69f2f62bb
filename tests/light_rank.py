"""A rank without a model, for tests of gangs; its own module, since Ray's processes import it by name."""

import time


class LightRank:
    """Counts, as fast as it is told to."""

    def __init__(self, rank: int, size: int, host: str, port: int | None, threads: int) -> None:
        self._steps, self._rank = 0, rank

    @property
    def port(self) -> int:
        """Nobody is met there."""
        return 0

    def join(self) -> None:
        """Nobody to meet."""

    def abandon(self) -> None:
        """Nobody to leave."""

    def progress(self) -> tuple[int, str]:
        """Steps so far; never waits."""
        return self._steps, ""

    def count(self, steps: int, seconds: float) -> int:
        """So many steps of so many seconds."""
        for _ in range(steps):
            time.sleep(seconds)
            self._steps += 1
        return self._steps
