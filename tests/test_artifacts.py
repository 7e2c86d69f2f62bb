"""Artifacts are whole or not there, and found again by their inputs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stkd.orchestrator.artifacts import ArtifactStore, fingerprint, write_json

INPUTS = {"data": "a", "training": {"epochs": 3, "seed": 1}}


def test_created_artifact_is_found_by_equal_inputs(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    assert store.find("teacher", INPUTS) is None
    with store.create("teacher", INPUTS) as folder:
        (folder / "weights").write_text("7")
    found = store.find("teacher", {"training": {"seed": 1, "epochs": 3}, "data": "a"})
    assert found is not None
    assert (found / "weights").read_text() == "7"
    assert store.find("teacher", INPUTS | {"data": "b"}) is None
    assert store.find("scores", INPUTS) is None


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError, match="no luck"), store.create("teacher", INPUTS) as folder:  # noqa: PT012
        (folder / "weights").write_text("half")
        raise RuntimeError("no luck")
    assert store.find("teacher", INPUTS) is None
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_write_the_same_artifact_the_first_to_finish_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.create("teacher", INPUTS) as slow:
        (slow / "who").write_text("slow")
        with store.create("teacher", INPUTS) as quick:
            (quick / "who").write_text("quick")
    found = store.find("teacher", INPUTS)
    assert found is not None
    assert (found / "who").read_text() == "quick"
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_without_its_record_is_not_an_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.path("teacher", INPUTS).mkdir()
    assert store.find("teacher", INPUTS) is None


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=5))))
def test_fingerprint_ignores_the_order_of_keys(inputs: dict[str, int | float | str]) -> None:
    assert fingerprint(inputs) == fingerprint(dict(reversed(inputs.items())))
    assert fingerprint(inputs) != fingerprint(inputs | {"another key": 1})


def test_write_json_replaces_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"score": 1})
    write_json(path, {"score": 2})
    assert path.read_text() == '{\n  "score": 2\n}'
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
