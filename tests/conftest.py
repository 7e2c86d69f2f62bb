"""Shared fixtures: tiny models and tasks made in code, and the folders that only some machines have."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sweeping import Swept

REPOSITORY = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Commands that tests start hear Ctrl-C, also where a shell runs the tests in the background and they do not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def glue_folder() -> Path:
    """Real GLUE data in official tsv layout beside the checkout; skips where there is none."""
    folder = REPOSITORY.parent / "shared" / "glue"
    if not folder.is_dir():
        pytest.skip("no folder with real GLUE data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> "Swept":
    """One finished tiny sweep, for all tests that look at one; those that sweep again leave it as it is."""
    from sweeping import sweep_once  # loads torch, which few tests need

    return sweep_once(tmp_path_factory.mktemp("sweep"))
