"""Where benches of whole sweeps and trials happen."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

STKD = (sys.executable, "-m", "stkd.orchestrator.cli")
"""The command line, as a process of its own."""


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that goes away with everything in it. Ray's own files go there, and no user's settings reach Ray."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "MLFLOW_"))]:
        del os.environ[name]
    with TemporaryDirectory(prefix="stkd-", ignore_cleanup_errors=True) as folder:  # Ray's processes end a little later
        os.environ["RAY_TMPDIR"] = folder
        yield Path(folder)
