"""What is trained after the search."""

from pathlib import Path
from typing import Any

import pytest
from sweeping import write_space

from stkd.orchestrator.phases import Planned, confirmations, controls, role_of, values_of
from stkd.orchestrator.results import Phase, Role, TaskResults, TrialResult
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space

SEARCH = {
    "interpolation": {"uniform": [0.0, 1.0]},
    "distillation.sparsity": {"quniform": [0.0, 0.9, 0.1]},
    "temperature": {"loguniform": [1.0, 8.0]},
    "training.learning_rate": {"choice": [1.0e-3, 1.0e-4]},
}


@pytest.fixture
def space(tmp_path: Path) -> Space:
    trials = {"count": 4, "searcher": "random"}
    return read_space(write_space(tmp_path, search=SEARCH, trials=trials, confirm={"top": 2, "seeds": 3}))


def results(*rows: tuple[float, float], phase: Phase = "search", role: Role = "candidate") -> TaskResults:
    """Trials of the given scores and sparsities."""
    found = TaskResults("tiny")
    for number, (score, sparsity) in enumerate(rows):
        values: dict[str, Any] = {"interpolation": 0.3, "distillation.sparsity": sparsity, "temperature": 3.0}
        values["training.learning_rate"] = 1e-3
        name = f"{phase}{number}"
        found.trials[name] = TrialResult(
            name, values, "finished", phase=phase, role=role, metrics={"score": score}, student=f"student-{name}"
        )
    return found


def test_controls_share_the_best_trials_training_settings(space: Space) -> None:
    planned = controls(space, results((0.7, 0.4), (0.8, 0.0)))
    assert [trial.role for trial in planned] == ["no teacher", *["dense teacher"] * 4, "random teacher"]
    assert all(trial.values["training.learning_rate"] == 1e-3 for trial in planned)
    assert planned[0].values["distillation.hard_weight"] == 1.0
    assert [trial.values["distillation.temperature"] for trial in planned[1:5]] == [1.0, 2.0, 3.0, 8.0]
    assert all(trial.values["distillation.sparsity"] == 0.0 for trial in planned[:5])
    random = planned[5].values
    assert (random["distillation.sparsity"], random["distillation.scorer"]) == (0.4, "random")
    assert not any("interpolation" in key for trial in planned for key in trial.values)


def test_every_control_and_confirmation_is_a_valid_setting(space: Space) -> None:
    found = results((0.7, 0.4), (0.8, 0.6))
    planned = controls(space, found)
    for number, trial in enumerate(planned):
        name = f"control{number}"
        found.trials[name] = TrialResult(
            name, trial.values, "finished", phase="control", role=trial.role, metrics={"score": 0.5}, student=name
        )
    planned += confirmations(space, found)
    assert len(planned) == 6 + (2 + 3) * 3
    for trial in planned:
        settings = space.with_values(values_of(trial.as_config(), space))
        assert settings.distillation.sparsity == trial.values["distillation.sparsity"]


def test_without_a_sparse_trial_there_is_no_random_control_and_without_a_student_none(space: Space) -> None:
    assert "random teacher" not in [trial.role for trial in controls(space, results((0.8, 0.0)))]
    assert controls(space, TaskResults("tiny")) == []


def test_finalists_and_the_best_control_of_each_role_meet_the_same_fresh_seeds(space: Space) -> None:
    found = results((0.7, 0.4), (0.8, 0.6), (0.9, 0.2))
    found.trials |= results((0.5, 0.0), (0.6, 0.0), phase="control", role="dense teacher").trials
    planned = confirmations(space, found)
    assert [trial.role for trial in planned] == ["candidate"] * 6 + ["dense teacher"] * 3
    assert [trial.values["training.seed"] for trial in planned] == [777, 778, 779] * 3
    assert [trial.values["distillation.sparsity"] for trial in planned[::3]] == [0.2, 0.6, 0.0]


def test_finalists_are_different_students(space: Space) -> None:
    found = results((0.9, 0.0), (0.9, 0.0), (0.8, 0.6))
    twin = found.trials["search1"]
    found.trials["search1"] = TrialResult(**{**vars(twin), "student": "student-search0"})
    planned = confirmations(space, found)
    assert [trial.values["distillation.sparsity"] for trial in planned[::3]] == [0.0, 0.6]


def test_nothing_is_confirmed_unless_asked_for(space: Space) -> None:
    assert confirmations(space.model_copy(update={"confirm": None}), results((0.9, 0.2))) == []


def test_values_and_role_of_drawn_and_given_trials(space: Space) -> None:
    drawn = {"distillation.sparsity": 0.30000000000000004}
    assert values_of(drawn, space) == {"distillation.sparsity": 0.3}
    assert role_of(drawn) == "candidate"
    given = Planned("control", "no teacher", {"training.seed": 3}).as_config()
    assert values_of(given, space) == {"training.seed": 3}
    assert role_of(given) == "no teacher"
