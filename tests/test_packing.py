"""How many trials run side by side: what is tried, what is chosen, and a sweep that goes by it."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sweeping import stkd, write_space

from stkd.cluster.capacity import Request
from stkd.orchestrator import packing
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.packing import Packing, best_packing, packings
from stkd.orchestrator.results import read_results
from stkd.orchestrator.stages import StageError
from stkd.search_spaces.sections import ResourcesConfig
from stkd.trainers.specs import JobSpec


def test_a_gpu_is_shared_by_up_to_eight_trials_and_its_cores_among_them() -> None:
    assert packings(16, 2) == [Packing(1, 8, 1.0), Packing(2, 4, 0.5), Packing(4, 2, 0.25), Packing(8, 1, 0.125)]
    assert packings(3, 1) == [Packing(1, 3, 1.0), Packing(2, 1, 0.5)]


def test_without_a_gpu_the_cores_are_shared() -> None:
    assert packings(6, 0) == [Packing(1, 6, 0.0), Packing(2, 3, 0.0), Packing(4, 1, 0.0)]
    assert packings(1, 0) == [Packing(1, 1, 0.0)]


@pytest.mark.parametrize(
    ("speeds", "jobs"), [([100.0, 180.0, 150.0], 2), ([100.0, 102.0], 1), ([100.0], 1), ([50.0, 90.0, 160.0], 4)]
)
def test_more_side_by_side_must_be_worth_it(speeds: list[float], jobs: int) -> None:
    tried = dict(zip(packings(4, 0), speeds, strict=False))
    assert best_packing(tried).jobs == jobs


def no_gang(request: Request) -> AbstractContextManager[Any]:
    raise AssertionError("speeds are given")


@pytest.mark.parametrize(
    ("speeds", "tried"), [([10.0, 20.0, None], 2), ([10.0, 9.0, 30.0], 2), ([10.0, 20.0, 30.0], 3)]
)
def test_trying_ends_where_memory_does_or_where_it_no_longer_pays(
    monkeypatch: pytest.MonkeyPatch, speeds: list[float | None], tried: int
) -> None:
    coming = iter(speeds)
    monkeypatch.setattr(packing, "speed", lambda *_: next(coming))
    spec = JobSpec.__new__(JobSpec)
    assert len(packing._speeds(packings(4, 0), spec, no_gang)) == tried


def test_where_not_even_one_fits_the_stage_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "speed", lambda *_: None)
    with pytest.raises(StageError, match="not even one trial fits"):
        packing._speeds(packings(4, 0), JobSpec.__new__(JobSpec), no_gang)


def test_a_packing_is_what_a_trial_occupies() -> None:
    resources = Packing(4, 2, 0.25).applied(ResourcesConfig(gpus_per_rank=1, pack=True))
    assert (resources.cpus_per_rank, resources.gpus_per_rank) == (2, 0.25)


def test_ranks_have_whole_devices() -> None:
    with pytest.raises(ValueError, match="several ranks"):
        ResourcesConfig(ranks=2, pack=True)


@pytest.mark.slow
def test_a_sweep_runs_as_many_trials_at_a_time_as_it_found_best(tmp_path: Path) -> None:
    trials = {"count": 2, "searcher": "random", "scheduler": None}
    space = write_space(tmp_path, trials=trials, controls=False, resources={"cpus_per_rank": 1, "pack": True})
    done = stkd("sweep", "--space", space)
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = Storage(tmp_path / "runs").find_sweep()
    results = read_results(sweep)["remarks"]
    found = results.stages["packing"].metrics
    assert f"packing: {found['jobs']:.0f} trials side by side are fastest" in done.stdout
    assert found[f"examples_per_second_{found['jobs']:.0f}"] > 0
    (session,) = results.sessions.values()
    assert session.trial_devices == found["cpus"]
    assert len(results.of_phase("search")) == 2
    artifact = Storage(tmp_path / "runs").artifacts / results.stages["packing"].artifact / "artifact.json"
    assert json.loads(artifact.read_text())["inputs"]["gpus"] == 0
