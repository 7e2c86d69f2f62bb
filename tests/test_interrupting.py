"""What Ctrl-C does: by itself, and to a real sweep in a real terminal, with what a person sees there."""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sweeping import STKD, TIMEOUT, environment, write_space
from terminal import Terminal
from victims import begun

from stkd.orchestrator.events import Observer
from stkd.orchestrator.interruption import Interruption, is_asked
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import TrialResult, read_results
from stkd.orchestrator.searching import scheduler
from stkd.search_spaces.reading import read_space

EPOCHS = 25


class Listener(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def interrupted(self, running: int, at_once: bool) -> None:
        self.told.append((running, at_once))


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interruption outlives its test: schedulers of later ones would stop by it."""
    monkeypatch.setattr(Interruption, "active", None)


def test_once_waits_for_what_runs_twice_for_nothing_and_then_everything_ends() -> None:
    listener, ends = Listener(), []
    interruption = Interruption(listener)
    before = signal.getsignal(signal.SIGINT)
    with interruption.heard():
        signal.signal(signal.SIGUSR1, lambda *_: ends.append("tune"))  # as Tune does
        assert interruption.look({"a", "b"}) == set()
        assert not is_asked()
        signal.raise_signal(signal.SIGINT)
        assert is_asked()
        assert interruption.look({"a", "b"}) == set()
        assert interruption.look({"b", "late"}) == {"a"}
        assert ends == []
        interruption.reported("prompt")
        assert interruption.look({"late", "prompt"}) == {"b"}
        assert ends == []
        assert interruption.look({"late"}) == {"prompt"}
        assert ends == ["tune"]
        signal.raise_signal(signal.SIGINT)
        assert ends == ["tune", "tune"]
        interruption.look({"late"})
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert listener.told == [(2, False), (0, True)]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_trial_that_finishes_its_epoch_between_ctrl_c_and_tunes_next_step_is_told_of() -> None:
    listener = Listener()
    interruption = Interruption(listener)
    with interruption.heard():
        signal.signal(signal.SIGUSR1, lambda *_: None)
        interruption.reported("before")
        signal.raise_signal(signal.SIGINT)
        interruption.reported("prompt")
        assert interruption.look(set()) == {"prompt"}
    assert listener.told == [(1, False)]


def test_twice_before_tune_listens_ends_at_once() -> None:
    with Interruption(Listener()).heard():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_schedulers_pause_what_would_go_on() -> None:
    plan = read_space(Path("quickstart"), ("trials.scheduler=null",))
    interruption, patient = Interruption(Listener()), scheduler(plan)
    assert patient.on_trial_result(None, None, {}) == "CONTINUE"
    with interruption.heard():
        signal.raise_signal(signal.SIGINT)
    assert patient.on_trial_result(None, None, {}) == "PAUSE"
    assert patient.choose_trial_to_run(None) is None
    Interruption(Listener())  # of the next task
    assert patient.on_trial_result(None, None, {}) == "CONTINUE"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Where a sweep of two trials will lie, each long enough to be seen in its midst."""
    training = {"epochs": EPOCHS, "max_length": 32, "learning_rate": 1.0e-3}
    trials = {"count": 2, "searcher": "grid", "scheduler": {"asha": {"grace_period": EPOCHS - 1}}}
    search = {"interpolation": {"choice": [0.0, 1.0]}}
    write_space(tmp_path, training=training, trials=trials, search=search, controls=False)
    return Storage(tmp_path / "runs")


@pytest.fixture
def terminal(storage: Storage) -> Iterator[Terminal]:
    terminal = Terminal([*STKD, "sweep", "--space", str(storage.root.parent / "space.yaml")], environment())
    yield terminal
    terminal.close()


def trials(storage: Storage) -> dict[str, TrialResult]:
    sweeps = list(storage.sweeps.glob("*/remarks/results.jsonl"))
    return dict(read_results(SweepFolder(sweeps[0].parents[1]))["remarks"].trials) if sweeps else {}


def epochs_seen(storage: Storage) -> int:
    return sum(trial.epochs for trial in trials(storage).values())


def is_in_its_midst(storage: Storage) -> bool:
    """Whether a trial runs that is still far from its end."""
    return any(trial.status == "running" and 3 <= trial.epochs <= EPOCHS // 2 for trial in trials(storage).values())


def trained(sweep: SweepFolder) -> Counter[tuple[str, int]]:
    """How many times each epoch of each trial was trained and told; stages tell their best one again at their end."""
    known = trials(Storage(sweep.root.parents[1]))
    events = [json.loads(line) for line in sweep.journal.read_text(encoding="utf-8").splitlines()]
    measured = [event for event in events if event["kind"] == "measured" and "loss" in event["metrics"]]
    found = Counter((event["key"].rpartition("/")[2], event["step"]) for event in measured)
    return Counter({(trial, epoch): times for (trial, epoch), times in found.items() if trial in known})


@pytest.mark.slow
def test_ctrl_c_once_and_twice_and_a_resume_that_trains_no_epoch_again(storage: Storage, terminal: Terminal) -> None:
    stop_with_once(terminal, storage)
    kept = trials(storage)
    assert any(trial.status == "running" and 0 < trial.epochs < EPOCHS for trial in kept.values())
    sweep = storage.find_sweep()
    assert set(trained(sweep).values()) == {1}

    resume = [*STKD, "sweep", "--resume", "--storage", str(storage.root)]
    stop_with_twice(resume, storage)

    done = subprocess.run(
        [*resume, "--json-lines"], env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial 2 of 2" in done.stderr
    assert_told_to_machines(done.stdout, sweep)
    repeated = [
        (trial, epoch)
        for (trial, epoch), times in trained(sweep).items()
        if times > 1 and trial in kept and epoch <= kept[trial].epochs
    ]
    assert repeated == []
    assert {trial.status for trial in trials(storage).values()} <= {"finished", "stopped"}


@pytest.mark.cluster
def test_a_signal_to_all_of_the_command_ends_it_as_ctrl_c_does(storage: Storage) -> None:
    """As `timeout` and service managers send it; Ray would not finish anything if it heard that, too."""
    space = storage.root.parent / "space.yaml"
    with begun(space.parent, "--space", str(space)) as driver:
        driver.wait_until(lambda: is_in_its_midst(storage))
        os.killpg(driver.process.pid, signal.SIGTERM)
        said = driver.finish(130)
    assert "so that a resume loses nothing" in said
    assert f"--resume {storage.find_sweep().sweep_id}" in said
    assert any(trial.status == "running" and 0 < trial.epochs < EPOCHS for trial in trials(storage).values())
    assert set(trained(storage.find_sweep()).values()) == {1}


def stop_with_once(terminal: Terminal, storage: Storage) -> None:
    """Ctrl-C once, while trials run: they finish their epoch, and nothing is left but what was said."""
    terminal.wait_for(lambda: any("now       " in line for line in terminal.shown))
    terminal.wait_for(lambda: any(line.startswith("running   student") for line in terminal.shown))
    terminal.resize(70, 20)
    family = psutil.Process(terminal.process.pid).children(recursive=True)
    assert len(family) > 3

    terminal.wait_for(lambda: is_in_its_midst(storage))
    terminal.ctrl_c()
    assert terminal.end() == 130
    seen = "\n".join(terminal.history)
    unfolded = "".join(seen.split())  # the terminal folds long lines anywhere
    assert "so that a resume loses nothing; Ctrl-C again stops at once".replace(" ", "") in unfolded
    assert "; a resume goes on from there".replace(" ", "") in unfolded
    left = "\n".join(terminal.shown)
    assert "running   student" not in left
    assert "devices   " not in left
    assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")  # the cursor is back
    assert "Traceback" not in seen
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [process.name() for process in alive] == []


def stop_with_twice(resume: list[str], storage: Storage) -> None:
    """Ctrl-C twice: it stops at once."""
    again = Terminal(resume, environment())
    try:
        before = epochs_seen(storage)
        again.wait_for(lambda: epochs_seen(storage) > before)
        again.ctrl_c()
        again.wait_for(lambda: any("stopping: " in line for line in again.shown))
        again.ctrl_c()
        assert again.end() == 130
        assert "Traceback" not in "\n".join(again.history)
    finally:
        again.close()


def assert_told_to_machines(output: str, sweep: SweepFolder) -> None:
    """Every line is an event; the last one says where everything lies."""
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[0]["event"] == "sweep_started"
    told = {line["event"] for line in lines}
    assert told >= {"stage_finished", "phase_started", "trial_epoch", "trial_ended", "tested"}
    last = lines[-1]
    assert (last["event"], last["outcome"], last["exit_code"]) == ("sweep_ended", "finished", 0)
    assert Path(last["results"]) == sweep.root
    assert Path(last["report"]).is_file()
    assert Path(last["best"]["remarks"]["student"]).is_dir()
    assert 0 <= last["best"]["remarks"]["score"] <= 1


@pytest.mark.slow
def test_machines_hear_of_a_sweep_that_is_refused(tmp_path: Path) -> None:
    command = [*STKD, "sweep", "--space", "quickstart", "--set", "trials.cuont=3", "--json-lines", "--quiet"]
    done = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    (last,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (last["event"], last["outcome"], last["exit_code"], done.returncode) == ("sweep_ended", "refused", 2, 2)
    assert "trials.cuont" in last["reason"]
    assert last["reason"] in done.stderr
