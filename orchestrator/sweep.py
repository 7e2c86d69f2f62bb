"""A sweep from its first stage to the table at its end; started afresh, or resumed."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from rich.console import Console

from stkd.cluster.cluster import Cluster
from stkd.cluster.errors import ClusterError
from stkd.orchestrator.activity import Activity, keep_ending, running
from stkd.orchestrator.admission import admit
from stkd.orchestrator.artifacts import ArtifactStore
from stkd.orchestrator.budgeting import nearest_miss, within_budget
from stkd.orchestrator.cost_book import CostBook
from stkd.orchestrator.endings import INTERRUPTED
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import read_results
from stkd.orchestrator.screen import Screen
from stkd.orchestrator.session import hide_secrets_of_the_command, quiet_libraries, sigterm_as_ctrl_c
from stkd.orchestrator.tables import print_results
from stkd.orchestrator.task_sweep import TaskSweep
from stkd.orchestrator.tracking import Tracker, default_artifact_location, default_uri, tracking_uri
from stkd.search_spaces.reading import space_text
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import NothingFitsError
from stkd.trainers.patience import StorageError
from stkd.trainers.sources import TaskData, load_task
from stkd.trainers.tasks import find_task

TRACKING_SECONDS, REFUSED_SECONDS = 120.0, 10.0
"""How long the end of a sweep waits for MLflow to take what is still to be sent; and where storage refuses writes."""


def run_sweep(
    space: Space, prepared: Mapping[str, TaskData], address: str | None, screen: Screen, sweep_id: str | None = None
) -> int:
    """Run a new sweep, on this machine or on the cluster at `address`; returns the exit code.

    `prepared` holds the data of the tasks that were read already; a sweep without an id gets one of its own.
    """
    storage = Storage(space.storage_folder)
    space, found = _within_budget(space, prepared, storage, screen.console)
    sweep = storage.new_sweep(space.name, sweep_id)
    if found:
        sweep.budget.write_text("\n".join(found), encoding="utf-8")
    sweep.space.touch(mode=0o600)  # a tracking URI may hold a password
    sweep.space.write_text(space_text(from_anywhere(space)), encoding="utf-8")
    try:
        return _run(space, storage, sweep, prepared, screen, Cluster(address))
    except ClusterError:  # it was not even begun
        rmtree(sweep.root)
        raise


def _within_budget(
    space: Space, prepared: Mapping[str, TaskData], storage: Storage, console: Console
) -> tuple[Space, list[str]]:
    """The space without the students that are over its budget, measured while nothing else runs; and what was found."""
    found: list[str] = []
    if space.budget is None:
        return space, found
    tasks = [prepared[name].task if name in prepared else find_task(name) for name in space.tasks]
    widest = max(task.outputs for task in tasks)
    with console.status("measuring what untrained students cost"):
        space = within_budget(space, widest, CostBook(ArtifactStore(storage.artifacts)), found.append)
    for line in found:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return space, found


def from_anywhere(space: Space) -> Space:
    """The space with its relative paths made absolute, so that a resume may start in another folder."""
    data, teacher, student = space.data, space.teacher, space.student
    files = {"train": data.train, "validation": data.validation, "test": data.test}
    absolute = {split: tuple(_absolute(path) for path in paths) for split, paths in files.items()}
    if data.path is not None and Path(data.path).exists():
        data = data.model_copy(update={"path": _absolute(data.path)})
    if Path(teacher.model).is_dir():
        teacher = teacher.model_copy(update={"model": _absolute(teacher.model)})
    if student.model is not None and Path(student.model).is_dir():
        student = student.model_copy(update={"model": _absolute(student.model)})
    return space.model_copy(update={"data": data.model_copy(update=absolute), "teacher": teacher, "student": student})


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def resume_sweep(
    space: Space, prepared: Mapping[str, TaskData], address: str | None, screen: Screen, sweep_id: str
) -> int:
    """Continue a sweep where it stopped; trials that ended are not run again. Returns the exit code."""
    storage = Storage(space.storage_folder)
    return _run(space, storage, storage.find_sweep(sweep_id), prepared, screen, Cluster(address))


def _run(
    space: Space,
    storage: Storage,
    sweep: SweepFolder,
    prepared: Mapping[str, TaskData],
    screen: Screen,
    cluster: Cluster,
) -> int:
    uri = tracking_uri(space.tracking.uri, storage.root)
    location = default_artifact_location(storage.root) if uri == default_uri(storage.root) else None
    screen.console.print(f"sweep {sweep.sweep_id}, in {storage.root}", highlight=False, soft_wrap=True)
    if screen.lines is not None:
        screen.lines.keep(sweep=sweep.sweep_id, results=str(sweep.root))
        screen.lines.write("sweep_started", sweep=sweep.sweep_id, results=str(sweep.root), tasks=space.tasks)
    finished, problem = False, ""
    with (
        running(sweep),
        quiet_libraries(sweep.log),
        Tracker(sweep.journal, uri, space.experiment, location, sweep.log) as tracker,
    ):
        ArtifactStore(storage.artifacts).tidy()
        try:
            finished = _run_tasks(space, storage, sweep, tracker, screen, prepared, cluster)
        except KeyboardInterrupt:
            screen.console.print("stopping", highlight=False)
        except StorageError as refused:
            problem = str(refused)
        if finished:
            _report(storage, sweep, tracker, space.tasks, screen.errors)
        if not tracker.close(REFUSED_SECONDS if problem else TRACKING_SECONDS):
            why = tracker.problem or "it was slow"
            where = "" if space.storage == "./stkd-runs" else f" --storage {space.storage}"
            waiting = f"{tracker.pending:,} records wait for MLflow ({why})"
            sending = f"{waiting}; send them with: stkd sync {sweep.sweep_id}{where}"
            screen.errors.print(sending, markup=False, soft_wrap=True)
        with suppress(StorageError):
            keep_ending(sweep, "finished" if finished else "stopped", problem)
    _print_end(screen.results, space, storage, sweep, without_secrets(uri), finished, cluster)
    if screen.lines is not None:
        screen.lines.keep(best=best_students(storage, sweep), **_places(storage, sweep, without_secrets(uri)))
    if problem:
        raise StorageError(f"stopped, since storage refuses writes: {problem}; mend that, then --resume as said above")
    if not finished:
        return INTERRUPTED
    missed = [miss for results in read_results(sweep).values() if (miss := nearest_miss(results))]
    if missed:
        raise NothingFitsError("; ".join(missed))
    return 0


def _run_tasks(
    space: Space,
    storage: Storage,
    sweep: SweepFolder,
    tracker: Tracker,
    screen: Screen,
    prepared: Mapping[str, TaskData],
    cluster: Cluster,
) -> bool:
    """One task after another; returns whether all came to their end."""
    hide_secrets_of_the_command()
    with cluster, sigterm_as_ctrl_c():
        admit(space, cluster, tracker.uri)
        for task in space.tasks:
            data = prepared.get(task) or load_task(task, space.data)
            if not TaskSweep(space, storage, sweep, tracker, screen, data, cluster).run():
                return False
    return True


def best_students(storage: Storage, sweep: SweepFolder) -> dict[str, object]:
    """The chosen student of each task that has one: what it is, where it lies, and its scores, in 0..1."""
    chosen = {task: (chosen_trial(results), results) for task, results in read_results(sweep).items()}
    return {
        task: {
            "name": trial.name,
            "trial": trial.trial,
            "values": trial.values,
            "student": str(storage.artifacts / trial.student),
            "score": trial.score,
            "test_score": results.tests[trial.student].score if trial.student in results.tests else None,
        }
        for task, (trial, results) in chosen.items()
        if trial is not None
    }


def _places(storage: Storage, sweep: SweepFolder, uri: str) -> dict[str, object]:
    report = str(sweep.report) if sweep.report.is_file() else None
    return {"report": report, "artifacts": str(storage.artifacts), "mlflow": uri}


def _report(storage: Storage, sweep: SweepFolder, tracker: Tracker, tasks: Sequence[str], console: Console) -> None:
    """Write the sweep's page, and put it with the run of each task; where that fails, the sweep ends without."""
    try:
        from stkd.orchestrator.report import write_report  # loads matplotlib

        write_report(storage, sweep, sweep.report, Activity("finished"))
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # matplotlib has no class of its own
        console.print(f"no report: {error}", markup=False, highlight=False, soft_wrap=True)
        return
    for task in tasks:
        tracker.log_file(f"{sweep.sweep_id}/{task}", sweep.report, "")


def _print_end(
    console: Console, space: Space, storage: Storage, sweep: SweepFolder, uri: str, finished: bool, cluster: Cluster
) -> None:
    for results in read_results(sweep).values():
        print_results(console, space, results)
    console.print()
    where = "" if space.storage == "./stkd-runs" else f" --storage {space.storage}"
    lines = [f"report    {sweep.report}"] if finished and sweep.report.is_file() else []
    lines += [f"results   {sweep.root}", f"artifacts {storage.artifacts}", f"MLflow    {uri}"]
    if finished:
        lines += [f"next      stkd ui{where}", f"          stkd pick{where}"]
    else:
        where += f" --address {cluster.address}" if cluster.address else ""
        lines += [f"stopped; everything finished is kept. Continue with: stkd sweep{where} --resume {sweep.sweep_id}"]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()
