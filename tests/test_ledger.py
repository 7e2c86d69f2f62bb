"""Where the time goes: stopwatches that lose none of it, and an account of the devices that adds up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_data

from stkd.orchestrator.account import Account
from stkd.orchestrator.ledger import IDLE, STARTING, TESTING, DevicePlan, Ledger
from stkd.orchestrator.results import ResultsFile, StageResult, TaskResults, TrialResult
from stkd.orchestrator.time_lines import time_lines
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space
from stkd.trainers.stopwatch import Phase, Stopwatch, as_metrics, from_metrics

PHASES: list[Phase] = ["start", "data", "teacher", "forward", "backward", "step", "evaluation", "checkpoint", "waiting"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def quickstart(**changes: Any) -> Space:
    return read_space(Path("quickstart")).model_copy(update=changes)


@given(st.lists(st.tuples(st.sampled_from(PHASES), st.floats(0, 1000)), max_size=30))
def test_phases_add_up_to_all_the_time(passed: list[tuple[Phase, float]]) -> None:
    clock = Clock()
    watch = Stopwatch(clock, lambda start, end: end - start, "waiting")
    for phase, seconds in passed:
        watch.enter(phase)
        clock.now += seconds
    read = watch.read()
    assert sum(read.values()) == pytest.approx(clock.now - 100)
    for phase in PHASES:
        assert read.get(phase, 0) == pytest.approx(sum(seconds for found, seconds in passed if found == phase))


def test_a_watch_goes_on_in_its_phase_after_a_reading() -> None:
    clock = Clock()
    watch = Stopwatch(clock, lambda start, end: end - start, "start")
    clock.now += 2
    assert watch.read() == {"start": 2}
    clock.now += 3
    assert watch.read() == {"start": 3}
    assert from_metrics({"loss": 1.0, **as_metrics({"step": 3})}) == {"step": 3}


def a_task(file: ResultsFile) -> tuple[TaskResults, float]:
    """Two devices: a stage on both, two trials side by side, of which one fails once and one is stopped, a test."""
    clock = Clock()
    ledger = Ledger(file, lambda: DevicePlan("core", 2.0, 2.0, 1.0), clock)
    first = TrialResult("a", {}, "finished", epochs=2, phases={"step": 9.0}, lost=3.0, saved=5.0)
    second = TrialResult("b", {}, "stopped", epochs=1, phases={"step": 4.0})
    ledger.task_started(tiny_data(), resumed=False)
    events: list[tuple[float, Callable[[], None]]] = [
        (1.0, lambda: ledger.stage_started("teacher")),  # idle before it
        (10.0, lambda: ledger.stage_finished(StageResult("teacher", "t", 10.0, taken_over=False))),
        (0.0, lambda: ledger.phase_started("search", 2)),
        (6.0, lambda: ledger.trial_started(first)),
        (1.0, lambda: ledger.trial_started(second)),
        (4.0, lambda: ledger.trial_retried(first)),
        (2.0, lambda: ledger.trial_started(first)),
        (0.0, lambda: ledger.trial_ended(second)),
        (5.0, lambda: ledger.trial_ended(first)),
        (0.0, ledger.testing_started),
        (3.0, lambda: ledger.task_ended(finished=True)),
    ]
    for seconds, event in events:
        clock.now += seconds
        event()
    for result in (first, second, StageResult("scores", "s", 0.1, taken_over=True, saved=7.0)):
        file.append(result)
    return file.read("tiny"), sum(seconds for seconds, _ in events)


def test_an_account_adds_up_to_the_wall_clock_times_the_devices(tmp_path: Path) -> None:
    results, seconds = a_task(ResultsFile(tmp_path / "results.jsonl"))
    account = Account.of(quickstart(), results)
    assert account is not None
    assert (account.seconds, account.held) == (seconds, 2 * seconds)
    assert account.trials + sum(account.stages.values()) == pytest.approx(account.held)
    # idle: both devices before the teacher, and one while only one trial runs
    assert account.stages == {"teacher": 20, STARTING: 12, IDLE: 2 * 1 + 1 + 2 + 5, TESTING: 6}
    assert account.trials == (1 + 4 + 5) + (4 + 2)


def test_an_account_knows_what_was_lost_and_saved(tmp_path: Path) -> None:
    results, _ = a_task(ResultsFile(tmp_path / "results.jsonl"))
    space = quickstart()
    account = Account.of(space, results)
    assert account is not None
    assert account.lost == 3
    assert account.stopped_early == 6
    assert account.saved_by_stopping == 4.0 * (space.training.epochs - 1)
    assert account.saved_by_artifacts == 5 + 2 * 7
    assert account.phases == {"step": 13}
    lines = time_lines(account)
    start = "time      0.0178 core-hours on 2 cores: teacher 31 %, trials (9 % in those stopped early) 25 %"
    assert lines[0].startswith(start)
    assert lines[1] == "trials    step 100 %"


def test_a_failed_trial_is_lost_whole(tmp_path: Path) -> None:
    results, _ = a_task(ResultsFile(tmp_path / "results.jsonl"))
    results.trials["a"] = TrialResult("a", {}, "failed")
    account = Account.of(quickstart(), results)
    assert account is not None
    assert account.lost == 10


def test_a_resume_is_a_session_of_its_own(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "results.jsonl")
    (_, first), (results, second) = a_task(file), a_task(file)
    account = Account.of(quickstart(), results)
    assert account is not None
    assert len(results.sessions) == 2
    assert account.seconds == first + second


def test_devices_are_gpus_where_trials_ask_for_them() -> None:
    resources = quickstart().resources
    on_gpus = resources.model_copy(update={"gpus_per_rank": 0.5, "ranks": 2})
    assert DevicePlan.of(quickstart(resources=on_gpus), 3, 4) == DevicePlan("GPU", 3.0, 1.0, 1.0)
    assert DevicePlan.of(quickstart(resources=resources), 2, 2) == DevicePlan("core", 2.0, 2.0, 1.0)


def test_without_a_session_there_is_no_account() -> None:
    assert Account.of(quickstart(), TaskResults("tiny")) is None
