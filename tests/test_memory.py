"""A device too small for a trial's micro-batches gets smaller ones; a trial that is over leaves nothing in memory."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TASK, Case, tiny_case, tiny_training
from transformers import BertForSequenceClassification

from stkd.trainers.specs import EpochReport, JobSpec
from stkd.trainers.worker import Worker

FORWARD = BertForSequenceClassification.forward


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return tiny_case(tmp_path_factory.mktemp("memory"), train=48)


def room_for(monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    """Let training steps of more examples fail as they do on a full GPU."""

    def forward(self: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        if self.training and len(input_ids) > examples:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return FORWARD(self, input_ids, **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", forward)


def worker() -> Worker:
    rank = Worker(0, 1, "127.0.0.1", None, threads=1)
    rank.join()
    return rank


def spec(case: Case, **changes: Any) -> JobSpec:
    return JobSpec(TASK, case.data, tiny_training(**changes), model=str(case.model))


def scores(report: EpochReport) -> dict[str, float]:
    return {name: report.measured[name] for name in ("epoch", "loss", "score", "best_score")}


def test_micro_batches_are_halved_until_they_fit(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    rank = worker()
    rank.begin(spec(case, accumulation=4))
    expected = [scores(rank.run_epoch()) for _ in range(2)]
    room_for(monkeypatch, 4)
    rank.begin(spec(case))
    reports = [rank.run_epoch() for _ in range(2)]
    rank.end()
    assert [report.note for report in reports] == ["out of memory: goes on with micro-batches of 4", ""]
    assert [scores(report) for report in reports] == expected


def test_a_trial_goes_on_from_its_checkpoint(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rank = worker()
    rank.begin(spec(case))
    rank.run_epoch()
    rank.save(tmp_path / "epoch-1")
    room_for(monkeypatch, 8)
    report = rank.run_epoch()
    rank.end()
    assert report.note == "out of memory: goes on with micro-batches of 8"
    assert report.measured["epoch"] == 2


def test_where_a_single_example_does_not_fit_the_trial_fails(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    rank = worker()
    room_for(monkeypatch, 0)
    rank.begin(spec(case, batch_size=2))
    with pytest.raises(torch.OutOfMemoryError):
        rank.run_epoch()
    rank.end()


def test_a_job_that_is_over_leaves_nothing_in_memory(case: Case, tmp_path: Path) -> None:
    rank = worker()
    rank.begin(spec(case))
    rank.run_epoch()
    rank.save(tmp_path / "epoch-1")
    model = weakref.ref(rank.job._training.engine.model)
    rank.end()
    assert model() is None
