"""Keeps what a library imports by the way, and nobody here needs, out of every rank's start."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unimportable(name: str) -> Iterator[None]:
    """Within the context, `import name` fails as if it were not installed; afterwards it works again.

    A module that was imported before stays what it is.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's documented way to block an import
    try:
        yield
    finally:
        del sys.modules[name]
