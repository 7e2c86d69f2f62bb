"""Ray Tune's part of a task: it runs the trials of the agenda."""

from contextlib import nullcontext
from pathlib import Path
from shutil import rmtree
from typing import Any

from ray import tune

from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.hosting import Room, trial_request
from stkd.orchestrator.interruption import Interruption
from stkd.orchestrator.results import ResultsFile
from stkd.orchestrator.searching import AgendaSearcher, scheduler
from stkd.orchestrator.trial import Trial, TrialPlan
from stkd.orchestrator.tune_actors import trial_actors
from stkd.trainers.lean_imports import unimportable

with unimportable("mlflow"):  # Tune counts callbacks by name, among them one for it: all of it, a second
    import ray.air.integrations.mlflow  # noqa: F401

ENDLESS = -1
"""Trials that Tune may draw: the agenda says when it is over."""
KEPT_POINTERS = 10
"""Of each trial, to its checkpoints: after so many Tune stores the state of all trials at once, which nobody reads."""


class Tuning:
    """Runs a task's trials to their end, as many at a time as there is room for; what was begun goes on.

    One run of Tune holds all phases, so that the processes of trials, with all that they have loaded, serve them all.
    After an interruption Tune begins anew, whatever it had stored: results, study and the trials' own checkpoints hold
    what was done, each as soon as it happened, and the agenda hands out what is left.
    `trainable` is what a trial is, set up with the plan as `Trial` is.
    """

    def __init__(
        self,
        plan: TrialPlan,
        callback: SweepCallback,
        agenda: Agenda,
        room: Room,
        trainable: type[tune.Trainable] = Trial,
        interruption: Interruption | None = None,
    ) -> None:
        self._plan, self._callback, self._interruption = plan, callback, interruption
        group = tune.PlacementGroupFactory(trial_request(plan.space).bundles, strategy="PACK")
        self._trainable = tune.with_resources(tune.with_parameters(trainable, plan=plan), group)
        self._searcher = AgendaSearcher(agenda, room.trials)

    def run(self) -> None:
        """Until the agenda is over, or the sweep is interrupted."""
        folder = self._plan.folder.tune
        rmtree(folder, ignore_errors=True)
        tuner = tune.Tuner(
            self._trainable,
            tune_config=tune.TuneConfig(
                num_samples=ENDLESS,
                search_alg=self._searcher,
                scheduler=scheduler(self._plan.space, ResultsFile(self._plan.folder.results).course()),
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=self._run_config(folder),
        )
        with self._interruption.heard() if self._interruption else nullcontext(), trial_actors():
            tuner.fit()

    def _run_config(self, folder: Path) -> tune.RunConfig:
        return tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[self._callback],
            failure_config=tune.FailureConfig(max_failures=self._plan.space.trials.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT_POINTERS, checkpoint_frequency=1),
            verbose=0,
        )


def _trial_id(trial: Any) -> str:
    return str(trial.trial_id)
