"""A cluster's jobs, over HTTP: from any machine that reaches the port of its dashboard."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import join
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import requests
from aiohttp import ClientError
from ray.job_submission import JobDetails, JobSubmissionClient

from stkd.cluster.errors import ClusterError, TokenError
from stkd.cluster.tokens import require_token, set_mode, token_header, wrong_token
from stkd.cluster.wheel import build_wheel

ANSWER_SECONDS = 10.0
"""How long the dashboard may take to say who it is."""
REQUEST_SECONDS = 60.0
BEGINNING_SECONDS = 60.0
NO_AGENT = "No available agent"
"""What a head says that does not take jobs yet."""
STOP_SECONDS = 300
"""How long a job that was asked to stop may take, before Ray kills it; Ray's own 3 seconds are too few."""
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
OURS = "stkd"
"""What the notes of a job of ours begin with."""


@dataclass(frozen=True)
class Job:
    """A job that stkd has submitted."""

    name: str
    status: str
    """As Ray has it, in small letters: pending, running, succeeded, failed or stopped."""
    notes: Mapping[str, str]
    """What was noted when it was submitted."""
    began: datetime | None
    ended: datetime | None
    exit_code: int | None
    message: str

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end, whatever that was."""
        return self.status in ("succeeded", "failed", "stopped")


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Waits for no answer for ever, and for a head that has just begun until it takes jobs."""

    def _do_request(self, *arguments: Any, **options: Any) -> requests.Response:
        deadline = monotonic() + BEGINNING_SECONDS
        while True:
            response: requests.Response = super()._do_request(*arguments, timeout=REQUEST_SECONDS, **options)
            not_yet = response.status_code == requests.codes.server_error and NO_AGENT in response.text
            if not not_yet or monotonic() > deadline:
                return response
            sleep(1.0)


class Jobs:
    """Submits commands to a cluster and asks after them.

    Raises:
        ClusterError: the cluster does not answer, or wants another token.

    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._place = f"--address {self.address}"
        if not self.address.startswith(("http://", "https://")):
            raise ClusterError(
                f"{self._place}: must be where the head's dashboard answers, as in http://10.0.0.1:8265; HOST:PORT of "
                "the GCS is for stkd sweep"
            )
        self._agree_on_token()
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # what the environment says would come first
        self._client = _Client(self.address)
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)

    def _agree_on_token(self) -> None:
        """Send this machine's token to a cluster that wants one, and to no other."""
        set_mode("disabled")
        if self._probe() != requests.codes.unauthorized:
            return
        require_token(self._place)
        if self._probe() in (requests.codes.unauthorized, requests.codes.forbidden):
            raise TokenError(wrong_token(self._place))

    def _probe(self) -> int:
        try:
            answer = requests.get(f"{self.address}/api/version", headers=token_header(), timeout=ANSWER_SECONDS)
        except requests.Timeout as error:
            raise ClusterError(f"{self._place}: no answer within {ANSWER_SECONDS:.0f} s") from error
        except requests.RequestException as error:
            raise ClusterError(
                f"{self._place}: nothing answers there; the head's dashboard listens where `ray start --head "
                "--dashboard-host --dashboard-port` said, 127.0.0.1 and 8265 by default"
            ) from error
        refused = answer.status_code in (requests.codes.unauthorized, requests.codes.forbidden)
        if not refused and "ray_version" not in answer.text:
            raise ClusterError(f"{self._place}: something answers there, but it is no Ray dashboard")
        return answer.status_code

    def submit(self, name: str, arguments: list[str], files: Mapping[str, str], notes: Mapping[str, str]) -> None:
        """Have the cluster run this stkd's command line on its head, in a folder with `files`.

        `arguments` are completed with the address of the cluster, which only the head knows.
        """
        with TemporaryDirectory(prefix="stkd-") as temporary:
            folder, shipped = Path(temporary) / "folder", Path(temporary)
            folder.mkdir()
            for file, text in files.items():
                (folder / file).write_text(text, encoding="utf-8")
            self._client.submit_job(
                submission_id=name,
                entrypoint=f'exec python -m stkd.orchestrator.cli {join(arguments)} --address "$RAY_ADDRESS"',
                runtime_env={
                    "py_modules": [str(build_wheel(shipped))],
                    "working_dir": str(folder),
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
                },
                metadata={f"{OURS}.{key}": value for key, value in notes.items()},
            )

    def all(self) -> list[Job]:
        """Our jobs, the oldest first; others' are left out."""
        found = [_job(details) for details in self._client.list_jobs() if _is_ours(details)]
        return sorted(found, key=lambda job: (job.began is None, job.began, job.name))

    def log(self, name: str) -> str:
        """What the job has printed so far."""
        text: str = self._client.get_job_logs(name)
        return text

    def follow(self, name: str, show: Callable[[str], None]) -> None:
        """Show what the job has printed and prints, until it ends."""
        try:
            asyncio.run(_show_all(self._client.tail_job_logs(name), show))
        except (ClientError, RuntimeError) as error:
            raise ClusterError(
                f"{self._place}: the connection was lost; the job goes on, and `stkd logs -f` shows it again"
            ) from error

    def stop(self, name: str) -> None:
        """Ask a job to stop; whether it has, its status says."""
        self._client.stop_job(name)


async def _show_all(chunks: AsyncIterator[str], show: Callable[[str], None]) -> None:
    async for chunk in chunks:
        show(chunk)


def _is_ours(details: JobDetails) -> bool:
    return any(key.startswith(f"{OURS}.") for key in details.metadata or {})


def _job(details: JobDetails) -> Job:
    return Job(
        details.submission_id,
        details.status.value.lower(),
        {key.removeprefix(f"{OURS}."): value for key, value in details.metadata.items()},
        _time(details.start_time),
        _time(details.end_time),
        details.driver_exit_code,
        details.message or "",
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
