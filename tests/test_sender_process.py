"""What tells MLflow in a process of its own: it loses nothing, and ends with whoever started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow_places import Place
from test_tracking import record_trial

from stkd.orchestrator import sender_process
from stkd.orchestrator.journal import Journal, Measured, RunEnded
from stkd.orchestrator.journal_reader import JournalReader
from stkd.orchestrator.sender import Destination, Progress
from stkd.orchestrator.sender_process import SenderProcess
from stkd.orchestrator.tracking import Tracker

pytestmark = [  # both come with the import of MLflow 3.17
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]
TIMEOUT = 60.0
PARENT = """
import sys, time
from pathlib import Path
from stkd.orchestrator.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]), sys.argv[2], "orphans", None, Path(sys.argv[3]))
tracker.start_run("s/t", "t", None, {}, {})
while tracker.pending: time.sleep(0.05)
print(tracker._sender.pid, flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def process_of(tracker: Tracker) -> int:
    sender = tracker._sender
    assert isinstance(sender, SenderProcess)
    wait_for(lambda: sender.pid is not None)
    assert sender.pid is not None
    return sender.pid


def test_all_is_sent_and_told(place: Place) -> None:
    tracker = place.tracker(apart=True)
    process = process_of(tracker)
    record_trial(tracker)
    wait_for(lambda: tracker.pending == 0)
    record_trial(tracker, points=5)
    assert tracker.close(TIMEOUT), tracker.problem
    assert not psutil.pid_exists(process)
    assert tracker.run_ids == {
        f"s/{run.info.run_name}".replace("s/t1", "s/mrpc/t1"): run.info.run_id for run in place.runs().values()
    }
    assert place.points("t1", "score") == [(step, step / 8) for step in range(5)]
    with place.tracker(apart=True) as following:
        assert (following.pending, following.run_ids) == (0, tracker.run_ids)
        following.log_metrics("s/mrpc/t1", {"score": 1.0}, 5)
    assert len(place.points("t1", "score")) == 6
    assert place.refused() == []


def test_a_process_that_is_killed_is_followed_by_another(place: Place) -> None:
    with place.tracker(apart=True) as tracker:
        record_trial(tracker)
        wait_for(lambda: len(tracker.run_ids) == 2)
        first = process_of(tracker)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: tracker.problem is not None)
        assert tracker.problem == "the process that tells MLflow has ended: exit code -9"
        record_trial(tracker, points=6)
        wait_for(lambda: tracker.pending == 0)
        assert tracker.problem is None
        assert process_of(tracker) != first
    assert place.points("t1", "score") == [(step, step / 8) for step in range(6)]
    assert place.refused() == []


def test_a_process_that_is_killed_at_the_end_is_followed_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where that one ends, too, nobody waits."""
    code = "import os, sys; sys.stdin.buffer.readline(); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(sender_process, "PROCESS", (sys.executable, "-c", code))
    tracker = place.tracker(apart=True)
    tracker.start_run("s/t", "t", None, {}, {})
    begun = time.monotonic()
    assert not tracker.close(TIMEOUT)
    assert time.monotonic() - begun < TIMEOUT / 2
    assert tracker.pending == 1
    assert "exit code -9" in str(tracker.problem)


def test_a_process_that_cannot_be_started_is_a_problem(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_process, "PROCESS", ("/nowhere/python",))
    with place.tracker(apart=True) as tracker:
        wait_for(lambda: tracker.problem is not None)
        assert "/nowhere/python" in str(tracker.problem)


def test_calls_return_while_the_process_is_stopped(place: Place) -> None:
    """More news than a pipe holds; and `close` waits no longer than it is told to, and leaves no process."""
    with place.tracker() as known:
        known.start_run("s/t", "t", None, {}, {})
    assert known.pending == 0, known.problem
    tracker = place.tracker(apart=True)
    process = process_of(tracker)
    os.kill(process, signal.SIGSTOP)
    tracker.log_metrics("s/t", {"score": 0.5}, 1)
    begun = time.monotonic()
    for _ in range(100_000):
        tracker._sender.look()
    assert not tracker.close(1.0)
    assert time.monotonic() - begun < 20
    assert tracker.pending == 1
    wait_for(lambda: not psutil.pid_exists(process))
    with place.tracker(apart=True):
        pass
    assert place.points("t", "score") == [(1, 0.5)]


def test_it_ends_with_whoever_started_it(place: Place, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "journal.jsonl"), place.uri, str(tmp_path / "sent.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        assert os.getpgid(process) == process
        parent.kill()
    wait_for(lambda: not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    assert JournalReader(tmp_path / "journal.jsonl").dealt_with == 1


def test_it_ends_where_nobody_says_what_to_send() -> None:
    done = subprocess.run(sender_process.PROCESS, input=b'{"journal"', timeout=TIMEOUT, check=False)
    assert done.returncode == 0


def test_a_problem_is_told_without_credentials(tmp_path: Path) -> None:
    """Neither is it on the command line, which everybody on the machine can read."""
    uri = "http://me:secret@127.0.0.1:9"
    with Tracker(tmp_path / "journal.jsonl", uri, "away", None, tmp_path / "sent.log") as tracker:
        command = psutil.Process(process_of(tracker)).cmdline()
        tracker.start_run("s/t", "t", None, {}, {})
        wait_for(lambda: tracker.problem is not None)
        assert "secret" not in f"{tracker.problem} {command} {(tmp_path / 'sent.log').read_text()}"
        assert "127.0.0.1" in str(tracker.problem)
        assert tracker.pending == 1


def test_progress_counts_lines_of_the_whole_journal(place: Place) -> None:
    with place.tracker(apart=True) as tracker:
        tracker.start_run("s/t", "t", None, {}, {})
    journal, heard = Journal(place.journal), list[Progress]()
    to = Destination(
        journal=place.journal, uri=place.uri, experiment=place.experiment, artifact_location=place.artifacts
    )
    sender = SenderProcess(to, heard.append, place.journal.with_name("sent.log"))
    journal.append(Measured(key="s/t", metrics={"score": 1.0}, step=1))
    journal.append(RunEnded(key="s/t", status="FINISHED"))
    sender.close(TIMEOUT)
    assert heard[-1] == Progress(dealt_with=3)
    assert all(progress.run_ids == {} for progress in heard)
