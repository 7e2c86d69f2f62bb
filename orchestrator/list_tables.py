"""Lists of sweeps, tasks and trials, as tables for a person. Scores are in percent, times are local."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from stkd.orchestrator.activity import Activity
from stkd.orchestrator.filters import Selection
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.listing import sweep_records, task_records, trial_records
from stkd.orchestrator.records import Printed, Record, machine_text
from stkd.orchestrator.results import SHORT_NAMES
from stkd.orchestrator.tables import clock, percent, print_whole
from stkd.trainers.errors import UserError
from stkd.trainers.tasks import did_you_mean

Cell = Callable[[Record], str]
Columns = Mapping[str, Cell]
"""What stands under each heading. Numbers are set right: those of headings in `TEXTS` are not."""
TEXTS = {"sweep", "started", "state", "tasks", "task", "student", "trial", "phase", "student of", "status"}
SHOWN_TASKS = 2
SHOWN_COLUMNS = {
    *("trial", "task", "phase", "role", "name", "score", "test_score", "epochs", "status"),
    *("milliseconds_per_example", "megabytes", *(f"distillation.{setting}" for setting in SHORT_NAMES)),
}
"""What a list of trials shows anyway; the settings of these names stand in the student's."""


@dataclass(frozen=True)
class Listing:
    """A list, for a person and for machines."""

    title: str
    columns: Columns
    records: Sequence[Record]

    @classmethod
    def of_sweeps(cls, storage: Storage) -> "Listing":
        """All sweeps; raises UserError where there is none."""
        storage.find_sweep()
        return cls(f"sweeps in {storage.root}", SWEEPS, sweep_records(storage))

    @classmethod
    def of_tasks(cls, sweep: SweepFolder) -> "Listing":
        """The tasks of a sweep."""
        activity = Activity.of(sweep)
        why = f": {activity.reason}" if activity.reason else ""
        return cls(f"{sweep.sweep_id}, {activity.state}{why}", TASKS, task_records(sweep))

    @classmethod
    def of_trials(cls, sweep: SweepFolder, task: str | None, selection: Selection) -> "Listing":
        """Some trials of a sweep, or of one of its tasks, with the columns that they were selected by."""
        tasks = sweep.tasks()
        if task is not None and task not in tasks:
            known = f"{did_you_mean(task, tasks)}; it has: {', '.join(tasks)}"
            raise UserError(f"sweep {sweep.sweep_id} has no task {task!r}{known}")
        every = [record for record in trial_records(sweep) if task in (None, record["task"])]
        records, asked = selection.of(every)
        found = f"{len(records)} of {len(every)} trials of {sweep.sweep_id}"
        return cls(found, _trial_columns(len(tasks), asked), records)

    def show(self, printed: Printed | None) -> None:
        """Print it, as a table at its own width or as machines read it."""
        if printed:
            print(machine_text(self.records, printed))
            return
        if not self.records:
            print(self.title)
            return
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in self.columns:
            table.add_column(heading, justify="left" if heading in TEXTS else "right", no_wrap=True)
        for record in self.records:
            table.add_row(*(cell(record) for cell in self.columns.values()))
        print_whole(Console(), table)


def score(column: str) -> Cell:
    """A share of one as a percentage."""
    return lambda record: percent(value) if isinstance(value := record.get(column), float) else ""


def text(column: str) -> Cell:
    """A value as it is, numbers shortened."""

    def cell(record: Record) -> str:
        value = record.get(column)
        return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)

    return cell


def _tasks(record: Record) -> str:
    tasks = record["tasks"]
    assert isinstance(tasks, list), "tasks are names"
    more = f", +{len(tasks) - SHOWN_TASKS}" if len(tasks) > SHOWN_TASKS else ""
    return ", ".join(tasks[:SHOWN_TASKS]) + more


def _started(record: Record) -> str:
    started = record["started"]
    return datetime.fromisoformat(str(started)).astimezone().strftime("%Y-%m-%d %H:%M") if started else ""


def _took(record: Record) -> str:
    seconds = record["seconds"]
    return clock(seconds) if isinstance(seconds, float) and seconds else ""


def _of(done: str) -> Cell:
    return lambda record: f"{record[done]} of {record['planned']}" if record["planned"] else str(record[done])


def _student(record: Record) -> str:
    tasks = record["tasks"]
    several = isinstance(tasks, list) and len(tasks) > 1
    return "(means over tasks)" if several and record["best"] is not None else str(record["student"])


SWEEPS: Columns = {
    "sweep": text("sweep"),
    "started": _started,
    "took": _took,
    "state": text("state"),
    "tasks": _tasks,
    "trials": _of("trials"),
    "best": score("best"),
    "test": score("test"),
    "student": _student,
    "trial": text("trial"),
}
TASKS: Columns = {
    "task": text("task"),
    "searched": _of("searched"),
    "finished": text("finished"),
    "stopped": text("stopped"),
    "failed": text("failed"),
    "running": text("running"),
    "teacher": score("teacher"),
    "best": score("best"),
    "test": score("test"),
    "student": text("student"),
    "trial": text("trial"),
}


def _trial_columns(tasks: int, asked: Sequence[str]) -> Columns:
    """The columns of a list of trials: with the task where there are several, and those that were asked for."""
    shown = {
        "trial": text("trial"),
        **({"task": text("task")} if tasks > 1 else {}),
        "phase": text("phase"),
        "student of": text("name"),
        "score": score("score"),
        "test": score("test_score"),
        "epochs": text("epochs"),
        "ms": text("milliseconds_per_example"),
        "MB": text("megabytes"),
        "status": text("status"),
    }
    return {**shown, **{column.rpartition(".")[2]: text(column) for column in asked if column not in SHOWN_COLUMNS}}
