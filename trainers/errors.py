"""The two kinds of failure that a person reads."""


class UserError(ValueError):
    """A mistake of the caller: the message says what is wrong, where, and what would be right, in one line."""


class NonFiniteLossError(ArithmeticError):
    """The loss of a training step is not a number or infinite, so that further steps would be wasted."""
