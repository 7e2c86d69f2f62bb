"""Artifacts are whole or not there, and found again by their inputs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import killed_writer
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from killed_writer import CHUNK, CHUNKS, FILES, KILLS
from safetensors.torch import save_file

from stkd.orchestrator.artifacts import ArtifactStore, file_hashes, fingerprint, record_of, write_json
from stkd.orchestrator.writing import ASIDE_SECONDS, OWN_ASIDE_SECONDS, append_line

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


def test_who_may_read_the_record_may_read_the_weights(tmp_path: Path) -> None:
    """Others go on with what is stored: on a cluster, and in a team."""
    store = ArtifactStore(tmp_path)
    with store.create("student", {"a": 1}) as folder:
        save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
        (folder / "tokens").mkdir()
        (folder / "tokens" / "list").touch(0o600)
    found = store.find("student", {"a": 1})
    assert found is not None
    modes = {path.stat().st_mode for path in found.rglob("*") if path.is_file()}
    assert modes == {(found / "artifact.json").stat().st_mode}
    assert len(list(found.rglob("*"))) == 4


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


@pytest.mark.slow
def test_no_half_artifact_is_ever_found(tmp_path: Path) -> None:
    command = [sys.executable, killed_writer.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("killed") == KILLS, done.stderr
    found = list(tmp_path.glob("student-*"))
    assert len(found) >= KILLS // 2
    for artifact in found:
        assert_whole(artifact)
    left = [path.name for path in tmp_path.glob(".*")]
    assert len([name for name in left if name.startswith(".student-")]) >= 10, "hardly ever killed while it wrote"

    claims = {name for name in left if name.startswith(".claim-")}  # which pass on at once, and weigh nothing
    with ArtifactStore(tmp_path).create("student", INPUTS) as folder:
        (folder / "weights").write_text("7")
        make_older(tmp_path, set(left), OWN_ASIDE_SECONDS)
        assert set(ArtifactStore(tmp_path).tidy()) == set(left) - claims  # and not what is being written
        make_older(tmp_path, claims, ASIDE_SECONDS)
        assert set(ArtifactStore(tmp_path).tidy()) == claims
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in tmp_path.glob("student-*")}


def make_older(root: Path, names: set[str], seconds: float) -> None:
    then = time.time() - seconds - 1
    for path in (each for name in names for each in (root / name, *(root / name).rglob("*"))):
        os.utime(path, (then, then))


def assert_whole(artifact: Path) -> None:
    """All files are there as they were hashed, with one and the same content."""
    record = record_of(artifact)
    assert set(record["files"]) == {"metrics.json", *(f"part-{number}" for number in range(FILES))}
    assert file_hashes(artifact) == record["files"]
    assert len({path.read_bytes() for path in artifact.glob("part-*")}) == 1
    assert (artifact / "part-0").stat().st_size == CHUNKS * CHUNK


def test_what_others_write_is_left_alone_for_days(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    elsewhere = tmp_path / ".teacher-another-host-1-abc"
    elsewhere.mkdir()
    os.utime(elsewhere, (0, time.time() - 3600))
    assert store.tidy() == []
    os.utime(elsewhere, (0, time.time() - ASIDE_SECONDS - 1))
    assert store.tidy() == [elsewhere.name]
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_never_glued_to_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, b"first\n")
    with path.open("ab") as file:
        file.write(b"half a l" * 2000)
    append_line(path, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"
    path.write_bytes(b"half")
    append_line(path, b"only\n")
    assert path.read_bytes() == b"only\n"
