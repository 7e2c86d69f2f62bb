"""That this process gets on: counted where work is done, looked at by whoever must know whether it is stuck."""


class Pulse:
    """How many steps of whatever kind were done."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        """One more."""
        self.steps += 1


PULSE = Pulse()
"""This process's, which does one thing at a time."""
