"""Work that two ask for at the same moment is done once, and somebody who dies does not keep the others waiting."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stkd.orchestrator import claims
from stkd.orchestrator.artifacts import ArtifactStore

INPUTS = {"mask": "a"}
WORKERS = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(claims, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(claims, "LOOK_SECONDS", 0.01)


def compute(store: ArtifactStore, seconds: float, made: list[str], name: str) -> None:
    with store.once("logits", INPUTS) as folder:
        if folder is not None:
            time.sleep(seconds)
            (folder / "by").write_text(name)
            made.append(name)


def at_once(root: Path, seconds: float) -> list[str]:
    """Everybody asks for the same; returns who has made it."""
    made: list[str] = []
    threads = [
        threading.Thread(target=compute, args=(ArtifactStore(root), seconds, made, str(number)))
        for number in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    return made


def test_of_several_that_ask_at_the_same_moment_one_computes(tmp_path: Path) -> None:
    made = at_once(tmp_path, 0.2)
    assert len(made) == 1
    found = ArtifactStore(tmp_path).find("logits", INPUTS)
    assert found is not None
    assert (found / "by").read_text() == made[0]
    assert [path.name for path in tmp_path.iterdir()] == [found.name]


def test_a_holder_that_lives_is_waited_for_longer_than_one_that_is_dead(tmp_path: Path) -> None:
    assert len(at_once(tmp_path, 2.0)) == 1


def test_after_a_failure_the_next_one_computes(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError, match="no luck"), store.once("logits", INPUTS):
        raise RuntimeError("no luck")
    assert list(tmp_path.iterdir()) == []
    assert len(at_once(tmp_path, 0.0)) == 1


HOLD = """
import sys, time
from pathlib import Path
from stkd.orchestrator.artifacts import ArtifactStore
with ArtifactStore(Path(sys.argv[1])).once("logits", {"mask": "a"}) as folder:
    print("held", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_held_passes_to_the_next_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    monkeypatch.setattr(claims, "STALE_SECONDS", 600.0)
    start = time.monotonic()
    assert len(at_once(tmp_path, 0.0)) == 1
    assert time.monotonic() - start < 10
    assert not list(tmp_path.glob(".claim-*"))


def test_what_another_machine_held_passes_to_the_next_when_it_is_silent(tmp_path: Path) -> None:
    claim = tmp_path / f".claim-{ArtifactStore(tmp_path).path('logits', INPUTS).name}"
    claim.write_text("elsewhere 1 abc")
    start = time.monotonic()
    assert len(at_once(tmp_path, 0.0)) == 1
    assert 1.0 < time.monotonic() - start < 10
    assert not list(tmp_path.glob(".claim-*"))


def test_a_holder_thought_dead_leaves_the_claim_of_its_successor(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    with claims.claimed(claim, lambda: False) as ours:
        assert ours
        claim.unlink()
        claim.write_text("somebody else")
    assert claim.read_text() == "somebody else"
