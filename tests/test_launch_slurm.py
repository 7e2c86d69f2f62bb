"""The Slurm script, run: real raylets on stand-ins for nodes, a sweep on them, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from launching import SLURM, text

FAKES = Path(__file__).parent / "fake_slurm"
WAIT_SECONDS = 180.0
USUAL_PORTS = {6379, 8265, 10001, 52365, *range(10002, 20000)}
"""Where Ray listens if nobody says otherwise: on a shared node, another job may."""


@dataclass
class Job:
    """A job of the stand-in for Slurm, in a folder of its own."""

    folder: Path
    number: str
    nodes: int
    restarts: int = 0

    @property
    def said(self) -> str:
        return (self.folder / f"stkd-{self.number}.log").read_text()

    @property
    def seen(self) -> Path:
        return self.folder / f"seen-{self.restarts}"

    @property
    def requeued(self) -> bool:
        return (self.folder / "scontrol").exists()

    @property
    def ray_folder(self) -> Path:
        return Path(f"/tmp/stkd-{self.number}-{self.restarts}")

    def start(self, seconds: float) -> subprocess.Popen[bytes]:
        script = self.folder / SLURM
        script.write_text(re.sub(r"^source .*$|^export MLFLOW_.*$", ":", text(SLURM), flags=re.MULTILINE))
        names = [f"n{number}" for number in range(1, self.nodes + 1)]
        environment = os.environ | {
            "PATH": os.pathsep.join(
                [str(self.folder), str(FAKES), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "SLURM_JOB_ID": self.number,
            "SLURM_JOB_NUM_NODES": str(self.nodes),
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_GPUS_ON_NODE": "2",
            "SLURM_RESTART_COUNT": str(self.restarts),
            "SLURMD_NODENAME": names[0],
            "FAKE_SLURM_NODES": ",".join(names),
            "FAKE_SLURM_APART": "6",
            "FAKE_SLURM_SAID": str(self.folder / "scontrol"),
            "FAKE_SWEEP_SEES": str(self.seen),
            "FAKE_SWEEP_SECONDS": str(seconds),
        }
        with (self.folder / f"stkd-{self.number}.log").open("ab") as log:
            return subprocess.Popen(
                ["/bin/bash", script, "--space", "glue"], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLURM_JOB_ID") == self.number:
                    found.append(process)
        return found

    def wait_for_the_sweep(self, process: subprocess.Popen[bytes]) -> list[list[float]]:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (self.seen.exists() and self.seen.read_text()):
            assert process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.2)
        nodes: list[list[float]] = json.loads(self.seen.read_text())["nodes"]
        return nodes


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A job whose number nobody else has; ends what it left, so that a failed test leaves nothing either."""
    started = Job(tmp_path, str(10_000_000 + os.getpid()), nodes=1)
    yield started
    for process in started.processes():
        with suppress(psutil.Error):
            process.kill()


def listening_ports(processes: list[psutil.Process]) -> set[int]:
    ports = set()
    for process in processes:
        with suppress(psutil.Error):
            ports |= {at.laddr.port for at in process.net_connections("inet") if at.status == psutil.CONN_LISTEN}
    return ports


@pytest.mark.slow
def test_three_nodes_until_the_time_limit_and_on_one_from_there(job: Job) -> None:
    job.nodes = 3
    process = job.start(seconds=600)
    assert job.wait_for_the_sweep(process) == [[1.0, 2.0]] * 3
    ports = listening_ports(job.processes())
    assert len(ports) >= 7  # the head's server of the cluster, and two of each raylet
    assert not ports & USUAL_PORTS
    process.send_signal(signal.SIGUSR1)
    assert process.wait(WAIT_SECONDS) == 130
    assert "stopping" in job.said
    assert (job.folder / "scontrol").read_text() == f"requeue {job.number}\n"
    assert not job.processes()
    assert not job.ray_folder.exists()

    (job.folder / "scontrol").unlink()
    job.nodes, job.restarts = 1, 1
    assert job.start(seconds=0).wait(WAIT_SECONDS) == 0
    assert json.loads(job.seen.read_text())["arguments"][-2:] == ["--resume", "fake-1"]
    assert not job.requeued
    assert not job.processes()
    assert not job.ray_folder.exists()


@pytest.mark.slow
def test_a_cancelled_job_leaves_nothing_and_does_not_come_back(job: Job) -> None:
    process = job.start(seconds=600)
    job.wait_for_the_sweep(process)
    token = next(each.environ()["RAY_AUTH_TOKEN"] for each in job.processes() if "RAY_AUTH_TOKEN" in each.environ())
    for _ in range(3):  # as scancel does: all of the job at once, while the script ends its steps by itself
        for each in job.processes():
            with suppress(psutil.Error):
                each.terminate()
        time.sleep(0.2)
    assert process.wait(WAIT_SECONDS) != 0
    assert not job.requeued
    assert not job.processes()
    assert not job.ray_folder.exists()
    assert len(token) == 64
    assert not [path for path in job.folder.iterdir() if token in path.read_text()]


def test_a_head_that_does_not_start_is_told(job: Job) -> None:
    (job.folder / "ray").write_text("#!/bin/sh\necho there is no room\nexit 1\n")
    (job.folder / "ray").chmod(0o700)
    assert job.start(seconds=0).wait(WAIT_SECONDS) == 1
    assert f"Ray does not start on n1: see the end of stkd-{job.number}-ray-0.log" in job.said
    assert "there is no room" in (job.folder / f"stkd-{job.number}-ray-0.log").read_text()
    assert not job.requeued
