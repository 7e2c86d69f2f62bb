"""A whole sweep, from the command to its last line: against the same grid by what a good engineer writes in a week."""

import sys
from collections.abc import Iterator
from pathlib import Path

from measuring import Goal, Row, Settings
from places import workplace
from whole_sweep import QUICK, WHOLE, Grid, seconds_of, sweep
from workloads import teacher_name

from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import read_results

ENGINEERED = Path(__file__).parent / "engineered.py"


def rows(settings: Settings) -> Iterator[Row]:
    """One row of seconds, and one of what was found in them."""
    grid = QUICK if settings.quick else WHOLE
    ours, theirs, our_best, their_best = [], [], [], []
    for _ in range(settings.times(1)):
        with workplace() as folder:
            model = teacher_name(settings, folder / "base")
            ours.append(sweep(grid, model, folder))
            our_best.append(_best(Storage(folder / "runs")))
            theirs.append(_engineered(grid, model, folder / "engineered"))
            their_best.append(float((folder / "engineered" / "best").read_text()))
    against = "a good engineer's week: PyTorch loop, Ray Tune, MLflow; scores and logits computed once"
    yield Row("engineered_sweep", grid.text, against, "s", ours, theirs, [Goal("faster", 1)])
    yield Row("engineered_sweep", "accuracy of that sweep's best student", against, "points", our_best, their_best)


def _best(storage: Storage) -> float:
    """The best score of the only sweep, in 0..100."""
    (results,) = read_results(storage.find_sweep()).values()
    return 100 * max(trial.score for trial in results.trials.values())


def _engineered(grid: Grid, model: str, folder: Path) -> float:
    """Seconds of the whole grid."""
    folder.mkdir()
    words = [sys.executable, str(ENGINEERED), str(folder), "--model", model, "--epochs", str(grid.epochs)]
    words += ["--train-examples", str(grid.examples), "--scored-examples", str(grid.scored)]
    for key, values in grid.search.items():
        words += [f"--{key}", *map(str, values)]
    return seconds_of(words, folder)
