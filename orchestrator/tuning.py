"""Ray Tune's part of a task: the search, and lists of given trials, each with its own state on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import BasicVariantGenerator

from stkd.cluster.connection import bundles
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.effective import EffectiveSettings
from stkd.orchestrator.history import SCORE
from stkd.orchestrator.hosting import concurrent_trials
from stkd.orchestrator.phases import Planned
from stkd.orchestrator.searching import exhausted, parameter_space, samples, scheduler, searcher
from stkd.orchestrator.trial import Trial, TrialPlan


class Tuning:
    """Runs trials of one task to their end, as many at a time as there is room for; what was begun is restored."""

    def __init__(self, plan: TrialPlan, callback: SweepCallback) -> None:
        self._plan, self._space, self._callback = plan, plan.space, callback
        resources = plan.space.resources
        request = (resources.ranks, resources.cpus_per_rank, resources.gpus_per_rank)
        group = tune.PlacementGroupFactory(bundles(*request), strategy="PACK")
        self._trainable = tune.with_resources(tune.with_parameters(Trial, plan=plan), group)
        self._concurrent = concurrent_trials(plan.space)

    def search(self) -> bool:
        """Run the search; returns whether it found nothing more to try before its last trial."""
        space = self._space
        search = searcher(space, self._concurrent, self._plan.folder.study, EffectiveSettings(self._plan))
        self._fit(
            self._plan.folder.tune("search"),
            parameter_space(space),
            num_samples=samples(space),
            search_alg=search,
            scheduler=scheduler(space),
            **({} if space.trials.scheduler else {"metric": SCORE, "mode": "max"}),
        )
        return exhausted(search)

    def run(self, phase: str, planned: Sequence[Planned]) -> None:
        """Run the given trials, each to its end."""
        self._fit(
            self._plan.folder.tune(phase),
            {"planned": tune.grid_search([trial.as_config()["planned"] for trial in planned])},
            search_alg=BasicVariantGenerator(max_concurrent=self._concurrent),
            scheduler=FIFOScheduler(),
            metric=SCORE,
            mode="max",
        )

    def _fit(self, experiment: Path, parameters: dict[str, Any], **how: Any) -> None:
        if tune.Tuner.can_restore(experiment):
            tuner = tune.Tuner.restore(str(experiment), trainable=self._trainable, param_space=parameters)
        else:
            tuner = tune.Tuner(
                self._trainable,
                param_space=parameters,
                tune_config=tune.TuneConfig(
                    reuse_actors=True, trial_name_creator=_trial_id, trial_dirname_creator=_trial_id, **how
                ),
                run_config=self._run_config(experiment),
            )
        tuner.fit()

    def _run_config(self, experiment: Path) -> tune.RunConfig:
        return tune.RunConfig(
            name=experiment.name,
            storage_path=str(experiment.parent),
            callbacks=[self._callback],
            failure_config=tune.FailureConfig(max_failures=self._space.trials.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1),
            verbose=0,
        )


def _trial_id(trial: Any) -> str:
    return str(trial.trial_id)
