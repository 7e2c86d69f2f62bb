"""What an artifact's record says: what it was made with, and what came out."""

import json
from pathlib import Path

import torch

from stkd.orchestrator.artifacts import RECORD, ArtifactStore, file_hashes, record_of
from stkd.trainers import provenance
from stkd.trainers.worker import Worker


def test_a_worker_tells_what_it_computes_with() -> None:
    threads = torch.get_num_threads()
    try:
        found = Worker(0, 1, "127.0.0.1", None, 3).made_with()
    finally:
        torch.set_num_threads(threads)
    assert {"code", "python", "stkd", "torch", "transformers", "deepspeed", "device", "threads", "ranks"} <= set(found)
    assert (found["threads"], found["ranks"], found["torch"]) == (3, 1, torch.__version__)
    assert found["device"] == provenance.device_kind()
    assert json.loads(json.dumps(found)) == found


def test_processors_are_told_apart(tmp_path: Path) -> None:
    facts = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\nprocessor\t: 1\n"
    (tmp_path / "cpuinfo").write_text(facts)
    assert provenance._cpu(tmp_path / "cpuinfo") == "AMD EPYC 25 17"
    assert provenance._cpu(tmp_path / "nowhere")


def test_a_record_tells_what_was_made_and_with_what(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.create("teacher", {"seed": 1}, lambda: {"threads": 2}) as folder:
        (folder / "weights").write_text("hello")
    artifact = store.path("teacher", {"seed": 1})
    record = record_of(artifact)
    assert record["made_with"] == {"threads": 2}
    assert record["files"] == file_hashes(artifact)
    assert record["files"]["weights"].startswith("2cf24dba5fb0")
    assert (artifact / RECORD).is_file()
    (artifact / "weights").write_text("hullo")
    assert file_hashes(artifact) != record["files"]
