"""Tune's events as a sweep's own, where Tune tells of them in an order that one would not expect."""

from pathlib import Path

import pytest
from ray.tune.experiment import Trial as TuneTrial
from typing_extensions import override

from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.events import Observer
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import TrialResult
from stkd.search_spaces.reading import read_space

pytestmark = pytest.mark.slow  # Ray Tune is seconds to import


class Listener(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    @override
    def trial_started(self, trial: TrialResult) -> None:
        self.told.append(("started", trial.status))

    @override
    def trial_retried(self, trial: TrialResult) -> None:
        self.told.append(("retried", trial.status))

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        self.told.append(("ended", trial.status))


def test_a_trial_whose_process_never_starts_is_retried_and_fails(tmp_path: Path) -> None:
    listener, space = Listener(), read_space(Path("quickstart"), storage=str(tmp_path))
    folder = Storage(tmp_path).new_sweep("tiny").task("remarks")
    known = {"t": TrialResult("t", {}, "running", seconds=5.0)}  # of an earlier session
    callback = SweepCallback(space, folder, listener, known, reasons={"t": "its process does not start"})
    trial = TuneTrial("trainable", trial_id="t", config={"sparsity": 0.5}, stub=True)
    callback.on_trial_recover(1, [trial], trial)
    callback.on_trial_recover(2, [trial], trial)
    callback.on_trial_error(3, [trial], trial)
    retried = [("retried", "running")] * 2
    assert listener.told == [("started", "running"), *retried, ("ended", "failed")]
    assert callback.trials["t"].reason == "its process does not start"
