"""What is searched next, and how what came of it is kept."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState
from ray.tune.search import Searcher
from studies import asked, new_study, run, stored
from study_driver import ENDLESS, TRIALS, effective, score
from sweeping import environment
from tiny import REGRESSION, TASK

from stkd.orchestrator.effective import EffectiveSettings
from stkd.orchestrator.history import SCORE, WORST_SCORE
from stkd.orchestrator.layout import Storage, TaskFolder
from stkd.orchestrator.searching import StudySearcher
from stkd.orchestrator.stages import Shared, StudentStages
from stkd.orchestrator.study import DUPLICATE_OF, TRIAL, Study
from stkd.orchestrator.trial import TrialPlan
from stkd.search_spaces.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform
from stkd.search_spaces.reading import read_space
from stkd.trainers.ranking import UnitScores
from stkd.trainers.tasks import Task

FINITE: Mapping[str, Distribution] = {
    "interpolation": Choice(choice=(0.0, 1.0)),
    "sparsity": Choice(choice=(0.0, 0.5)),
}
DENSE: Mapping[str, Distribution] = {"interpolation": FINITE["interpolation"], "sparsity": Choice(choice=(0.0,))}


# States


def test_each_trial_is_told_as_what_it_was(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    for trial in ("finished", "stopped", "failed", "running"):
        asked(study, trial)
        study.report(trial, 1, 0.5)
        study.report(trial, 2, 0.7)
    study.complete("finished", 0.7)
    study.prune("stopped")
    study.fail("failed")
    trials = {trial.user_attrs[TRIAL]: trial for trial in stored(study)}
    states = {name: trial.state.name for name, trial in trials.items()}
    assert states == {"finished": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL", "running": "RUNNING"}
    assert {name: trial.value for name, trial in trials.items()} == {
        "finished": 0.7,
        "stopped": 0.7,
        "failed": None,
        "running": None,
    }
    assert all(trial.intermediate_values == {1: 0.5, 2: 0.7} for trial in trials.values())
    assert study.running == 1


def test_a_stopped_trial_is_not_the_best_of_the_complete(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    asked(study, "finished"), asked(study, "stopped")
    study.report("stopped", 1, 0.9)
    study.prune("stopped")
    study.complete("finished", 0.6)
    complete = [trial for trial in stored(study) if trial.state is TrialState.COMPLETE]
    assert [trial.user_attrs[TRIAL] for trial in complete] == ["finished"]


def test_what_ended_is_left_as_it_is(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    asked(study, "a")
    study.complete("a", 0.7)
    study.report("a", 2, 0.1)
    study.prune("a")
    study.fail("nobody")
    assert [(trial.state, trial.value) for trial in stored(study)] == [(TrialState.COMPLETE, 0.7)]


def result(epoch: int, best: float, finished: bool = False, failure: str = "") -> dict[str, object]:
    return {SCORE: best, "training_iteration": epoch, "finished": finished, "failure": failure}


def test_the_searcher_tells_tunes_results_apart(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    searcher = StudySearcher(study, concurrent=lambda: 4)
    for trial in ("finished", "stopped", "failed", "raised"):
        assert isinstance(searcher.suggest(trial), dict)
        searcher.on_trial_result(trial, result(1, 0.5))
    assert searcher.suggest("one too many") is None
    searcher.on_trial_complete("finished", result(2, 0.6, finished=True))
    searcher.on_trial_complete("stopped", result(2, 0.55))
    searcher.on_trial_complete("failed", result(2, WORST_SCORE, failure="the loss is nan"))
    searcher.on_trial_complete("raised", error=True)
    trials = stored(study)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert [trial.value for trial in trials] == [0.6, 0.55, None, None]
    reports = [trial.intermediate_values for trial in trials]
    assert reports == [{1: 0.5, 2: 0.6}, {1: 0.5, 2: 0.55}, {1: 0.5}, {1: 0.5}]
    assert isinstance(searcher.suggest("now there is room"), dict)


# Settings


def test_settings_are_the_spaces_own_values(tmp_path: Path) -> None:
    search: dict[str, Distribution] = {
        "interpolation": Uniform(uniform=(0.2, 0.4)),
        "sparsity": QUniform(quniform=(0.0, 0.9, 0.1)),
        "temperature": LogUniform(loguniform=(1.0, 8.0)),
        "training.batch_size": QUniform(quniform=(8, 32, 8)),
        "training.epochs": RandInt(randint=(1, 3)),
        "training.patience": Choice(choice=(None, 2)),
    }
    study = Study(tmp_path / "study.jsonl", search, 0, repr)
    drawn = run(study, range(40))
    for settings in drawn:
        assert list(settings) == list(search)
        assert all(searched.clean(settings[key]) == settings[key] for key, searched in search.items())
    for key in ("training.batch_size", "training.epochs", "training.patience"):
        grid = search[key].grid()
        assert grid is not None
        assert {settings[key] for settings in drawn} == set(grid)


def test_the_seed_decides(tmp_path: Path) -> None:
    first, again, other = (
        run(new_study(tmp_path / name, seed=seed), range(20)) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert all(left != right for left, right in zip(first, other, strict=True))


def test_the_search_learns(tmp_path: Path) -> None:
    drawn = run(new_study(tmp_path), range(60))
    early, late = (sum(map(score, part)) / len(part) for part in (drawn[:10], drawn[-20:]))
    assert late > early + 0.1


# Duplicates


def test_a_duplicate_is_answered_from_what_is_known(tmp_path: Path) -> None:
    study = new_study(tmp_path, FINITE)
    drawn = run(study, range(3))
    assert len({effective(settings) for settings in drawn}) == 3
    assert study.ask("another") is None
    trials = stored(study)
    repeated = [trial for trial in trials if DUPLICATE_OF in trial.user_attrs]
    assert repeated
    for trial in repeated:
        twin = trials[trial.user_attrs[DUPLICATE_OF]]
        assert effective(trial.params) == effective(twin.params)
        assert (trial.state, trial.value) == (twin.state, twin.value)
        assert trial.intermediate_values == twin.intermediate_values
        assert TRIAL not in trial.user_attrs


def test_settings_that_failed_are_not_tried_again(tmp_path: Path) -> None:
    study = new_study(tmp_path, DENSE)
    asked(study, "a")
    study.fail("a")
    assert study.ask("b") is None
    assert study.exhausted
    assert {trial.state for trial in stored(study)} == {TrialState.FAIL}


def test_an_endless_search_of_equals_is_let_through(tmp_path: Path) -> None:
    search: dict[str, Distribution] = {"interpolation": ENDLESS["interpolation"], "sparsity": Choice(choice=(0.0,))}
    study = new_study(tmp_path, search)
    drawn = run(study, range(3))
    assert len({settings["interpolation"] for settings in drawn}) == 3
    assert not study.exhausted


def test_what_is_left_is_found_and_then_the_search_ends(tmp_path: Path) -> None:
    search: dict[str, Distribution] = {
        "interpolation": QUniform(quniform=(0.0, 1.0, 0.25)),
        "sparsity": QUniform(quniform=(0.0, 0.9, 0.3)),
    }
    study = new_study(tmp_path, search)
    drawn = run(study, range(1 + 3 * 5))
    assert len({effective(settings) for settings in drawn}) == 16
    assert not study.exhausted
    searcher = StudySearcher(study, concurrent=lambda: 2)
    assert searcher.suggest("one more") == Searcher.FINISHED
    assert study.exhausted
    assert new_study(tmp_path, search).exhausted


def test_the_search_does_not_end_while_the_last_trial_runs(tmp_path: Path) -> None:
    study = new_study(tmp_path, DENSE)
    searcher = StudySearcher(study, concurrent=lambda: 2)
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None
    assert [trial.state for trial in stored(study)] == [TrialState.RUNNING]
    searcher.on_trial_complete("a", result(1, 0.5, finished=True))
    assert searcher.suggest("b") == Searcher.FINISHED


# Resuming


def test_a_resumed_study_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = run(new_study(tmp_path / "whole"), range(30))
    run(new_study(tmp_path / "parts"), range(17))
    study = new_study(tmp_path / "parts")
    assert run(study, range(17, 30)) == whole[17:]
    assert len(stored(study)) >= 30


def test_trials_that_were_lost_are_handed_out_again(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    drawn = {name: asked(study, name) for name in ("lost", "ended")}
    study.report("lost", 1, 0.5)
    study.complete("ended", 0.7)

    study = new_study(tmp_path)
    assert (study.handed_out, study.running) == (1, 0)
    assert asked(study, "again") == drawn["lost"]
    assert asked(study, "new") not in drawn.values()
    for trial in ("again", "new"):
        study.report(trial, 1, 0.5)
        study.complete(trial, 0.6)
    trials = stored(study)
    assert [trial.user_attrs[TRIAL] for trial in trials] == ["again", "ended", "new"]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_a_kill_at_any_moment_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    whole = new_study(tmp_path / "whole", FINITE)
    run(whole, range(3))
    whole.ask("another")
    content = whole.path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(content) if byte == ord("\n")]
    cuts = sorted({0, *ends, *(end - 7 for end in ends)})
    assert len(cuts) >= 20
    for cut in cuts:
        path = tmp_path / str(cut) / "study.jsonl"
        path.parent.mkdir()
        path.write_bytes(content[:cut])
        study = Study(path, FINITE, 0, effective)
        number = 0
        while study.ask(f"after-{number}") is not None:
            study.report(f"after-{number}", 1, 0.5)
            study.complete(f"after-{number}", 0.5)
            number += 1
        trials = stored(study)
        originals = [trial for trial in trials if TRIAL in trial.user_attrs]
        assert len({effective(trial.params) for trial in originals}) == len(originals) == 3
        assert all(trial.state.is_finished() for trial in trials)


DRIVER = Path(__file__).parent / "study_driver.py"


@pytest.mark.slow
def test_tune_searches_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, str(DRIVER), str(tmp_path)]
    study = tmp_path / "study.jsonl"
    driver = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        while driver.poll() is None and not (study.exists() and study.read_text().count('"values":[') >= 4):
            time.sleep(0.02)
        assert driver.poll() is None, "it ended before it could be killed"
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    before = {trial.number: trial for trial in stored(Study(study, ENDLESS, 0, effective))}

    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    trials = [trial for trial in stored(Study(study, ENDLESS, 0, effective)) if TRIAL in trial.user_attrs]
    assert len(trials) == TRIALS
    ended = {number for number, trial in before.items() if trial.state.is_finished()}
    assert len(told) == sum(trial.number not in ended for trial in trials)
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED", "FAIL"}
    by_name = {trial.user_attrs[TRIAL]: trial for trial in trials}
    for name, last in told.items():
        trial = by_name[name]
        expected = "FAIL" if last["failure"] else "COMPLETE" if last["finished"] else "PRUNED"
        assert trial.state.name == expected
        assert trial.value == (None if last["failure"] else last[SCORE])
    for trial in trials:
        if trial.number in ended:
            assert trial == before[trial.number]


# What settings come to


@pytest.fixture
def plan(tmp_path: Path) -> TrialPlan:
    torch.manual_seed(0)
    folder = tmp_path / "scores"
    folder.mkdir()
    scores = UnitScores(*(torch.rand(2, count).numpy() for count in (4, 8) * 3))
    scores.save(folder / "scores.safetensors")
    space = read_space(Path("quickstart"))
    storage = Storage(tmp_path)
    student = StudentStages({}, Path("data"), None, Path("trial_student"), folder)
    shared = Shared(Path("data"), Path("teacher"), {space.student.model_dump_json(): student})
    return TrialPlan(space, TASK, storage, TaskFolder(tmp_path), shared)


def with_task(plan: TrialPlan, task: Task) -> TrialPlan:
    return TrialPlan(**{**vars(plan), "task": task})


def test_settings_that_differ_in_name_only_come_to_the_same(plan: TrialPlan) -> None:
    name = EffectiveSettings(plan)

    def of(interpolation: float, sparsity: float, temperature: float = 2.0) -> str:
        return name({"interpolation": interpolation, "sparsity": sparsity, "temperature": temperature})

    assert of(0.1, 0.0) == of(0.9, 0.0)
    assert of(0.1, 0.5) == of(0.1000001, 0.5)
    assert of(0.0, 0.5) != of(1.0, 0.5)
    assert of(0.1, 0.5) != of(0.1, 0.6)
    assert of(0.1, 0.0, 2.0) != of(0.1, 0.0, 3.0)


def test_a_regression_knows_no_temperature(plan: TrialPlan) -> None:
    settings = {"interpolation": 0.5, "sparsity": 0.5}
    names = {
        task.kind: {
            EffectiveSettings(with_task(plan, task))({**settings, "temperature": value}) for value in (1.0, 2.0)
        }
        for task in (TASK, REGRESSION)
    }
    assert {kind: len(found) for kind, found in names.items()} == {"classification": 2, "regression": 1}
