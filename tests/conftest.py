"""Shared fixtures: tiny models and tasks made in code, and the folders that only some machines have."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sweeping import Swept

REPOSITORY = Path(__file__).parents[1]
pytest_plugins = ["mlflow_places"]


def pytest_configure() -> None:
    """Processes of tests share the cores; commands that they start hear Ctrl-C, also in the background of a shell."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:  # before torch is loaded
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # a thread of a sweep that waits leaves its core to other tests
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """What is made once for several tests is made in one process: the finished sweep, and what a module shares."""
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs
        scopes = {fixture.scope for fixtures in definitions.values() for fixture in fixtures}
        if "swept" in definitions:
            item.add_marker(pytest.mark.xdist_group("swept"))
        elif "RayCluster" in vars(item.module):  # clusters of one address would take each other's ports
            item.add_marker(pytest.mark.xdist_group("clusters"))
        elif "module" in scopes:
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


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
