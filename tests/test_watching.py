"""What people and machines see of a sweep while it works, from events as they come."""

import inspect
import io
import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.control import strip_control_codes
from tiny import tiny_data

from stkd.orchestrator.display import Display
from stkd.orchestrator.events import Observer, Observers
from stkd.orchestrator.json_lines import JsonLines
from stkd.orchestrator.json_observer import JsonObserver
from stkd.orchestrator.live import View, sparkline
from stkd.orchestrator.progress import Progress
from stkd.orchestrator.results import (
    Evidence,
    FinalScore,
    Phase,
    Session,
    StageResult,
    Status,
    StudentCost,
    TrialResult,
)
from stkd.orchestrator.screen import Alarms, can_draw, console_for_people, people_watching
from stkd.orchestrator.session import quiet_libraries
from stkd.orchestrator.time_left import TimeLeft, rungs
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def space(*changes: str) -> Space:
    return read_space(Path("quickstart"), ("trials.count=50", "training.epochs=9", *changes))


def trial(name: str, epochs: int = 0, score: float = 0.7, status: Status = "running", **fields: object) -> TrialResult:
    values = {"interpolation": 0.416, "sparsity": 0.3, "temperature": 2.63}
    found = TrialResult(name, values, status, epochs=epochs, seconds=10.0 * epochs)
    trained = {"metrics": {"score": score}, "student": f"student-{name}"} if epochs else {}
    return replace(found, **{**trained, **fields})  # type: ignore[arg-type]


def session() -> Session:
    return Session("", "core", 2.0, 2.0, 1.0, 360.0, {"t0": 360.0, "t1": 180.0, "teacher": 180.0})


def mid_sweep(running: int, clock: Clock | None = None) -> Progress:
    """A teacher, one failed and two stopped trials, and so many that run."""
    progress = Progress(space(), {}, clock or Clock())
    progress.task_started(tiny_data(), resumed=False)
    progress.stage_finished(StageResult("teacher", "teacher-1", 61.0, False, {"score": 0.913}))
    progress.phase_started("search", 50)
    for number, (epochs, status) in enumerate([(0, "failed"), (1, "stopped"), (9, "finished")]):
        progress.trial_started(trial(f"old{number}"))
        ended = trial(f"old{number}", epochs, 0.75, reason="the loss is nan at step 37")
        progress.trial_ended(replace(ended, status=status))  # type: ignore[arg-type]
    for number in range(running):
        progress.trial_started(trial(f"t{number}"))
    for number in range(running):
        for epoch in range(1, 1 + number % 9):
            score = 0.6 + 0.01 * epoch + 0.001 * number
            progress.trial_epoch(trial(f"t{number}", epoch, score), {"score": score})
    return progress


