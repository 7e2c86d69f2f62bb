"""What a sweep that was disturbed has written down, read back and held to what it promises."""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import optuna
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import ResultsFile, TaskResults, TrialResult
from stkd.orchestrator.study import NAME, TRIAL

TASK = "remarks"
UNLIKE = ("milliseconds", "seconds", "teacher_examples")
"""How metrics begin that differ between two runs: clocks, and what was taken over."""


def sweep_of(folder: Path) -> SweepFolder:
    """The one sweep whose storage is `runs` in the folder."""
    (root,) = (folder / "runs" / "sweeps").iterdir()
    return Storage(folder / "runs").find_sweep(root.name)


def results_of(folder: Path) -> TaskResults:
    """What it has found so far."""
    return ResultsFile(sweep_of(folder).task(TASK).results).read(TASK)


def local_runs(folder: Path) -> list[Run]:
    """Every MLflow run of a storage that has its MLflow beside it."""
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def study_of(folder: Path) -> list[FrozenTrial]:
    """What its study holds; nothing before the search."""
    path = sweep_of(folder).task(TASK).study
    if not path.exists():
        return []
    storage = JournalStorage(JournalFileBackend(str(path)))
    trials: list[FrozenTrial] = optuna.load_study(study_name=NAME, storage=storage).trials
    return trials


def epochs_told(folder: Path) -> dict[str, list[int]]:
    """The epochs of each trial, in the order in which they were told, with those that were trained again."""
    told: dict[str, list[int]] = {}
    for line in sweep_of(folder).task(TASK).results.read_text().splitlines():
        trial = json.loads(line)
        if "epochs" in trial and "trial" in trial:
            told.setdefault(trial["trial"], []).append(trial["epochs"])
    return told


def assert_little_was_lost(folder: Path) -> None:
    """No trial trained more than one epoch again: what is told last before a loss is at most told once more."""
    for trial, epochs in epochs_told(folder).items():
        falls = [before - after for before, after in pairwise(epochs)]
        assert max(falls, default=0) <= 0, (trial, epochs)


def what_came_of(results: TaskResults) -> dict[str, Mapping[str, object]]:
    """By phase, role and values: the status, the epochs and the final metrics, but for clocks."""
    return {
        f"{trial.phase} {trial.role} {json.dumps(dict(trial.values), sort_keys=True)}": _outcome(trial)
        for trial in results.trials.values()
    }


def _outcome(trial: TrialResult) -> Mapping[str, object]:
    metrics = {name: value for name, value in trial.metrics.items() if not name.startswith(UNLIKE)}
    return {"status": trial.status, "epochs": trial.epochs, "metrics": metrics}


def last_losses(runs: list[Run]) -> dict[str, float]:
    """The loss that each trial had in its last epoch, by the trial's name."""
    return {str(run.info.run_name): run.data.metrics["loss"] for run in runs if run.data.tags["stkd.kind"] == "trial"}


def assert_one_run_each(runs: list[Run], results: TaskResults) -> None:
    """MLflow has a run for the sweep, for each stage and for each trial, and none of them runs."""
    kinds = Counter(run.data.tags["stkd.kind"] for run in runs)
    assert kinds.pop("trial") == len(results.trials)
    assert set(kinds.values()) == {1}, kinds
    assert set(results.stages) <= set(kinds)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}


def learned(trials: list[FrozenTrial]) -> dict[str, tuple[object, ...]]:
    """What a study was told of the trials that have ended."""
    return {
        trial.user_attrs[TRIAL]: (trial.state, trial.value, trial.params, trial.intermediate_values)
        for trial in trials
        if TRIAL in trial.user_attrs and trial.state.is_finished()
    }
