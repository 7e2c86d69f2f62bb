"""`stkd sweep --dry-run`: what it says is what a sweep then does, and nothing is started or written."""

from pathlib import Path

import numpy as np
import pytest
import ray
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sweeping import Swept, stkd, write_space

from stkd.cluster.capacity import Capacity, Machine
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.cli import main
from stkd.orchestrator.dry_run import estimate
from stkd.orchestrator.forecast import Forecast, Span, _quantile, search_epochs
from stkd.orchestrator.hosting import device_plan
from stkd.orchestrator.pace import earlier, probed
from stkd.orchestrator.time_left import rungs
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space
from stkd.trainers.sources import load_task

slow = pytest.mark.slow
STAGES = ["data", "teacher", "logits", "trial_student", "scores"]
TWO_CORES = Capacity.of([Machine(2)])


def quickstart(*overrides: str) -> Space:
    return read_space(Path("quickstart"), overrides)


def forecast(space: Space, store: Path, concurrent: int = 1) -> Forecast:
    return Forecast.of(space, load_task(space.tasks[0], space.data), ArtifactStore(store), concurrent)


def test_a_new_sweep_computes_everything(tmp_path: Path) -> None:
    found = forecast(quickstart("confirm={top: 2, seeds: 3}"), tmp_path)
    assert [stage.name for stage in found.stages] == STAGES
    assert not [stage for stage in found.stages if stage.taken_over]
    assert (found.examples, found.search, found.known, found.trained) == (2000, 8, None, 0)
    assert (found.controls, found.confirm) == (6, (2 + 3) * 3)  # as the quickstart's screen in README has them
    assert list(tmp_path.iterdir()) == []


def test_several_kinds_of_student_have_stages_of_their_own(tmp_path: Path) -> None:
    found = forecast(quickstart("search={student.layers: {randint: [1, 2]}}"), tmp_path)
    own = ["trial_student-layers=1", "scores-layers=1", "trial_student-layers=2", "scores-layers=2"]
    assert [stage.name for stage in found.stages] == [*STAGES[:3], *own]


@pytest.mark.parametrize(
    ("epochs", "grace", "factor", "expected"), [(2, 1, 4, [1]), (9, 1, 3, [1, 3]), (10, 2, 2, [2, 4, 8]), (1, 1, 2, [])]
)
def test_rungs_are_those_of_tune(epochs: int, grace: int, factor: int, expected: list[int]) -> None:
    asha = f"trials.scheduler={{asha: {{grace_period: {grace}, reduction_factor: {factor}}}}}"
    assert rungs(quickstart(f"training.epochs={epochs}", asha)) == expected


def test_a_search_without_a_scheduler_trains_every_epoch() -> None:
    assert search_epochs(quickstart("trials.scheduler=null"), 8, 2) == Span.sure(16.0)


def test_a_long_search_comes_near_successive_halving() -> None:
    asha = "trials.scheduler={asha: {grace_period: 1, reduction_factor: 4}}"
    found = search_epochs(quickstart("training.epochs=16", asha), 400, 4)
    halved = 400 * (1 + 3 / 4 + 12 / 16)  # all train one epoch, a quarter four, a sixteenth sixteen
    assert 0.85 * halved < found.low < found.middle < found.high < 1.4 * halved
    assert 0.95 * halved < found.middle < 1.2 * halved


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(numbers: list[float], share: float) -> None:
    assert _quantile(sorted(numbers), share) == pytest.approx(np.quantile(numbers, share))


def test_a_dry_run_starts_and_writes_nothing(tmp_path: Path) -> None:
    storage = tmp_path / "new" / "runs"
    result = CliRunner().invoke(main, ["sweep", "--space", "quickstart", "--storage", str(storage), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("to be computed") == len(STAGES)
    assert "weak ones stop at 1 (one of 4 goes on)" in result.stdout
    assert "not known" in result.stdout
    assert not storage.parent.exists()
    assert not ray.is_initialized()


def test_a_dry_run_refuses_what_a_sweep_would(tmp_path: Path) -> None:
    command = ["sweep", "--space", "quickstart", "--storage", str(tmp_path), "--dry-run"]
    assert CliRunner().invoke(main, [*command, "--set", "resources.gpus_per_rank=64"]).exit_code == 2
    assert CliRunner().invoke(main, ["sweep", "--space", "quickstart", "--probe"]).exit_code == 2


@slow
def test_what_was_run_is_taken_over_and_what_takes_as_long_is_known(swept: Swept) -> None:
    before = sorted(swept.storage.root.rglob("*"))
    done = stkd("sweep", "--space", swept.space, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("taken over, which saves") == len(STAGES)
    assert "8 trials (grid), 4 of them taken over" in done.stdout
    assert "earlier trials of remarks" in done.stdout
    assert sorted(swept.storage.root.rglob("*")) == before


@slow
def test_an_estimate_by_earlier_trials_holds_for_the_sweep_that_they_are_of(swept: Swept, tmp_path: Path) -> None:
    space = read_space(swept.space)
    data, results = load_task("remarks", space.data), swept.results
    pace = earlier(space, data, swept.storage.artifacts / results.stages["data"].artifact, swept.storage)
    assert pace is not None
    concurrent = 1
    found = estimate(space, forecast(space, tmp_path), pace, device_plan(space, TWO_CORES), concurrent)
    held = sum(session.seconds * session.devices for session in results.sessions.values())
    assert 0.4 * held < found.device_seconds.middle < 2.5 * held
    assert found.device_seconds.low < found.device_seconds.middle < found.device_seconds.high


@slow
def test_a_probe_trains_a_few_steps(tmp_path: Path) -> None:
    space = read_space(write_space(tmp_path))
    pace = probed(space, load_task("remarks", space.data), cores=1)
    assert set(STAGES) <= set(pace.stages)
    assert 0 < pace.epoch.low < pace.epoch.middle < pace.epoch.high < 60
    assert pace.student_megabytes is not None
    assert pace.teacher_megabytes is not None
    assert 0 < pace.student_megabytes < pace.teacher_megabytes