def drawn(progress: Progress, width: int = 100, height: int = 40, **options: object) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, **options)  # type: ignore[arg-type]
    console.print(View(progress, session).draw(width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_screen_says_how_far_it_is_and_what_is_best() -> None:
    clock = Clock()
    progress = mid_sweep(2, clock)
    clock.now = 75.0
    text = "\n".join(drawn(progress))
    expected = (
        "3 of 50, 2 running",
        "lambda=0.416 s=0.3 T=2.63    1/9",
        "1:15",
        "61.1",
        "then      6 controls",
        "rungs     epoch 1: 1 of 2 stopped, epoch 4: 0 of 1 stopped",
        "best      75.0  lambda=0.416",
        "against   teacher 91.3",
        "failed    1, the last: lambda=0.416 s=0.3 T=2.63: the loss is nan at step 37",
        "devices   0.2 core-hours on 2 cores: trials 75 %, teacher 25 %",
        "left, until",
    )
    assert [part for part in expected if part not in text] == [], text


@pytest.mark.parametrize("running", [0, 1, 40])
@pytest.mark.parametrize(("width", "height"), [(200, 60), (80, 24), (60, 15), (30, 8), (12, 4)])
def test_the_screen_fits(running: int, width: int, height: int) -> None:
    lines = drawn(mid_sweep(running), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    if running == 40 and height >= 15:
        shown = sum("/9" in line for line in lines)
        assert 1 <= shown < 40
        assert any(f"and {40 - shown} more" in line for line in lines)


def test_a_stage_shows_its_epochs() -> None:
    progress = Progress(space(), {}, Clock())
    progress.task_started(tiny_data(), resumed=False)
    assert "now       starting" in "\n".join(drawn(progress))
    progress.stage_started("teacher")
    for epoch, score in enumerate((0.5, 0.7, 0.9), start=1):
        progress.stage_epoch("teacher", epoch, 3, {"loss": 0.5, "score": score})
    assert "fine-tuning the teacher: epoch 3 of 3, score 90.0, loss 0.500  ▁▄█" in "\n".join(drawn(progress))


def test_curves_are_comparable_from_row_to_row() -> None:
    assert sparkline([0.0, 0.5, 1.0], 0.0, 1.0) == "▁▅█"
    assert sparkline([0.5, 0.5], 0.0, 1.0) == "▅▅"
    assert sparkline([0.5], 0.5, 0.5) == "▅"
    assert sparkline([0.0, 1.0, 1.0], 0.0, 1.0, width=2) == "██"
    assert sparkline([], 0.0, 1.0) == ""


def test_no_color_means_none() -> None:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, _environ={"NO_COLOR": "1"})
    console.print(View(mid_sweep(2), session).draw(80, 24))
    assert isinstance(console.file, io.StringIO)
    codes = [part.split("m")[0] for part in console.file.getvalue().split("\x1b[")[1:]]
    assert codes
    assert set(codes) <= {"0", "1", "2", "1;2"}  # bold and dim


@pytest.mark.parametrize(
    ("tty", "environment", "draws"),
    [(True, {"TERM": "xterm"}, True), (True, {"TERM": "dumb"}, False), (False, {"FORCE_COLOR": "1"}, False)],
)
def test_only_a_terminal_is_drawn_on(tty: bool, environment: Mapping[str, str], draws: bool) -> None:
    class Stream(io.TextIOWrapper):
        def isatty(self) -> bool:
            return tty

    console = Console(file=Stream(io.BytesIO(), encoding="utf-8"), _environ=environment)
    assert can_draw(console) is draws
    assert not can_draw(Console(file=Stream(io.BytesIO(), encoding="ascii"), _environ=environment))


def test_a_log_has_a_line_for_each_thing_that_ends() -> None:
    console = Console(file=io.StringIO(), width=80)
    display = Observers(people_watching(console, space()))
    display.task_started(tiny_data(), resumed=False)
    display.stage_started("teacher")
    display.stage_epoch("teacher", 1, 3, {"loss": 0.5, "score": 0.8})
    display.stage_finished(StageResult("teacher", "teacher-1", 61.0, False, {"score": 0.913}))
    display.stage_finished(StageResult("scores", "scores-1", 0.0, True))
    display.phase_started("search", 2)
    display.trial_started(trial("a"))
    for epoch in (1, 2):
        display.trial_epoch(trial("a", epoch), {"score": 0.7})
    display.interrupted(1, at_once=False)
    display.trial_ended(trial("a", 1, status="stopped"))
    display.trial_ended(trial("b", status="failed", reason="the loss is nan"))
    display.task_ended(finished=True)
    assert isinstance(console.file, io.StringIO)
    lines = [line.partition("] ")[2] for line in console.file.getvalue().splitlines()]
    name = "lambda=0.416 s=0.3 T=2.63"
    assert lines == [
        "tiny begins: 96 training, 32 validation, 32 test examples",
        "fine-tuning the teacher",
        "fine-tuning the teacher: epoch 1 of 3, loss 0.500, score 80.0",
        "teacher: score 91.3, took 1:01",
        "scores: ready, taken over from an earlier sweep",
        "trials: 0 of 2 done, 1 running",
        "stopping: 1 trial finishes its epoch (one takes about 0:10), so that a resume loses nothing; "
        "Ctrl-C again stops at once",
        f"trial 1 of 2 ({name}): score 70.0, stopped early after 1 epoch",
        f"trial 2 of 2 ({name}): failed: the loss is nan",
    ]


def test_a_resume_counts_on() -> None:
    known = {name: trial(name, 9, status="finished") for name in "abc"} | {"d": trial("d", 2)}
    console = Console(file=io.StringIO(), width=200)
    display = Observers(people_watching(console, space(), known))
    display.phase_started("search", 50)
    display.trial_started(known["d"])
    display.trial_ended(trial("d", 9, status="finished"))
    assert isinstance(console.file, io.StringIO)
    assert "trials: 3 of 50 done, 1 running" in console.file.getvalue()
    assert "trial 4 of 50" in console.file.getvalue()


def test_a_quiet_sweep_tells_only_what_goes_wrong() -> None:
    console = Console(file=io.StringIO(), width=80)
    alarms = Alarms(console)
    for _, tell in all_events(alarms):
        tell()
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "rank 0 does not get on",
        "stopping when these epochs are over; Ctrl-C again stops at once",
        "lambda=0.416 s=0.3 T=2.63 failed: the loss is nan",
    ]


def all_events(observer: Observer) -> list[tuple[str, Callable[[], None]]]:
    """Every event that there is."""
    failed = trial("a", status="failed", reason="the loss is nan")
    report = {"score": 0.7, "loss": float("nan")}
    return [
        ("task_started", lambda: observer.task_started(tiny_data(), resumed=True)),
        ("stage_started", lambda: observer.stage_started("teacher")),
        ("waiting", lambda: observer.waiting("the stage waits")),
        ("warned", lambda: observer.warned("rank 0 does not get on")),
        ("stage_epoch", lambda: observer.stage_epoch("teacher", 1, 3, report)),
        ("stage_lost", lambda: observer.stage_lost("teacher", "its host was lost")),
        ("stage_finished", lambda: observer.stage_finished(StageResult("teacher", "t-1", 1.0, False))),
        ("phase_started", lambda: observer.phase_started("search", 3)),
        ("trial_started", lambda: observer.trial_started(trial("a"))),
        ("trial_epoch", lambda: observer.trial_epoch(trial("a", 1), report)),
        ("trial_retried", lambda: observer.trial_retried(trial("a", 1))),
        ("interrupted", lambda: observer.interrupted(1, at_once=False)),
        ("trial_paused", lambda: observer.trial_paused(trial("a", 1))),
        ("trial_ended", lambda: observer.trial_ended(failed)),
        ("testing_started", lambda: observer.testing_started()),
        ("tested", lambda: observer.tested(FinalScore("student-a", "test-1", {"score": 0.7}))),
        ("weighed", lambda: observer.weighed(Evidence([], None, "no difference is shown"))),
        ("measuring_started", lambda: observer.measuring_started()),
        ("measured", lambda: observer.measured(StudentCost("student-a", "cost-1", "batch 1", "CPU", {"p95": 1.0}))),
        ("task_ended", lambda: observer.task_ended(finished=False)),
    ]


def test_every_event_is_a_documented_line_of_json() -> None:
    file = io.StringIO()
    events = all_events(JsonObserver(JsonLines(file), "tiny"))
    for _, tell in events:
        tell()
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    names = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction)]
    assert sorted(line["event"] for line in lines) == sorted(name for name, _ in events) == sorted(names)
    assert len(lines) == 20
    page = (Path(__file__).parents[1] / "docs" / "watching.md").read_text(encoding="utf-8")
    documented = {cells[1].strip(" `"): cells[3] for row in page.splitlines() if len(cells := row.split("|")) == 5}
    for line in lines:
        assert line["task"] == "tiny"
        special = {"event", "time", "task"} | ({"name", *vars(trial("a"))} if "trial" in line else set())
        fields = set(line) - special
        assert {f"`{field}`" for field in fields} <= set(documented[line["event"]].replace(",", " ").split()), line
    assert {"sweep_started", "sweep_ended"} <= set(documented)
    epoch = next(line for line in lines if line["event"] == "trial_epoch")
    assert (epoch["report"]["loss"], epoch["name"], epoch["epochs"]) == (None, "lambda=0.416 s=0.3 T=2.63", 1)


