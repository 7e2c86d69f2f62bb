"""Reads a task's training and validation examples from one of three sources, and checks every row.

`glue_dir` is a folder of the official GLUE tsv files, `hub` the data set `nyu-mll/glue` (or a folder with its Parquet
files), `generated` the task that stkd makes itself. Test splits are not read: their labels are not public.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stkd.trainers import generated
from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples
from stkd.trainers.splits import three_splits
from stkd.trainers.tasks import HubLayout, Task, TsvLayout, did_you_mean, find_task

__all__ = ["SOURCES", "Examples", "Source", "TaskData", "load_task"]

HUB_DATA_SET = "nyu-mll/glue"


@dataclass(frozen=True)
class TaskData:
    """A task with its checked examples. `fingerprint` is 16 hex digits over the task's name and all contents."""

    task: Task
    train: Examples
    validation: Examples
    test: Examples
    fingerprint: str


Source = Callable[[Task, DataConfig], tuple[Examples, Examples, Examples | None]]
"""Gives the training, validation and, where there is one, test examples of a task, or raises UserError."""


def load_task(name: str, config: DataConfig) -> TaskData:
    """Read a task's examples from the source that `config` names.

    Raises:
        UserError: the task or its files do not exist, or a row is not what the task says it should be.

    """
    task = find_task(name)
    try:
        found = SOURCES[config.source](task, config)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    splits = three_splits(*found, config)
    fingerprint = _fingerprint(name, splits.train, splits.validation, splits.test)
    return TaskData(task, splits.train, splits.validation, splits.test, fingerprint)


def _fingerprint(name: str, *splits: Examples) -> str:
    content = [name] + [[split.texts, split.pairs, split.labels] for split in splits]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


# The three sources


def _from_generated(task: Task, config: DataConfig) -> tuple[Examples, Examples, Examples | None]:
    if task.name != generated.NAME:
        raise UserError(f"data.source 'generated' makes the task {generated.NAME!r} only, not {task.name!r}")
    return generated.generate(seed=config.seed)


def _from_glue_dir(task: Task, config: DataConfig) -> tuple[Examples, Examples, Examples | None]:
    if task.tsv is None:
        raise _not_in_source(task, config)
    if not config.path:
        raise UserError(f"data.path is not set: data.source 'glue_dir' needs the folder that holds {task.tsv.folder}/")
    folder = _existing(Path(config.path).expanduser() / task.tsv.folder)
    train = _read_tsv(_existing(folder / "train.tsv"), task.tsv)
    validation = _read_tsv(_existing(folder / task.tsv.validation), task.tsv)
    return _check(task, task.tsv.labels, train, validation)


def _from_hub(task: Task, config: DataConfig) -> tuple[Examples, Examples, Examples | None]:
    if task.hub is None:
        raise _not_in_source(task, config)
    name = config.path or HUB_DATA_SET
    folder = Path(name).expanduser()
    if folder.is_dir() or _looks_local(name):
        read = _parquet_reader(task, folder, task.hub)
    else:
        read = _hub_reader(name, task.hub)
    return _check(task, tuple(range(len(task.class_names))), read("train"), read(task.hub.validation))


def _not_in_source(task: Task, config: DataConfig) -> UserError:
    return UserError(f"task {task.name!r} is not in data.source {config.source!r}; set data.source to 'generated'")


SOURCES: dict[str, Source] = {"glue_dir": _from_glue_dir, "hub": _from_hub, "generated": _from_generated}
"""Every source by the name that `data.source` has for it."""


# From files to rows


@dataclass(frozen=True)
class Rows:
    """One split as it was found, unchecked, and what it takes to point at one of its rows."""

    place: str
    """The file or the data set."""
    unit: str
    """What `numbers` count: `line` or `row`."""
    numbers: Sequence[int]
    texts: tuple[list[Any], ...]
    """One list for each text column."""
    labels: list[Any]

    def where(self, index: int) -> str:
        """Return where the row lies, for a message."""
        return f"{self.place}, {self.unit} {self.numbers[index]}"


def _read_tsv(path: Path, layout: TsvLayout) -> Rows:
    """Read a file line by line: GLUE's files know no quoting, so that a tab or a line feed always separates."""
    lines = list(enumerate(_read_lines(path), start=1))
    if layout.header:
        header, body = list(layout.header), lines
    else:
        header, body = lines[0][1].split("\t"), lines[1:]
    columns = [_position(name, header, f"{path}, line 1") for name in (layout.label, *layout.texts)]
    numbers, rows = [], []
    for number, line in body:
        row = line.split("\t")
        if layout.torn_rows and len(row) < len(header):
            continue
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} columns, not {len(header)}, in {_short(line)}")
        numbers.append(number)
        rows.append(row)
    labels, *texts = ([row[column] for row in rows] for column in columns)
    return Rows(str(path), "line", numbers, tuple(texts), labels)


