"""What samplers are shown of a study, and what they make of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState
from studies import asked, new_study, run, stored
from study_driver import ENDLESS, score

from stkd.orchestrator import sampling
from stkd.orchestrator.sampling import STARTUP, Guided, View, instructive
from stkd.orchestrator.study import Settings, distribution_of
from stkd.search_spaces.distributions import Value


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "WINDOW", 20)
    monkeypatch.setattr(sampling, "BEST", 4)


def test_known_keys_change_nothing_of_what_optuna_draws() -> None:
    distributions = {key: distribution_of(searched) for key, searched in ENDLESS.items()}

    def drawn(sampler: Callable[[int], TPESampler]) -> list[Settings]:
        study = optuna.create_study(direction="maximize")
        found: list[Settings] = []
        for number in range(30):
            study.sampler = sampler(number)
            trial = study.ask(distributions)
            found.append(dict(trial.params))
            study.tell(trial, score(found[-1]))
        return found

    plain = partial(TPESampler, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)
    assert drawn(lambda seed: Guided(distributions, seed)) == drawn(lambda seed: plain(seed=seed))


@pytest.mark.usefixtures("small_window")
def test_samplers_are_shown_the_best_and_the_course(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    running = asked(study, "running")
    drawn = run(study, range(100))
    shown = instructive(stored(study))
    assert [trial.number for trial in shown] == sorted({trial.number for trial in shown})
    assert len(shown) == 1 + sampling.WINDOW
    assert shown[0].params == running
    complete = [trial.value for trial in stored(study) if trial.value is not None]
    values = [trial.value for trial in shown if trial.value is not None]
    assert sorted(values)[-sampling.BEST :] == sorted(complete)[-sampling.BEST :]
    assert any(trial.state is TrialState.PRUNED for trial in shown)
    numbers = np.array([trial.number for trial in shown])
    assert max(np.diff(numbers)) < 15  # of 100: no part of the course is left out
    assert len(drawn) == 100


@pytest.mark.usefixtures("small_window")
def test_samplers_are_never_shown_much_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    ask = View.ask

    def count(view: View, sampler: BaseSampler) -> dict[str, Value]:
        shown.append(sum(trial.state in sampling.SCORED for trial in view._study.trials))
        return ask(view, sampler)

    monkeypatch.setattr(View, "ask", count)
    run(new_study(tmp_path), range(100))
    assert len(shown) >= 100
    assert sampling.WINDOW < max(shown) < 2 * sampling.WINDOW


@pytest.mark.usefixtures("small_window")
def test_a_long_study_resumed_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = run(new_study(tmp_path / "whole"), range(80))
    run(new_study(tmp_path / "parts"), range(67))
    assert run(new_study(tmp_path / "parts"), range(67, 80)) == whole[67:]