def test_a_reader_that_leaves_does_not_end_the_sweep() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        lines = JsonLines(file)
        for _ in range(3):
            lines.write("sweep_started")


def test_rungs_are_the_schedulers() -> None:
    assert rungs(space()) == [1, 4]
    assert rungs(space("training.epochs=10", "trials.scheduler={asha: {grace_period: 2, reduction_factor: 2}}")) == [
        2,
        4,
        8,
    ]
    assert rungs(space("trials.scheduler=null")) == []


def simulated(seed: int, places: int, changes: tuple[str, ...]) -> tuple[list[tuple[float, float | None]], float]:
    """A sweep of 50 trials, 7 s an epoch, stopped as ASHA would: the clock with what was forecast, and the end."""
    searched, clock, rng = space(*changes), Clock(), random.Random(seed)
    progress, told = Progress(searched, {}, clock), []
    progress.task_started(tiny_data(), resumed=False)
    waiting: list[tuple[Phase, int]] = [("search", 50)]
    while waiting:
        phase, count = waiting.pop(0)
        progress.phase_started(phase, count)
        left, under_way = list(range(count)), dict[str, tuple[int, float]]()
        while left or under_way:
            while left and len(under_way) < places:
                name = f"{phase}{left.pop()}"
                progress.trial_started(trial(name, phase=phase))
                under_way[name] = (0, clock.now + rng.uniform(5, 9))
            name = min(under_way, key=lambda running: under_way[running][1])
            epochs, clock.now = under_way[name][0] + 1, under_way[name][1]
            found = trial(name, epochs, rng.random(), phase=phase, seconds=7.0 * epochs)
            progress.trial_epoch(found, {"score": found.score})
            stopped = phase == "search" and epochs in rungs(searched) and rng.random() < 0.6
            if stopped or epochs == 9:
                progress.trial_ended(replace(found, status="stopped" if stopped else "finished"))
                del under_way[name]
            else:
                under_way[name] = (epochs, clock.now + rng.uniform(5, 9))
            told.append((clock.now, progress.seconds_left()))
        waiting = progress.later()[:1] if phase != "confirm" else []
    return told, clock.now


