"""Studies to test, and trials that run in them."""

from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from study_driver import ENDLESS, effective, score

from stkd.orchestrator.study import NAME, Settings, Study
from stkd.search_spaces.distributions import Distribution


def new_study(folder: Path, search: Mapping[str, Distribution] = ENDLESS, seed: int = 0) -> Study:
    return Study(folder / "study.jsonl", search, seed, effective)


def stored(study: Study) -> list[FrozenTrial]:
    """The trials as another program reads them from the file."""
    storage = JournalStorage(JournalFileBackend(str(study.path)))
    trials: list[FrozenTrial] = optuna.load_study(study_name=NAME, storage=storage).trials
    return trials


def asked(study: Study, trial: str) -> Settings:
    settings = study.ask(trial)
    assert settings is not None
    return settings


def run(study: Study, trials: range) -> list[Settings]:
    """Run trials one after the other: every third is stopped early."""
    drawn = []
    for number in trials:
        drawn.append(asked(study, f"t{number}"))
        study.report(f"t{number}", 1, score(drawn[-1]) - 0.1)
        if number % 3 == 2:
            study.prune(f"t{number}")
        else:
            study.complete(f"t{number}", score(drawn[-1]))
    return drawn
