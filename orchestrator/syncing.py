"""Sends MLflow what it could not be told while a sweep ran."""

from rich.console import Console

from stkd.orchestrator.activity import held
from stkd.orchestrator.claims import holder_of
from stkd.orchestrator.journal_reader import JournalReader
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.tracking import Tracker, default_artifact_location, default_uri, tracking_uri
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import UserError

DAY = 24 * 3600.0


def run_sync(storage: Storage, sweep_id: str | None) -> int:
    """Bring MLflow up to date on one sweep, or on all that do not run; returns the exit code.

    Runs that nobody goes on with are ended there; a resume opens them again.
    """
    console = Console()
    if sweep_id is not None:
        return 0 if _sync(storage, storage.find_sweep(sweep_id), console) else 1
    sent = []
    for sweep in storage.all_sweeps():
        if holder_of(sweep.claim):
            _say(console, f"{sweep.sweep_id}: runs, and sends by itself")
        else:
            sent.append(_sync(storage, sweep, console))
    return 0 if all(sent) else 1


def _sync(storage: Storage, sweep: SweepFolder, console: Console) -> bool:
    space = read_space(sweep.space, storage=str(storage.root))
    uri = tracking_uri(space.tracking.uri, storage.root)
    is_default = uri == default_uri(storage.root)
    with held(sweep):
        _check_store(sweep, uri)
        location = default_artifact_location(storage.root) if is_default else None
        tracker = Tracker(sweep.journal, uri, space.experiment, location)
        for key in tracker.open_runs:
            tracker.end_run(key, "KILLED")
        waiting = tracker.pending
        if not tracker.close(DAY):
            problem = tracker.problem or "it was slow"
            _say(console, f"{sweep.sweep_id}: {tracker.pending:,} records wait for MLflow still ({problem})")
            return False
    told = f"{waiting:,} records sent to {without_secrets(uri)}" if waiting else "nothing to send"
    _say(console, f"{sweep.sweep_id}: {told}")
    return True


def _check_store(sweep: SweepFolder, uri: str) -> None:
    """What was begun in one MLflow is not gone on with in another, which would take none of it."""
    before, now = JournalReader(sweep.journal).store, without_secrets(uri)
    moved = before.startswith("sqlite:") and now.startswith("sqlite:")  # with the storage folder
    if before and before != now and not moved:
        raise UserError(
            f"sweep {sweep.sweep_id} is recorded in MLflow at {before}, and this would send to {now}; "
            "set MLFLOW_TRACKING_URI as it was"
        )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
