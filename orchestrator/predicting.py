"""Scores a file of any length with a student, holding a window of it at a time."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stkd.orchestrator.handed_over import reads_pairs
from stkd.orchestrator.tracking import registry_of
from stkd.search_spaces.reading import read_space
from stkd.trainers.errors import UserError
from stkd.trainers.form_names import Device, Form
from stkd.trainers.rows import Rows, check_texts, existing
from stkd.trainers.table_writers import Write, format_of, table_writer, text_writer
from stkd.trainers.tables import Layout, read_windows

WINDOW = 4096
"""Rows that are held, and sorted by length, at a time."""
SPACE, DESCRIPTION = "space.yaml", "MLmodel"
REGISTERED, TEXT, PAIR = "models:", "text", "text_pair"


@dataclass(frozen=True)
class Runner:
    """How a student is run."""

    form: Form
    device: Device
    threads: int | None


def run_predict(model: str, source: Path, target: Path | None, layout: Layout, runner: Runner, storage: Path) -> None:
    """Write an answer for every row of a file, in their order; without a target, as CSV to the screen.

    The whole file is checked before the first row is answered.

    Raises:
        UserError: the model or the file cannot be read, a row is not what it should be, or `target` is there already.

    """
    if existing(source).is_dir():
        raise UserError(f"--input {source}: this is a folder; give a file")
    form = "csv" if target is None else format_of(target)
    if target is not None and target.exists():
        raise UserError(f"--output {target} is already there; choose another name, or remove it")
    with _folder(model, storage) as folder:
        layout = _with_columns(layout, folder, model)
        rows = sum(_checked(window) for window in read_windows(source, layout, WINDOW))
        from stkd.trainers.predicting import Predictor  # loads torch

        predictor, begun = Predictor(folder, runner.form, runner.device, runner.threads), monotonic()
        with _writer(target, form) as write, _progress(rows) as advance:
            for window in read_windows(source, layout, WINDOW):
                write({window.unit: list(window.numbers)} | predictor.table(window.texts))
                advance(len(window.numbers))
    if target is not None:
        pace = f"{rows / (monotonic() - begun):,.0f} rows a second"
        print(f"{target}: {rows:,} rows, {pace}", file=sys.stderr)


def _checked(window: Rows) -> int:
    check_texts(window)
    return len(window.numbers)


@contextmanager
def _folder(model: str, storage: Path) -> Iterator[Path]:
    """The student's folder; a registered one is fetched, and gone when the context ends."""
    if model.startswith(REGISTERED):
        with TemporaryDirectory() as fetched:
            yield registry_of(None, storage.expanduser().absolute()).fetch(model, Path(fetched))
        return
    folder = existing(Path(model).expanduser())
    if not (folder / "config.json").is_file():
        raise UserError(f"--model {model}: no student; give a folder that `stkd export` wrote, or models:/NAME@ALIAS")
    yield folder


def _with_columns(layout: Layout, folder: Path, model: str) -> Layout:
    """The layout with the columns that were not named: as in training, where the folder tells, or the usual ones."""
    known = _known_columns(folder)
    if known is not None and PAIR in layout.columns and PAIR not in known:
        raise UserError(f"--text-pair: {model} reads single texts; leave it out")
    return replace(layout, columns={**(known or {TEXT: TEXT}), **layout.columns})


def _known_columns(folder: Path) -> dict[str, str] | None:
    """The columns of texts that a student was trained on, by their settings; None where its folder does not tell."""
    if (folder / SPACE).is_file():
        space = read_space(folder / SPACE)
        pair = {PAIR: space.data.text_pair or PAIR} if reads_pairs(space, space.tasks[0]) else {}
        return {TEXT: space.data.text, **pair}
    description = folder.parent / DESCRIPTION
    if description.is_file():
        inputs = yaml.safe_load(description.read_text(encoding="utf-8"))["signature"]["inputs"]
        pairs = any(column.get("name") == PAIR for column in json.loads(inputs))
        return {TEXT: TEXT} | ({PAIR: PAIR} if pairs else {})
    return None


@contextmanager
def _writer(target: Path | None, form: str) -> Iterator[Write]:
    """Writes beside `target`, which is there when all is done; what was interrupted stays beside."""
    if target is None:
        try:
            yield text_writer(sys.stdout, form)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read it has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    part = target.with_name(f"{target.name}.part")
    try:
        with table_writer(part, form, packed=target.suffix == ".gz") as write:
            yield write
    except KeyboardInterrupt:
        print(f"stopped; the rows that are done are in {part}", file=sys.stderr)
        raise
    except OSError as error:
        raise UserError(f"--output {target} cannot be written: {error.strerror or error}") from error
    part.rename(target)


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=rows)
        yield lambda done: progress.advance(bar, done)
