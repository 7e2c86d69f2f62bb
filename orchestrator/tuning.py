"""Ray Tune's part of a task: it runs the trials of the agenda, with its own state on disk."""

import json
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from shutil import rmtree
from typing import Any

from ray import cloudpickle, tune

from stkd.orchestrator.agenda import Agenda
from stkd.orchestrator.callback import SweepCallback
from stkd.orchestrator.hosting import Room, trial_request
from stkd.orchestrator.interruption import Interruption
from stkd.orchestrator.searching import AgendaSearcher, scheduler
from stkd.orchestrator.trial import Trial, TrialPlan

ENDLESS = -1
"""Trials that Tune may draw: the agenda says when it is over."""


class Tuning:
    """Runs a task's trials to their end, as many at a time as there is room for; what was begun is restored.

    One run of Tune holds all phases, so that the processes of trials, with all that they have loaded, serve them all.
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
        if is_restorable(folder):
            tuner = tune.Tuner.restore(str(folder), trainable=self._trainable)
        else:
            rmtree(folder, ignore_errors=True)  # results, study and the trials' own checkpoints hold what was done
            tuner = tune.Tuner(
                self._trainable,
                tune_config=tune.TuneConfig(
                    num_samples=ENDLESS,
                    search_alg=self._searcher,
                    scheduler=scheduler(self._plan.space),
                    reuse_actors=True,
                    trial_name_creator=_trial_id,
                    trial_dirname_creator=_trial_id,
                ),
                run_config=self._run_config(folder),
            )
        with self._interruption.heard() if self._interruption else nullcontext():
            tuner.fit()

    def _run_config(self, folder: Path) -> tune.RunConfig:
        return tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[self._callback],
            failure_config=tune.FailureConfig(max_failures=self._plan.space.trials.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1),
            verbose=0,
        )


def is_restorable(folder: Path) -> bool:
    """Whether Tune's state is there, and whole: Tune copies it to storage file by file, and is killed in between."""
    experiments, generators, searchers, callbacks = (
        sorted(folder.glob(pattern))
        for pattern in ("experiment_state-*.json", "search_gen_state-*.json", "searcher-state-*.pkl", "callback-*.pkl")
    )
    if not (experiments and generators and searchers):
        return False
    try:
        json.loads(experiments[-1].read_text(encoding="utf-8"))
        for path in (folder / "tuner.pkl", generators[-1], *callbacks[-1:]):
            cloudpickle.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, EOFError, UnpicklingError):
        return False
    return True


def _trial_id(trial: Any) -> str:
    return str(trial.trial_id)
