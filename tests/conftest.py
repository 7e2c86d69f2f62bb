"""Shared fixtures: tiny models and tasks made in code, and the folders that only some machines have."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def glue_folder() -> Path:
    """Real GLUE data in official tsv layout beside the checkout; skips where there is none."""
    folder = REPOSITORY.parent / "shared" / "glue"
    if not folder.is_dir():
        pytest.skip("no folder with real GLUE data beside the checkout")
    return folder