def _read_lines(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        byte = f"0x{content[error.start]:02x}"
        raise UserError(f"{path}, line {number}: byte {byte} is not UTF-8; save the file as UTF-8") from error
    text = text.removeprefix("\ufeff").rstrip("\r\n")
    if not text:
        raise UserError(f"{path} is empty")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _parquet_reader(task: Task, folder: Path, layout: HubLayout) -> Callable[[str], Rows]:
    if task.tsv is not None and (folder / task.tsv.folder / "train.tsv").exists():
        raise UserError(f"data.path {str(folder)!r} holds GLUE's tsv files: set data.source to 'glue_dir', not 'hub'")
    folder = _existing(folder / layout.config)

    def read(split: str) -> Rows:
        import pyarrow.parquet

        files = sorted(folder.glob(f"{split}-*.parquet")) or [_existing(folder / f"{split}.parquet")]
        place = str(files[0]) if len(files) == 1 else f"{folder}/{split}-*.parquet"
        try:
            table = pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])
        except (OSError, ValueError) as error:
            raise UserError(f"{place} cannot be read as Parquet: {_first_line(error)}") from error
        return _table_rows(place, layout, table.column_names, lambda name: table.column(name).to_pylist())

    return read


def _hub_reader(name: str, layout: HubLayout) -> Callable[[str], Rows]:
    import datasets

    try:
        splits = datasets.load_dataset(name, layout.config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data set {name!r} ({layout.config}) cannot be loaded: {_first_line(error)}; check data.path and the "
            "network, or set data.source to 'glue_dir'"
        ) from error

    def read(split: str) -> Rows:
        if split not in splits:
            raise UserError(f"data set {name!r} ({layout.config}) has no split {split!r}; it has {', '.join(splits)}")
        table = splits[split]
        place = f"{name} {layout.config} {split}"
        return _table_rows(place, layout, table.column_names, lambda column: list(table[column]))

    return read


def _table_rows(place: str, layout: HubLayout, header: list[str], column: Callable[[str], list[Any]]) -> Rows:
    for name in ("label", *layout.texts):
        _position(name, header, place)
    labels = column("label")
    return Rows(place, "row", range(1, len(labels) + 1), tuple(column(name) for name in layout.texts), labels)


def _position(name: str, header: list[str], where: str) -> int:
    if name not in header:
        raise UserError(
            f"{where}: no column {name!r}{did_you_mean(name, header)}; the columns are {_short(', '.join(header), 200)}"
        )
    return header.index(name)


def _existing(path: Path) -> Path:
    """Return the path; if it does not exist, say which part of it does not, and what is there instead."""
    if path.exists():
        return path
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    if not missing.parent.is_dir():
        raise UserError(f"{missing.parent} is a file, not a folder: there is no {path}")
    names = sorted(entry.name for entry in missing.parent.iterdir())
    hint = did_you_mean(missing.name, names) or f"; {missing.parent} holds {_short(', '.join(names) or 'nothing', 120)}"
    raise UserError(f"{path} does not exist: there is no {missing.name!r} in {str(missing.parent)!r}{hint}")


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _short(text: str, width: int = 80) -> str:
    """Return the text as a quoted literal of one line, cut to about `width` characters."""
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# From rows to examples


def _check(
    task: Task, known: tuple[Any, ...], train: Rows, validation: Rows
) -> tuple[Examples, Examples, Examples | None]:
    """Return both splits as examples. `known` are the labels as the source spells them, in class order."""
    examples = _examples(task, known, train)
    for number, (label, class_name) in enumerate(zip(known, task.class_names, strict=True)):
        if number not in examples.labels:
            raise UserError(f"{train.place}: no example has the label {label!r} ({class_name}); training needs some")
    return examples, _examples(task, known, validation), None


def _examples(task: Task, known: tuple[Any, ...], rows: Rows) -> Examples:
    if not rows.labels:
        raise UserError(f"{rows.place} has no examples")
    for texts in rows.texts:
        _check_texts(texts, rows, task.empty_texts)
    pairs = rows.texts[1] if len(rows.texts) == 2 else None
    if task.bounds is None:
        return Examples(rows.texts[0], pairs, [_class(task, known, rows, index) for index in range(len(rows.labels))])
    return Examples(rows.texts[0], pairs, [_score(task.bounds, rows, index) for index in range(len(rows.labels))])


def _check_texts(texts: list[Any], rows: Rows, empty_allowed: bool) -> None:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{rows.where(index)}: {text!r} stands where a text must be")
        if not text.strip() and not empty_allowed:
            raise UserError(f"{rows.where(index)}: the text is empty ({text!r}); give it words, or leave the row out")


def _class(task: Task, known: tuple[Any, ...], rows: Rows, index: int) -> int:
    if rows.labels[index] in known:
        return known.index(rows.labels[index])
    names = zip(known, task.class_names, strict=True)
    right = ", ".join(repr(label) if label == name else f"{label!r} ({name})" for label, name in names)
    raise _bad_label(rows, index, f"one of {right}")


def _score(bounds: tuple[float, float], rows: Rows, index: int) -> float:
    low, high = bounds
    try:
        score = float(rows.labels[index])
    except (TypeError, ValueError):
        score = float("nan")
    if not low <= score <= high:
        raise _bad_label(rows, index, f"a number from {low:g} to {high:g}")
    return score


def _bad_label(rows: Rows, index: int, right: str) -> UserError:
    label = rows.labels[index]
    if label in (None, "", -1):
        found = f"there is no label ({label!r})"
    else:
        found = f"the label is {_short(label) if isinstance(label, str) else repr(label)}"
    return UserError(f"{rows.where(index)}: {found}, but must be {right}")
