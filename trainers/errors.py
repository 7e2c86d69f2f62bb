"""The failures that a person reads."""


class UserError(ValueError):
    """A mistake of the caller: the message says what is wrong, where, and what would be right, in one line."""


class MisplacedError(ValueError):
    """Two settings that do not go together; `key` is the one to change, as names of keys and indices of lists."""

    def __init__(self, key: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.key = key


class NonFiniteLossError(ArithmeticError):
    """The loss of a training step is not a number or infinite, so that further steps would be wasted."""


class OnnxError(UserError):
    """A model cannot be handed over as ONNX: a package is missing, or the file would not answer as the model does."""


class NothingFitsError(UserError):
    """No student keeps the budget; the message names the nearest miss."""
