"""What a job is made of: a space that was read and checked here, and the command that runs it on the cluster."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stkd.cluster.jobs import Job
from stkd.search_spaces.reading import space_text
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import UserError

SPACE_FILE = "space.yaml"
SPACE, TASKS, STORAGE, SWEEP = "space", "tasks", "storage", "sweep"
"""What is noted with a job."""


@dataclass(frozen=True)
class Submission:
    """A job to be: its name, the command line of stkd, the files that lie beside it, and what is noted."""

    name: str
    arguments: list[str]
    notes: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


def new_sweep(space: Space) -> Submission:
    """A sweep over this space. The job and the sweep have one name.

    Raises:
        UserError: the space names what a job would not find, or a password.

    """
    _refuse_secrets(space)
    for key, path in _paths(space):
        if not path.startswith("/"):
            raise UserError(
                f"{key} is {path}: a job runs on the cluster and knows no folder of this machine; give the absolute "
                f"path that the cluster's nodes see{', with --storage' if key == 'storage' else ''}"
            )
    name = f"{space.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    return Submission(
        name,
        ["sweep", "--space", SPACE_FILE, "--sweep-id", name],
        {SPACE: space.name, TASKS: ", ".join(space.tasks), STORAGE: space.storage, SWEEP: name},
        {SPACE_FILE: space_text(space)},
    )


def resumed_sweep(sweep_id: str, storage: str | None, known: Sequence[Job]) -> Submission:
    """A sweep that goes on; what is not said is as in the job that had it last. `latest` is the newest of `known`.

    Raises:
        UserError: no job has had the sweep and its storage is not given, or one still runs it.

    """
    jobs = [job for job in known if sweep_id in ("latest", job.notes[SWEEP]) and storage in (None, job.notes[STORAGE])]
    if sweep_id == "latest":
        if not jobs:
            raise UserError(
                "--resume: no job of this cluster has run a sweep; name it, as in --resume SWEEP --storage DIR"
            )
        sweep_id = jobs[-1].notes[SWEEP]
    running = next((job for job in jobs if not job.is_over and job.notes[SWEEP] == sweep_id), None)
    if running is not None:
        raise UserError(
            f"--resume {sweep_id}: job {running.name} still runs it; stkd logs -f {running.name} follows it"
        )
    if storage is None and not jobs:
        raise UserError(f"--resume {sweep_id}: no job of this cluster has run it; say where it lies with --storage")
    notes = {**(jobs[-1].notes if jobs else {SPACE: "", TASKS: ""}), SWEEP: sweep_id}
    notes[STORAGE] = storage or notes[STORAGE]
    arguments = ["sweep", "--resume", sweep_id, "--storage", notes[STORAGE]]
    return Submission(f"{sweep_id}-resumed-{datetime.now(UTC):%H%M%S}", arguments, notes)


def _refuse_secrets(space: Space) -> None:
    uri = space.tracking.uri
    if uri is not None and without_secrets(uri) != uri:
        raise UserError(
            f"tracking.uri is {without_secrets(uri)}: its password would be sent along with the job; leave it out, and "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the head is started"
        )


def _paths(space: Space) -> Iterator[tuple[str, str]]:
    """What of the space can only be a path, by its key."""
    data = space.data
    yield "storage", space.storage
    if data.path is not None and (data.source != "hub" or data.path.startswith((".", "~"))):
        yield "data.path", data.path
    for split, files in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        yield from ((f"data.{split}", file) for file in files)
    for key, model in (("teacher.model", space.teacher.model), ("student.model", space.student.model)):
        if model is not None and model.startswith("."):
            yield key, model
