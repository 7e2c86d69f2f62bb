"""`stkd ui`: a real server, once, and the mistakes that are told before it starts."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from stkd.orchestrator.ui import _sigterm_as_interrupt, serve_ui
from stkd.trainers.errors import UserError


def test_a_folder_without_a_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no store .*mlflow\.db: run `stkd sweep`"):
        serve_ui(tmp_path, None)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"):
            serve_ui(tmp_path, port)


@pytest.mark.slow
def test_the_ui_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    code = f"from stkd.orchestrator.ui import *; sys.exit(serve_ui(Path({str(tmp_path)!r}), None))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("MLflow UI: http://127.0.0.1:")
        assert line.endswith("  (Ctrl-C ends it)\n")
        with urlopen(line.split()[2]) as answer:
            assert answer.status == 200
        [group] = groups_of_children(process.pid)
        assert group != os.getpgrp()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.terminate()  # and not kill: a failed test should leave nothing either
        process.communicate()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_server_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"does not start on port .*mlflow-ui\.log"):
        serve_ui(tmp_path, None)


def test_sigterm_ends_it_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _sigterm_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def groups_of_children(parent: int) -> set[int]:
    command = ["/bin/ps", "-o", "pgid=", "--ppid", str(parent)]
    return {int(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.split()}
