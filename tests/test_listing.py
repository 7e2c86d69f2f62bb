"""Lists of sweeps, tasks and trials: what they say, how they are filtered, and as machines read them."""

import csv
import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from stored import SPACE, store, trial

from stkd.orchestrator.activity import Activity, keep_ending, running
from stkd.orchestrator.cli import main
from stkd.orchestrator.filters import Selection
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.records import as_csv, as_json
from stkd.orchestrator.results import FinalScore, StageResult, TrialResult
from stkd.trainers.errors import UserError


def run(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["list", *(str(argument) for argument in arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A sweep with a teacher, five trials that differ in all that one filters by, and a test score."""
    wide = {"distillation.sparsity": 0.6, "training.learning_rate": 1e-3}
    return store(
        tmp_path,
        StageResult("teacher", "teacher-1", 9.0, False, {"score": 0.9}),
        trial("aa", 0.61),
        trial("bb", 0.74, values={"interpolation": 0.9, "sparsity": 0.6, "temperature": 1.5}),
        trial("cc", 0.7, "stopped", epochs=1, values={"interpolation": 0.1, "sparsity": 0.0, "temperature": 8.0}),
        TrialResult(
            "dd", {"interpolation": 0.2, "sparsity": 0.9, "temperature": 2.0}, "failed", reason="the loss is nan"
        ),
        trial("ee", 0.72, phase="control", role="dense teacher", values=wide),
        FinalScore("student-bb", "test-1", {"score": 0.69}),
        space=SPACE,
    )


def test_sweeps_are_listed_newest_first_with_what_became_of_them(storage: Storage) -> None:
    store(storage.root, trial("x", 0.5), space=SPACE)
    newest, oldest = json.loads(run("--storage", storage.root, "--json"))
    assert (newest["best"], oldest["best"], oldest["test"], oldest["trial"]) == (0.5, 0.74, 0.69, "bb")
    assert (oldest["trials"], oldest["planned"], oldest["failed"], oldest["tasks"]) == (4, 12, 1, ["mrpc"])
    assert oldest["started"] == storage.all_sweeps()[0].started.isoformat()  # type: ignore[union-attr]
    screen = run("--storage", storage.root)
    assert screen.index(f"  {newest['sweep']}  ") < screen.index(f"  {oldest['sweep']}  ")
    assert "4 of 12 74.0 69.0 lambda=0.9 s=0.6 T=1.5 bb" in " ".join(screen.split())


def test_a_sweep_of_an_unreadable_space_is_listed_with_what_its_results_say(tmp_path: Path) -> None:
    storage = store(tmp_path, trial("a", 0.5), space="of: another version")
    (record,) = json.loads(run("--storage", storage.root, "--json"))
    assert (record["tasks"], record["planned"], record["best"]) == (["mrpc"], None, 0.5)
    assert json.loads(run("--storage", storage.root, "--trials", "--json"))[0]["distillation.sparsity"] == 0.3


def test_tasks_of_a_sweep(storage: Storage) -> None:
    (task,) = json.loads(run("--storage", storage.root, "--sweep", "latest", "--json"))
    counts = {status: task[status] for status in ("finished", "stopped", "failed", "running")}
    assert counts == {"finished": 3, "stopped": 1, "failed": 1, "running": 0}
    assert (task["searched"], task["planned"], task["teacher"], task["best"]) == (4, 12, 0.9, 0.74)
    assert "90.0   74.0   69.0" in run("--storage", storage.root, "--sweep", "tiny-")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--trials"], ["aa", "bb", "cc", "dd", "ee"]),
        (["--status", "failed"], ["dd"]),
        (["--phase", "control"], ["ee"]),
        (["--role", "dense teacher"], ["ee"]),
        (["--task", "mrpc", "--top", "2"], ["aa", "bb"]),
        (["--where", "sparsity>=0.6"], ["bb", "dd", "ee"]),
        (["--where", "s=0.6", "--where", "phase=search"], ["bb"]),
        (["--where", "distillation.temperature < 2"], ["bb"]),
        (["--where", "score>0.7"], ["bb", "ee"]),
        (["--where", "score!=0.7"], ["aa", "bb", "dd", "ee"]),
        (["--where", "learning_rate>0.0005"], ["ee"]),
        (["--where", "reason!=x", "--status", "failed"], ["dd"]),
        (["--sort", "score"], ["bb", "ee", "cc", "aa", "dd"]),
        (["--sort", "score", "--ascending", "--top", "1"], ["aa"]),
        (["--sort", "T", "--top", "1"], ["cc"]),
        (["--sort", "trial", "--top", "1"], ["ee"]),
        (["--where", "lambda>1"], []),
    ],
)
def test_trials_are_filtered_and_sorted(storage: Storage, options: list[str], found: list[str]) -> None:
    records = json.loads(run("--storage", storage.root, *options, "--json"))
    assert [record["trial"] for record in records] == found
    screen = run("--storage", storage.root, *options)
    assert [name for name in ("aa", "bb", "cc", "dd", "ee") if f"  {name}  " in screen] == sorted(found)


def test_what_was_asked_for_is_shown(storage: Storage) -> None:
    screen = run("--storage", storage.root, "--where", "learning_rate>0", "--top", "1")
    assert "learning_rate" in screen
    assert "1 of 5 trials of tiny-" in screen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--where", "lamda>1"],
            "--where lamda>1: there is no 'lamda', did you mean 'lambda'?; there are: sweep, task",
        ),
        (["--where", "score"], "--where score: no comparison; write one of"),
        (["--where", "score>high"], "'high' is no number"),
        (["--where", "status>finished"], "status is no number; compare it with = or !="),
        (["--sort", "colour"], "there is no 'colour'"),
        (["--task", "mrcp"], "has no task 'mrcp', did you mean 'mrpc'?; it has: mrpc"),
        (["--sweep", "tinny-1"], "no sweep 'tinny-1'"),
    ],
)
def test_a_wrong_filter_is_named(storage: Storage, options: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["list", "--storage", str(storage.root), *options])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_end_of_a_name_must_mean_one_column() -> None:
    records = [{"training.sparsity": 1, "student.sparsity": 2, "distillation.seed": 3, "training.seed": 4}]
    with pytest.raises(UserError, match=r"sparsity may be training\.sparsity or student\.sparsity; write it out"):
        Selection(["sparsity>0"]).of(records)
    assert Selection(["seed=3"]).of(records) == (records, ["distillation.seed"])


def test_the_beginning_of_a_name_must_mean_one_sweep(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for _ in range(2):
        storage.new_sweep("tiny").space.write_text("")
    first, second = (sweep.sweep_id for sweep in storage.all_sweeps())
    with pytest.raises(UserError, match=r"2 sweeps in .* begin with 'tiny', the newest: tiny"):
        storage.find_sweep("tiny")
    assert storage.find_sweep(first).sweep_id == first  # also where the second one's name begins with it
    assert storage.find_sweep(second[:-1] if second.startswith(first) else second).sweep_id in (first, second)


# States


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return Storage(tmp_path).new_sweep("tiny")


def test_a_sweep_runs_until_it_ends(sweep: SweepFolder) -> None:
    with running(sweep):
        assert Activity.of(sweep).state == "running"
        with pytest.raises(UserError, match=f"sweep {sweep.sweep_id} runs already, as process"), running(sweep):
            pass
        keep_ending(sweep, "finished")
    assert Activity.of(sweep).state == "finished"
    assert Activity.of(sweep).at


def test_a_sweep_that_is_stopped_fails_or_is_killed(sweep: SweepFolder) -> None:
    with pytest.raises(KeyboardInterrupt), running(sweep):
        raise KeyboardInterrupt
    assert Activity.of(sweep).state == "stopped"
    with pytest.raises(ValueError, match="away"), running(sweep):
        raise ValueError("http://me:secret@host\nis away")
    assert Activity.of(sweep) == Activity("crashed", Activity.of(sweep).at, "ValueError: http://***@host is away")


def test_a_killed_sweep_has_crashed_and_can_go_on(sweep: SweepFolder) -> None:
    code = (
        "import os, pathlib, sys; from stkd.orchestrator.activity import running;"
        "from stkd.orchestrator.layout import SweepFolder\n"
        "with running(SweepFolder(pathlib.Path(sys.argv[1]))): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, sweep.root], check=False).returncode == 9
    assert sweep.claim.exists()
    assert Activity.of(sweep) == Activity("crashed")
    with running(sweep):
        assert Activity.of(sweep).state == "running"


# Machines


def test_csv_has_a_column_for_every_name() -> None:
    text = as_csv([{"a": 1, "values": {"x": 0.5}}, {"a": None, "tasks": ["b", "c"], "values": {"y": "1,5"}}])
    assert list(csv.DictReader(StringIO(text))) == [
        {"a": "1", "values.x": "0.5", "tasks": "", "values.y": ""},
        {"a": "", "values.x": "", "tasks": "b c", "values.y": "1,5"},
    ]


def test_json_has_no_numbers_that_it_does_not_know() -> None:
    assert json.loads(as_json([{"low": float("-inf"), "all": (1.0, float("nan"))}])) == [
        {"low": None, "all": [1.0, None]}
    ]