@pytest.mark.parametrize("places", [1, 4, 16])
@pytest.mark.parametrize("changes", [(), ("trials.scheduler=null",), ("confirm={top: 2, seeds: 3}",)])
def test_the_time_left_is_about_right_from_early_on(places: int, changes: tuple[str, ...]) -> None:
    for seed in range(3):
        told, end = simulated(seed, places, changes)
        assert told[-1][1] == pytest.approx(0.0, abs=7.0)
        for share, tolerance in ((0.1, 0.4), (0.3, 0.3), (0.6, 0.25), (0.9, 0.1)):
            at, left = next((at, left) for at, left in told if at >= share * end)
            assert left is not None
            assert at + left == pytest.approx(end, rel=tolerance), (seed, share)


def test_nothing_is_forecast_before_the_first_epoch() -> None:
    time_left = TimeLeft(space())
    assert time_left.seconds_left({"a": trial("a")}, "search", 50, 2) is None
    assert time_left.seconds_left({"a": trial("a", 1)}, "search", 50, 2) is not None


def test_lines_above_the_region_are_plain() -> None:
    console = Console(file=io.StringIO(), width=40)
    display = Display(console, Progress(space(), {}))
    display.waiting("[bold]" + "x" * 60)
    assert isinstance(console.file, io.StringIO)
    assert strip_control_codes(console.file.getvalue()) == "[0:00] [bold]" + "x" * 60 + "\n"


def test_what_libraries_print_goes_to_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = console_for_people()
    with quiet_libraries(tmp_path / "sweep.log"):
        print("(raylet) A worker died")
        console.print("trial 1 of 4")
    assert capsys.readouterr().out == "trial 1 of 4\n"
    assert (tmp_path / "sweep.log").read_text() == "(raylet) A worker died\n"
