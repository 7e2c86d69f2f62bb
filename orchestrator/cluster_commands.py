"""Commands that a cluster is sent from afar: a sweep as a job, and what becomes of it."""

from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import click

from stkd.orchestrator.options import debug_option, names, one_of_space_and_resume, sweep_options
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import UserError
from stkd.trainers.tasks import did_you_mean

if TYPE_CHECKING:
    from stkd.cluster.jobs import Job, Jobs

REFUSED = 2
"""What a command ends with that its user has to change."""
INTERRUPTED = 130
LOOK_SECONDS = 1.0
SPARE_SECONDS = 30.0
"""Beyond what a job is given to stop, for Ray to say that it has."""
LAST_LINES = 10

dashboard_option = click.option(
    "--address",
    required=True,
    envvar="RAY_API_SERVER_ADDRESS",
    show_envvar=True,
    metavar="URL",
    help="Where the head's dashboard answers, as in http://10.0.0.1:8265.",
)
job_argument = click.argument("job", required=False, metavar="[JOB]")


@click.command()
@sweep_options
@dashboard_option
@click.option("--detach", is_flag=True, help="Do not follow the log.")
@debug_option
def submit(
    space: Path | None,
    overrides: tuple[str, ...],
    tasks: str,
    resume: str | None,
    storage: str | None,
    address: str,
    detach: bool,
) -> int:
    """Run a sweep as a job of a Ray cluster, from any machine, and follow its log.

    The job goes on when this command ends, whatever ends it. Folders are those that the cluster's nodes see.

    \b
      stkd submit --address http://10.0.0.1:8265 --space glue --storage /shared/stkd
      stkd submit --address http://10.0.0.1:8265 --resume
    """  # noqa: D301 - click's mark of lines that stay as they are
    chosen = one_of_space_and_resume(space, overrides, tasks, resume)
    from stkd.cluster.jobs import Jobs  # loads Ray
    from stkd.orchestrator.submission import new_sweep, resumed_sweep
    from stkd.search_spaces.reading import read_space

    if resume is not None:
        jobs = Jobs(address)
        submission = resumed_sweep(resume, storage, jobs.all())
    else:
        submission = new_sweep(read_space(chosen, overrides, names(tasks), storage))
        jobs = Jobs(address)
    jobs.submit(submission.name, submission.arguments, submission.files, submission.notes)
    click.echo(f"job {submission.name} is submitted")
    if detach:
        click.echo(f"next: stkd logs -f {_at(jobs)} {submission.name}")
        return 0
    return _follow(jobs, submission.name)


@click.command()
@job_argument
@dashboard_option
@debug_option
def status(job: str | None, address: str) -> None:
    """Show the jobs of a cluster, or one of them."""
    from stkd.cluster.jobs import Jobs
    from stkd.orchestrator.job_lines import details, job_lines

    jobs, now = Jobs(address), datetime.now(UTC)
    if job is not None:
        found = _find(jobs, job)
        lines = details(found, jobs.log(found.name).splitlines()[-LAST_LINES:], now)
    else:
        known = jobs.all()
        lines = job_lines(known, now) if known else ["no jobs of stkd; stkd submit makes one"]
    click.echo("\n".join(lines))


@click.command()
@job_argument
@dashboard_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, or Ctrl-C.")
@debug_option
def logs(job: str | None, address: str, follow: bool) -> int:
    """Show what a job has printed; the newest one's, unless it is named."""
    from stkd.cluster.jobs import Jobs

    jobs = Jobs(address)
    name = _find(jobs, job).name
    if follow:
        return _follow(jobs, name)
    click.echo(without_secrets(jobs.log(name)), nl=False)
    return 0


@click.command()
@job_argument
@dashboard_option
@debug_option
def stop(job: str | None, address: str) -> int:
    """Stop a job as Ctrl-C would: what is finished is kept, and --resume goes on from there."""
    from stkd.cluster.jobs import STOP_SECONDS, Jobs

    jobs = Jobs(address)
    found = _find(jobs, job)
    if found.is_over:
        click.echo(f"job {found.name} is over: it has {found.status}")
        return 0
    jobs.stop(found.name)
    click.echo(f"stopping {found.name}; it may take a while to send MLflow what it has")
    deadline = monotonic() + STOP_SECONDS + SPARE_SECONDS
    while not found.is_over and monotonic() < deadline:
        sleep(LOOK_SECONDS)
        found = _find(jobs, found.name)
    code = _say_end(jobs, found)
    return 0 if found.is_over else code


def _follow(jobs: "Jobs", name: str) -> int:
    """Shows a job's log until it ends; returns its exit code, or that of Ctrl-C."""
    try:
        jobs.follow(name, lambda text: click.echo(without_secrets(text), nl=False))
    except KeyboardInterrupt:
        again = f"stkd logs -f {_at(jobs)} {name}"
        click.echo(f"\nthe job goes on without you. See it again: {again}. End it: stkd stop {_at(jobs)} {name}")
        return INTERRUPTED
    return _say_end(jobs, _ended(jobs, name))


def _ended(jobs: "Jobs", name: str) -> "Job":
    """The job when Ray knows that it has ended, which is a moment after its last line."""
    found = _find(jobs, name)
    deadline = monotonic() + SPARE_SECONDS
    while not found.is_over and monotonic() < deadline:
        sleep(LOOK_SECONDS)
        found = _find(jobs, name)
    return found


def _say_end(jobs: "Jobs", job: "Job") -> int:
    match job.status:
        case "succeeded":
            click.echo(f"job {job.name} has succeeded; results in {job.notes['storage']}")
            return 0
        case "stopped":
            click.echo(f"job {job.name} was stopped. Continue with: stkd submit {_at(jobs)} {_resuming(job)}")
            return INTERRUPTED
        case "failed" if job.exit_code == REFUSED:
            click.echo(f"job {job.name} was refused, as its log says", err=True)
            return REFUSED
        case "failed":
            click.echo(f"job {job.name} has failed. Continue with: stkd submit {_at(jobs)} {_resuming(job)}", err=True)
            return job.exit_code or 1
    click.echo(f"job {job.name} is still {job.status}", err=True)
    return 1


def _resuming(job: "Job") -> str:
    return f"--resume {job.notes['sweep']} --storage {job.notes['storage']}"


def _at(jobs: "Jobs") -> str:
    return f"--address {without_secrets(jobs.address)}"


def _find(jobs: "Jobs", name: str | None) -> "Job":
    known = jobs.all()
    if not known:
        raise UserError(f"there is no job of stkd at {without_secrets(jobs.address)}; stkd submit makes one")
    if name is None:
        return known[-1]
    found = next((job for job in known if job.name == name), None)
    if found is None:
        every = [job.name for job in known]
        raise UserError(
            f"there is no job {name!r}{did_you_mean(name, every)}; the newest are: {', '.join(every[:-6:-1])}"
        )
    return found
