"""Jobs as lines."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from stkd.cluster.jobs import Job
from stkd.search_spaces.values import without_secrets

HEADINGS = ("job", "status", "began", "took", "tasks", "storage")


def job_lines(jobs: Sequence[Job], now: datetime) -> list[str]:
    """A line for each job, the newest last, below their headings."""
    rows = [HEADINGS, *(_row(job, now) for job in jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(job: Job, now: datetime) -> tuple[str, ...]:
    began = f"{job.began.astimezone():%Y-%m-%d %H:%M}" if job.began else ""
    return job.name, job.status, began, _took(job, now), job.notes["tasks"], job.notes["storage"]


def details(job: Job, last_lines: Iterable[str], now: datetime) -> list[str]:
    """All that is known of a job, and the end of its log."""
    known = {"job": job.name, "status": job.status, "took": _took(job, now), **job.notes}
    if job.exit_code is not None:
        known["exit code"] = str(job.exit_code)
    lines = [f"{name:<9} {value}" for name, value in known.items()]
    return lines + [f"  {without_secrets(line)}" for line in last_lines]


def _took(job: Job, now: datetime) -> str:
    if job.began is None:
        return ""
    minutes, seconds = divmod(round(((job.ended or now) - job.began).total_seconds()), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
