"""Checkpoints are written while the training goes on, hold what was asked for, and count only when they are whole."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import Case, tiny_case, tiny_training

from stkd.orchestrator.trial import POINTER, Trial
from stkd.trainers.loop import Training, label_loss
from stkd.trainers.patience import PATIENCE, StorageError
from stkd.trainers.ranks import Ranks
from stkd.trainers.specs import is_whole, written

ONE = Ranks()


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    case: Case = tiny_case(tmp_path / "case", train=32)
    made = Training(case.load(), case.train, label_loss("classification"), tiny_training(epochs=4), ONE, {})
    yield made
    made.engine.close()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Writing waits until the event is set."""
    ready, save = threading.Event(), torch.save

    def wait_and_save(*arguments: Any, **options: Any) -> None:
        assert ready.wait(60)
        save(*arguments, **options)

    monkeypatch.setattr(torch, "save", wait_and_save)
    return ready


def test_a_training_goes_on_while_its_checkpoint_is_written(
    training: Training, slow_disk: threading.Event, tmp_path: Path
) -> None:
    training.run_epoch()
    then = {name: weight.clone() for name, weight in training.engine.model.state_dict().items()}
    training.engine.save(tmp_path / "first")
    expected = training.run_epoch()
    assert not is_whole(tmp_path / "first", 1)
    slow_disk.set()
    training.engine.save(tmp_path / "second")  # waits for the first
    assert is_whole(tmp_path / "first", 1)
    training.engine.load(tmp_path / "first")
    assert all(torch.equal(weight, then[name]) for name, weight in training.engine.model.state_dict().items())
    training.epoch = 1
    assert training.run_epoch() == expected


def test_what_could_not_be_written_is_told_at_the_next_checkpoint(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    monkeypatch.setattr(PATIENCE, "seconds", 0.0)
    training.engine.save(tmp_path / "first")
    with pytest.raises(StorageError, match="refuses writes: no space left"):
        training.engine.save(tmp_path / "second")
    training.engine.close()  # whatever was still to be done has been done
    assert not is_whole(tmp_path / "first", 1)


class Called:
    """A gang that only remembers what it was called for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def call(self, *what: Any) -> None:
        self.calls.append(what)


class Restored(Trial):
    """A trial that was begun before, without its ranks."""

    def __init__(self, ranks: int, own: Path) -> None:
        self._own = own
        self._plan: Any = SimpleNamespace(space=SimpleNamespace(resources=SimpleNamespace(ranks=ranks)))
        self._gang: Any = Called()
        self._known, self._history = [], []

    @property
    def _checkpoints(self) -> Path:
        return self._own


@pytest.mark.parametrize(("parts", "epoch"), [({1: 2, 2: 2}, 2), ({1: 2, 2: 1}, 1), ({1: 1}, 0)])
def test_a_trial_goes_on_from_its_last_whole_checkpoint(tmp_path: Path, parts: dict[int, int], epoch: int) -> None:
    for number, ranks in parts.items():
        folder = tmp_path / f"epoch-{number}"
        folder.mkdir()
        for rank in range(ranks):
            written(folder, rank).touch()
    history = [{"epoch": number} for number in parts]
    (tmp_path / POINTER).write_text(json.dumps({"history": history, "teacher_examples": 5}))
    trial = Restored(2, tmp_path)
    trial._go_on()
    assert trial._history == history[:epoch]
    assert trial._gang.calls == ([("load", tmp_path / f"epoch-{epoch}")] if epoch else [])


def test_a_trial_whose_end_nobody_heard_tells_it_again(tmp_path: Path) -> None:
    history = [{"epoch": number} for number in (1, 2, 3)]
    (tmp_path / POINTER).write_text(json.dumps({"history": history, "teacher_examples": 5}))
    trial = Restored(2, tmp_path)
    trial._known = history
    trial._go_on()
    assert trial._history == history[:2]
    assert trial._gang.calls == []
