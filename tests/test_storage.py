"""Storage that is full or read-only for a while: waited for, told of, and nothing is ever half there."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest
import torch
from safetensors.torch import save_file
from small_disk import SmallDisk, small_disk
from sweeping import stkd, write_space
from tiny import tiny_teacher
from transformers import AutoTokenizer
from victims import begun, results_text

from stkd.orchestrator.artifacts import ArtifactStore, write_json
from stkd.orchestrator.journal import Journal, Measured
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import read_results
from stkd.orchestrator.study import Study
from stkd.orchestrator.writing import append_line
from stkd.search_spaces.distributions import Uniform
from stkd.trainers import patience
from stkd.trainers.patience import PATIENCE, StorageError, patiently

WAIT = 1.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=4) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(PATIENCE, "seconds", 30.0)


def full_for(disk: SmallDisk, seconds: float) -> None:
    disk.fill()
    Timer(seconds, disk.empty).start()


def read_only_for(disk: SmallDisk, seconds: float) -> None:
    disk.remount("ro")
    Timer(seconds, disk.remount, ("rw",)).start()


BREAKS = pytest.mark.parametrize("breaks", [full_for, read_only_for])
Breaks = Callable[[SmallDisk, float], None]


@BREAKS
def test_an_artifact_is_written_when_there_is_room_again(disk: SmallDisk, breaks: Breaks) -> None:
    store = ArtifactStore(disk.root / "artifacts")
    start = time.monotonic()
    breaks(disk, WAIT)
    with store.once("scores", {"a": 1}) as folder:
        assert folder is not None
        write_json(folder / "metrics.json", {"score": 1.0, "text": "x" * 100_000})
    assert WAIT < time.monotonic() - start < 20
    assert PATIENCE.problem == ""
    assert [path.name for path in store.root.iterdir()] == [store.path("scores", {"a": 1}).name]


def test_where_room_never_comes_it_says_so_and_leaves_nothing(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATIENCE, "seconds", 0.5)
    store = ArtifactStore(disk.root / "artifacts")
    with store.create("teacher", {}) as folder:
        (folder / "weights").write_bytes(b"7")
    with (  # noqa: PT012
        pytest.raises(StorageError, match=r"refuses writes: no space left"),
        store.create("scores", {}) as folder,
    ):
        disk.fill()
        write_json(folder / "metrics.json", {"text": "x" * 100_000})
    assert store.find("teacher", {}) is not None
    assert store.find("scores", {}) is None
    assert len(list(store.root.iterdir())) == 1


@BREAKS
def test_lines_are_whole_and_once_whatever_happens(disk: SmallDisk, breaks: Breaks) -> None:
    journal, lines = Journal(disk.root / "journal.jsonl"), disk.root / "lines.jsonl"
    study = Study(disk.root / "study.jsonl", {"sparsity": Uniform(uniform=(0.0, 1.0))}, 0, str)
    append_line(lines, b"first\n")
    breaks(disk, WAIT)
    start = time.monotonic()
    settings = study.ask("a")
    journal.append(Measured(key="k", metrics={f"m{number}": 1.0 for number in range(500)}, step=1))
    patiently(lambda: append_line(lines, b"second" * 10_000 + b"\n"), disk.root)
    study.complete("a", 0.5)
    assert WAIT / 2 < time.monotonic() - start < 25

    assert lines.read_bytes() == b"first\n" + b"second" * 10_000 + b"\n"
    again = Journal(disk.root / "journal.jsonl")
    assert again.lines == 1
    assert len(again.without_known("k", {"m1": 0.0, "n": 0.0}, 1)) == 1
    told = Study(study.path, {"sparsity": Uniform(uniform=(0.0, 1.0))}, 0, str)._trials()
    assert [(trial.params, trial.value) for trial in told] == [(settings, 0.5)]


def test_whatever_a_library_raises_for_a_full_disk_is_understood(disk: SmallDisk, tmp_path: Path) -> None:
    """torch, safetensors and tokenizers have errors of their own."""
    tensors, tokenizer = {"a": torch.zeros(50_000)}, AutoTokenizer.from_pretrained(tiny_teacher(tmp_path / "model"))
    writes: dict[str, Callable[[], object]] = {
        "torch": lambda: torch.save(tensors, disk.root / "a.pt"),
        "safetensors": lambda: save_file(tensors, disk.root / "a.safetensors"),
        "tokenizers": lambda: tokenizer.save_pretrained(disk.root / "tokenizer"),
    }
    for name, write in writes.items():
        full_for(disk, WAIT)
        start = time.monotonic()
        patiently(write, disk.root)
        assert time.monotonic() - start > WAIT / 2, name
    assert torch.load(disk.root / "a.pt")["a"].shape == (50_000,)
    assert (disk.root / "tokenizer" / "tokenizer.json").stat().st_size > 0


def test_what_is_not_the_storage_s_fault_is_raised_at_once(disk: SmallDisk) -> None:
    with pytest.raises(FileNotFoundError):
        patiently(lambda: (disk.root / "missing").read_text(), disk.root)
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 / 0, disk.root)


@pytest.mark.cluster
def test_a_sweep_waits_for_its_storage_and_stops_cleanly_when_it_stays_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=64) as disk:
        space = write_space(
            tmp_path,
            storage=str(disk.root / "runs"),
            search={"sparsity": {"choice": [0.0, 0.5]}},
            trials={"count": 2, "searcher": "grid", "scheduler": None, "concurrent": 1},
            training={"epochs": 6, "max_length": 32, "learning_rate": 1.0e-3},
            resources={"cpus_per_rank": 1, "storage_patience": 10.0},
            controls=False,
        )
        storage = Storage(disk.root / "runs")
        with begun(tmp_path, "--space", str(space)) as driver:
            driver.wait_until(lambda: '"trial_student"' in results_text(storage))
            disk.fill()
            time.sleep(5)
            disk.empty()
            driver.wait_until(lambda: '"status": "finished"' in results_text(storage))
            kept = results_text(storage)
            disk.fill()
            screen = driver.finish(2)
        assert "storage refuses writes: " in screen
        assert "storage takes writes again" in screen
        assert "Traceback" not in screen
        sweep = storage.find_sweep()
        assert f"--resume {sweep.sweep_id}" in screen, screen
        assert screen.splitlines()[-1].startswith("stkd: stopped, since storage refuses writes")
        assert results_text(storage).startswith(kept)

        disk.empty()
        done = stkd("sweep", "--resume", "--storage", storage.root)
        assert done.returncode == 0, done.stdout + done.stderr
        trials = read_results(sweep)["remarks"].of_phase("search")
        assert [(trial.status, trial.epochs) for trial in trials] == [("finished", 6)] * 2
        assert all((storage.artifacts / trial.student / "model.safetensors").is_file() for trial in trials)
