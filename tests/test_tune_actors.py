"""Processes of trials: one that Ray's memory monitor ends costs no sweep, and none is started for nothing."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from stkd.cluster.cluster import Cluster
from stkd.orchestrator.callback import failure_reason
from stkd.orchestrator.searching import scheduler
from stkd.orchestrator.session import TUNE_SETTINGS
from stkd.orchestrator.tune_actors import TrialActors, TrialClasses, trial_actors
from stkd.search_spaces.reading import read_space

pytestmark = pytest.mark.slow
STEPS = 3
LOW = "1 worker(s) were killed due to the node running low on memory."


class Counter(tune.Trainable):  # type: ignore[misc]
    def setup(self, config: dict[str, Any]) -> None:
        self.count = 0

    def step(self) -> dict[str, Any]:
        time.sleep(0.1)
        self.count += 1
        return {"count": self.count, "number": self.config["number"], "done": self.count == STEPS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "count").write_text(str(self.count))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self.count = int((Path(checkpoint_dir) / "count").read_text())


class Monitor:
    """Says of the first trial's second result that its process was ended, so many times."""

    def __init__(self, times: int, patch: pytest.MonkeyPatch) -> None:
        self.left, self._get = times, ray.get
        patch.setattr(ray, "get", self.get)

    def get(self, *arguments: Any, **options: Any) -> Any:
        found = self._get(*arguments, **options)
        if self.left and isinstance(found, dict) and (found.get("number"), found.get("count")) == (1, 2):
            self.left -= 1
            raise OutOfMemoryError(LOW)
        return found


def test_trials_take_a_process_that_is_ready_unless_there_is_something_to_pass_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ENV_VARS_TO_PROPAGATE:
        monkeypatch.delenv(name, raising=False)
    classes = TrialClasses()
    assert classes.get(Counter) is classes.get(Counter)
    assert classes.get(Counter)._default_options.get("runtime_env") is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of a test")
    passed_on = TrialClasses().get(Counter)._default_options["runtime_env"]["env_vars"]
    assert passed_on["AWS_ACCESS_KEY_ID"] == "of a test"


@pytest.mark.parametrize(("times", "failed"), [(1, 0), (2, 1)])
def test_low_memory_costs_a_trial_and_no_sweep(
    times: int, failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TUNE_SETTINGS.items():
        monkeypatch.setenv(name, value)
    with Cluster(), trial_actors():
        monitor = Monitor(times, monkeypatch)
        found = tune.Tuner(
            Counter,
            param_space={"number": tune.grid_search([1, 2])},
            run_config=tune.RunConfig(
                storage_path=str(tmp_path),
                failure_config=tune.FailureConfig(max_failures=1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
                verbose=0,
            ),
        ).fit()
    assert monitor.left == 0
    assert (len(found), found.num_errors) == (2, failed)
    ended = {result.config["number"]: result for result in found}
    assert ended[2].metrics["count"] == STEPS
    if failed:
        assert "low on memory" in failure_reason(ended[1].error)
    else:
        assert ended[1].metrics["count"] == STEPS


class Moment(Counter):
    """A trial that is over before another's process has started."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config, self.count = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        return {"number": self.config["number"], "score": 1.0, "process": os.getpid(), "done": True}


def test_no_process_is_started_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time need two, however fast the first is done with its trial while the second one's starts."""
    for name, value in TUNE_SETTINGS.items():
        monkeypatch.setenv(name, value)
    started: list[object] = []
    add_actor = TrialActors.add_actor

    def counted(actors: TrialActors, *arguments: Any, **options: Any) -> Any:
        started.append(options["cls"])
        return add_actor(actors, *arguments, **options)

    monkeypatch.setattr(TrialActors, "add_actor", counted)
    with Cluster(), trial_actors():
        found = tune.Tuner(
            tune.with_resources(Moment, {"CPU": 1}),
            param_space={"number": tune.grid_search(list(range(40)))},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=2,
                scheduler=scheduler(read_space(Path("quickstart"), ["trials.scheduler=null"])),
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
    assert sorted(result.metrics["number"] for result in found) == list(range(40))
    assert len(started) == 2
