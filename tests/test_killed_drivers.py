"""A sweep whose driver is killed with -9, in each of its stages, and taken up again."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from psutil import Process
from recorded import assert_little_was_lost, assert_one_run_each, learned, local_runs, results_of, study_of
from sweeping import stkd, write_space
from victims import begun, family_of, wait_until_gone

from stkd.orchestrator.results import Phase, TaskResults

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated")  # MLflow and SQLAlchemy
ROUNDS = 3
STAGES = ("data", "teacher", "logits", "trial_student", "scores")
PHASES: dict[str, Phase] = {"trials": "search", "controls": "control", "confirm": "confirm"}
ALL = (*STAGES, *PHASES, "test")
EPOCHS = 4


def space_of(folder: Path) -> Path:
    return write_space(
        folder,
        search={"interpolation": {"uniform": [0.0, 1.0]}, "sparsity": {"quniform": [0.2, 0.8, 0.1]}},
        trials={"count": 2, "searcher": "optuna", "scheduler": None, "concurrent": 1},
        training={"epochs": EPOCHS, "max_length": 32, "learning_rate": 1.0e-3},
        confirm={"top": 1, "seeds": 2},
    )


def is_in(stage: str, after: int, folder: Path, driver: int) -> bool:
    """Whether the driver is in the midst of a stage now: in a phase of trials, so many epochs after one has begun."""
    artifacts = folder / "runs" / "artifacts"
    if stage in PHASES:
        trials = results_of(folder).of_phase(PHASES[stage])
        return any(trial.status == "running" and trial.epochs >= after for trial in trials)
    if stage == "test":
        return any(artifacts.glob(".test-*"))
    return any(f" {driver} " in claim.read_text() for claim in artifacts.glob(f".claim-{stage}-*"))


def is_so(condition: Callable[[], bool]) -> bool:
    """What it looks at may not be there yet, or no more."""
    try:
        return condition()
    except (FileNotFoundError, ValueError):  # no sweep, or half a line
        return False


def kill_in(stage: str, after: int, folder: Path, options: list[str]) -> list[Process]:
    """Start or resume the sweep, and kill its driver, and nothing else, as soon as it is in the stage.

    Returns the processes that it had, which end by themselves: Ray's look for its head for a minute.
    """
    for leftover in (folder / "runs" / "artifacts").glob(".test-*"):
        leftover.rename(leftover.with_name(f"{leftover.name[1:]}-left"))
    with begun(folder, *options) as driver:
        driver.wait_until(lambda: is_so(lambda: is_in(stage, after, folder, driver.process.pid)), pause=0.002)
        family = family_of(driver.process.pid)
        driver.process.send_signal(signal.SIGKILL)
        driver.process.wait()
        return family


def ended(results: TaskResults) -> dict[str, object]:
    return {trial.trial: trial for trial in results.trials.values() if trial.status != "running"}


def survives(folder: Path, stages: tuple[str, ...], after: int) -> None:
    """A sweep that is killed once in each of these stages comes to its end, and nothing that had ended has changed."""
    options = ["--space", str(space_of(folder))]
    kept: dict[str, object] = {}
    known: dict[str, tuple[object, ...]] = {}
    left: list[Process] = []
    for stage in stages:
        left += kill_in(stage, after, folder, options)
        options = ["--resume", "--storage", str(folder / "runs")]
        kept, known = kept | ended(results_of(folder)), known | learned(study_of(folder))
    begun_trials = set(results_of(folder).trials)
    done = stkd("sweep", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    results = results_of(folder)
    assert {trial.status for trial in results.trials.values()} == {"finished"}
    assert {trial.epochs for trial in results.trials.values()} == {EPOCHS}
    assert [len(results.of_phase(phase)) for phase in PHASES.values()] == [2, 3, 8]
    assert begun_trials <= set(results.trials)
    assert {trial: results.trials[trial] for trial in kept} == kept
    assert {trial: told for trial, told in learned(study_of(folder)).items() if trial in known} == known
    assert_little_was_lost(folder)
    assert_one_run_each(local_runs(folder), results)
    wait_until_gone(left)


@pytest.mark.cluster
@pytest.mark.parametrize("after", range(ROUNDS))
def test_a_driver_may_be_killed_in_every_stage(after: int, tmp_path: Path) -> None:
    survives(tmp_path, ALL, after)


@pytest.mark.cluster
def test_a_driver_may_be_killed_in_a_stage_and_in_a_trial(tmp_path: Path) -> None:
    survives(tmp_path, ("teacher", "trials"), 1)
