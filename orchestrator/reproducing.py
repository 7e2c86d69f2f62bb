"""`stkd reproduce`: a student rebuilt from its record, set against it, and shown."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from rich import box
from rich.console import Console
from rich.table import Table

from stkd.orchestrator.preflight import check, check_storage
from stkd.orchestrator.rebuilding import rebuild
from stkd.orchestrator.records import Printed, as_csv, as_json
from stkd.orchestrator.reproduction import Part, Reproduction, file_changes, input_changes, judge
from stkd.orchestrator.runs import Run
from stkd.orchestrator.score_tables import print_line
from stkd.orchestrator.screen import console_for_people
from stkd.orchestrator.tables import percent, print_whole
from stkd.search_spaces.reading import read_space
from stkd.trainers.errors import UserError
from stkd.trainers.sources import load_task

DIFFERENT = 1
UNSCALED = ("loss", "epoch")
"""Metrics that are no scores."""
VERDICTS = {
    "equal to the bit": "reproduced: the student is equal to the bit",
    "within the tolerance": "reproduced: the student is not equal to the bit, but its score is within {tolerance:g}",
    "different": "not reproduced",
}


def run_reproduce(
    run: Run, overrides: Sequence[str], from_scratch: bool, tolerance: float, out: Path | None, printed: Printed | None
) -> int:
    """Rebuild a trial's student and compare; returns the exit code. Raises UserError where it cannot be tried."""
    _refuse_unrecorded(run)
    console = console_for_people(printed is not None)
    found = _reproduced(run, overrides, from_scratch, tolerance, out, console)
    if printed:
        print(as_json(found.as_dict()) if printed == "json" else as_csv(found.as_records()))
    else:
        _print(console, found)
    return DIFFERENT if found.verdict == "different" else 0


def _refuse_unrecorded(run: Run) -> None:
    trial = run.trial
    if not trial.student:
        why = f": it {trial.status}, {trial.reason}" if trial.reason else f": it is {trial.status}"
        raise UserError(f"{run.name} has no student{why}")
    if not run.record(trial.student):
        raise UserError(f"{run.name}: its student {trial.student} is gone from {run.storage.artifacts}")
    if trial.status == "running":
        raise UserError(
            f"{run.name} is still running, or its sweep was stopped; finish it first, `stkd sweep --resume`"
        )


def _reproduced(
    run: Run, overrides: Sequence[str], from_scratch: bool, tolerance: float, out: Path | None, console: Console
) -> Reproduction:
    task = run.results.task
    space = read_space(run.sweep.space, overrides, (task,), str(run.storage.root))
    data = check(space).get(task) or load_task(task, space.data)
    changed = input_changes(run, space, data)
    teacher = None if from_scratch or not run.record(run.stage("teacher")) else run.artifact(run.stage("teacher"))
    if teacher is not None:
        changed += file_changes("the teacher's file", teacher)
    if changed:
        return Reproduction(run, tolerance, inputs=changed)
    print_line(console, f"rebuilding {run.name}: {run.trial.name}")
    with _fresh_folder(run, out) as folder:
        rebuilt = rebuild(run, space, data, folder, teacher, console)
        return judge(run, rebuilt, teacher is not None, tolerance)


@contextmanager
def _fresh_folder(run: Run, out: Path | None) -> Iterator[Path]:
    """An empty folder: the one that was asked for, or one that is gone when the context ends."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out}: already there and not empty; choose another folder")
        check_storage(out, "--out")
        yield out.absolute()
        return
    folder = Path(mkdtemp(prefix=".reproduce-", dir=run.storage.root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _print(console: Console, found: Reproduction) -> None:
    for change in found.inputs:
        print_line(console, f"changed   {change}")
    if found.parts:
        print_line(console, "")
        print_whole(console, _parts_table(found.parts))
        print_whole(console, _metrics_table(found))
    for change in found.surroundings:
        print_line(console, f"changed   {change}")
    if found.inputs:
        print_line(console, "not reproduced: nothing was computed, since what the student follows from has changed")
        return
    why = f": {found.failure}" if found.failure else ""
    print_line(console, VERDICTS[found.verdict].format(tolerance=found.tolerance) + why)


def _parts_table(parts: Sequence[Part]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("part", "recorded", "rebuilt"):
        table.add_column(heading, no_wrap=True)
    for part in parts:
        table.add_row(part.name, part.recorded, part.state)
    return table


def _metrics_table(found: Reproduction) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("of the student", no_wrap=True)
    for heading in ("recorded", "rebuilt", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, (old, new) in found.metrics.items():
        cells = [f"{value:.6g}" if name in UNSCALED else percent(value) for value in (old, new)]
        table.add_row(name, *cells, f"{new - old:+.2g}" if new != old else "0")
    return table
