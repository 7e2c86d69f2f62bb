"""Whether a search of very many trials loses by what its sampler is not shown: the same search, shown all trials.

    python benchmarks/long_search.py                          # 1,200 trials, three seeds: minutes
    python benchmarks/long_search.py --trials 60 --seeds 1    # shows that it runs

Nothing is trained: a made-up score, the best at lambda 0.3 and sparsity 0.6, told with noise. Printed are the
means of the true scores, part by part of the search.
"""

import argparse
import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
from measuring import print_table

from stkd.orchestrator import sampling
from stkd.orchestrator.study import Settings, Study
from stkd.search_spaces.reading import read_space

NOISE = 0.05
PARTS = 6


def true_score(settings: Settings) -> float:
    """What a student of these settings is worth."""
    interpolation, sparsity = (float(settings[key] or 0.0) for key in ("interpolation", "sparsity"))
    return 0.9 - abs(interpolation - 0.3) * sparsity - abs(sparsity - 0.6)


def effective(settings: Settings) -> str:
    """Lambda means nothing where nothing is removed."""
    return json.dumps({**settings, "interpolation": settings["interpolation"] if settings["sparsity"] else None})


def searched(trials: int, seed: int, window: int) -> list[float]:
    """The true score of each trial, one after the other, where the sampler is shown `window` of them and newer ones."""
    sampling.WINDOW = window
    noise, scores = Random(seed), []  # noqa: S311 (no secret depends on it)
    with TemporaryDirectory() as folder:
        study = Study(Path(folder) / "study.jsonl", read_space(Path("quickstart"), ()).search, seed, effective)
        for number in range(trials):
            settings = study.ask(str(number))
            assert settings is not None, "an endless search has always something to try"
            scores.append(true_score(settings))
            study.complete(str(number), scores[-1] + noise.gauss(0.0, NOISE))
    return scores


def main() -> None:
    """Read the command line, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    rows = []
    for name, window in (("some of the trials", sampling.WINDOW), ("all trials", asked.trials)):
        for seed in range(asked.seeds):
            parts = np.array_split(searched(asked.trials, seed, window), PARTS)
            rows.append([name, str(seed), *(f"{part.mean():.3f}" for part in parts)])
    print_table(("shown", "seed", *(f"part {part + 1} of {PARTS}" for part in range(PARTS))), rows)


if __name__ == "__main__":
    main()
