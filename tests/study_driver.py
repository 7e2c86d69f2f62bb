"""A driver that searches with Tune and may be killed: run again on the same folder, it goes on.

Prints, as JSON, what each trial reported last that had not ended before.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

from ray import tune

from stkd.cluster.cluster import Cluster
from stkd.orchestrator.history import SCORE, WORST_SCORE
from stkd.orchestrator.searching import StudySearcher
from stkd.orchestrator.session import TUNE_SETTINGS
from stkd.orchestrator.study import Settings, Study
from stkd.search_spaces.distributions import Distribution, LogUniform, QUniform, Uniform

TRIALS = 12
ENDLESS: Mapping[str, Distribution] = {
    "interpolation": Uniform(uniform=(0.0, 1.0)),
    "sparsity": QUniform(quniform=(0.0, 0.9, 0.1)),
    "temperature": LogUniform(loguniform=(1.0, 8.0)),
}


def effective(settings: Settings) -> str:
    """Lambda means nothing where nothing is removed."""
    return json.dumps({**settings, "interpolation": settings["interpolation"] if settings["sparsity"] else None})


def score(settings: Mapping[str, Any]) -> float:
    """Best at lambda 0.3 and sparsity 0.6."""
    interpolation, sparsity = settings["interpolation"], settings["sparsity"]
    return float(0.9 - abs(interpolation - 0.3) * sparsity - abs(sparsity - 0.6))


class Learner(tune.Trainable):  # type: ignore[misc]
    """Takes four epochs; fails in the first where the temperature is high."""

    def setup(self, config: dict[str, Any]) -> None:
        self._config, self._epoch = config, 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(0.2)
        self._epoch += 1
        if self._config["temperature"] > 4:
            return {SCORE: WORST_SCORE, "finished": False, "failure": "too hot", "done": True}
        finished = self._epoch == 4
        best = score(self._config) - 0.4 / self._epoch
        return {SCORE: best, "finished": finished, "failure": "", "done": finished}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "epoch").write_text(str(self._epoch))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._epoch = int((Path(checkpoint_dir) / "epoch").read_text())


def main(folder: Path) -> None:
    os.environ |= TUNE_SETTINGS
    study = Study(folder / "study.jsonl", ENDLESS, 0, effective)
    rmtree(folder / "tune", ignore_errors=True)
    with Cluster():
        results = tune.Tuner(
            Learner,
            tune_config=tune.TuneConfig(
                num_samples=TRIALS - study.handed_out,
                search_alg=StudySearcher(study, concurrent=lambda: 2),
                scheduler=tune.schedulers.ASHAScheduler(metric=SCORE, mode="max", max_t=4, reduction_factor=2),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1),
                verbose=0,
            ),
        ).fit()
    last = {found.metrics["trial_id"]: found.metrics for found in results if found.metrics}
    print(json.dumps({name: {key: told[key] for key in (SCORE, "finished", "failure")} for name, told in last.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
