"""Reads the tasks that stkd knows, from official tsv files, the hub, or what the library `datasets` wrote to disk.

Only the training and the validation split are read: labels of GLUE's test splits are not public.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples, Splits
from stkd.trainers.rows import Rows, at, check_texts, decode, existing, first_line, position, shown
from stkd.trainers.tasks import TASKS, HubLayout, Task, TsvLayout, find_task

HUB_DATA_SET = "nyu-mll/glue"

SplitReader = Callable[[str], Rows]
"""Gives a split by its name."""


def from_glue_dir(name: str, config: DataConfig) -> tuple[Task, Splits]:
    """Read a folder of the official GLUE tsv files; a file of test examples is left alone."""
    task = find_task(name)
    if task.tsv is None:
        raise _not_in_source(task, config)
    if not config.path:
        raise UserError(f"data.path is not set: data.source 'glue_dir' needs the folder that holds {task.tsv.folder}/")
    folder = existing(Path(config.path).expanduser() / task.tsv.folder)
    train = _read_tsv(existing(folder / "train.tsv"), task.tsv)
    validation = _read_tsv(existing(folder / task.tsv.validation), task.tsv)
    return task, _check(task, task.tsv.labels, train, validation)


def from_hub(name: str, config: DataConfig) -> tuple[Task, Splits]:
    """Read the data set `nyu-mll/glue`, or a folder with its Parquet files."""
    task = find_task(name)
    if task.hub is None:
        raise _not_in_source(task, config)
    data_set = config.path or HUB_DATA_SET
    folder = Path(data_set).expanduser()
    if folder.is_dir() or _looks_local(data_set):
        return _check_hub(task, task.hub, _parquet_reader(task, folder, task.hub))
    return _check_hub(task, task.hub, _hub_reader(data_set, task.hub))


def from_datasets_dir(name: str, config: DataConfig) -> tuple[Task, Splits]:
    """Read what `save_to_disk` of the library `datasets` wrote."""
    task = find_task(name)
    if task.hub is None:
        raise _not_in_source(task, config)
    if not config.path:
        raise UserError("data.path is not set: data.source 'datasets_dir' needs the folder that save_to_disk wrote")
    folder = _saved_folder(Path(config.path).expanduser(), task.hub)
    return _check_hub(task, task.hub, _saved_reader(task, folder, task.hub))


def _not_in_source(task: Task, config: DataConfig) -> UserError:
    return UserError(f"task {task.name!r} is not in data.source {config.source!r}; set data.source to 'generated'")


# From files to rows


def _read_tsv(path: Path, layout: TsvLayout) -> Rows:
    """Read a file line by line: GLUE's files know no quoting, so that a tab or a line feed always separates."""
    lines = list(enumerate(_read_lines(path), start=1))
    if layout.header:
        header, body = list(layout.header), lines
    else:
        header, body = lines[0][1].split("\t"), lines[1:]
    columns = [position(name, header, f"{path}, line 1") for name in (layout.label, *layout.texts)]
    numbers, rows = [], []
    for number, line in body:
        row = line.split("\t")
        if layout.torn_rows and len(row) < len(header):
            continue
        if len(row) != len(header):
            where = at(str(path), "line", [number])
            raise UserError(f"{where}: {len(row)} columns, not {len(header)}, in {shown(line)}")
        numbers.append(number)
        rows.append(row)
    labels, *texts = ([row[column] for row in rows] for column in columns)
    return Rows(str(path), "line", numbers, tuple(texts), labels)


def _read_lines(path: Path) -> list[str]:
    text = decode(path, path.read_bytes(), "utf-8", "save the file as UTF-8").rstrip("\r\n")
    if not text:
        raise UserError(f"{path} is empty")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _parquet_reader(task: Task, folder: Path, layout: HubLayout) -> SplitReader:
    if task.tsv is not None and (folder / task.tsv.folder / "train.tsv").exists():
        raise UserError(f"data.path {str(folder)!r} holds GLUE's tsv files: set data.source to 'glue_dir', not 'hub'")
    folder = existing(folder / layout.config)
    if _holds_saved_splits(folder):
        raise UserError(f"{folder} was written by save_to_disk: set data.source to 'datasets_dir', not 'hub'")

    def read(split: str) -> Rows:
        import pyarrow.parquet

        files = sorted(folder.glob(f"{split}-*.parquet")) or [existing(folder / f"{split}.parquet")]
        place = str(files[0]) if len(files) == 1 else f"{folder}/{split}-*.parquet"
        try:
            table = pyarrow.concat_tables([pyarrow.parquet.read_table(file) for file in files])
        except (OSError, ValueError) as error:
            raise UserError(f"{place} cannot be read as Parquet: {first_line(error)}") from error
        return _table_rows(place, layout, table.column_names, lambda name: table.column(name).to_pylist())

    return read


def _hub_reader(name: str, layout: HubLayout) -> SplitReader:
    import datasets

    try:
        splits = datasets.load_dataset(name, layout.config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data set {name!r} ({layout.config}) cannot be loaded: {first_line(error)}; check data.path and the "
            "network, or set data.source to 'glue_dir'"
        ) from error

    def read(split: str) -> Rows:
        if split not in splits:
            raise UserError(f"data set {name!r} ({layout.config}) has no split {split!r}; it has {', '.join(splits)}")
        return _data_set_rows(f"{name} {layout.config} {split}", layout, splits[split])

    return read


def _saved_folder(root: Path, layout: HubLayout) -> Path:
    """Return the folder that holds the task's splits: the one named as the hub's configuration, or `root` itself."""
    if (root / "state.json").is_file():
        raise UserError(f"data.path {str(root)!r} holds a single split; give the folder of a DatasetDict")
    if not (root / layout.config).is_dir() and _holds_saved_splits(root):
        return root
    return existing(root / layout.config)


def _holds_saved_splits(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "train" / "state.json").is_file()


def _saved_reader(task: Task, folder: Path, layout: HubLayout) -> SplitReader:
    def read(split: str) -> Rows:
        place = existing(folder / split)
        if not (place / "state.json").is_file():
            raise UserError(f"{place} holds no data set that save_to_disk wrote: there is no state.json in it")
        import datasets

        try:
            table = datasets.load_from_disk(str(place))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{place} cannot be loaded as a data set: {first_line(error)}") from error
        rows = _data_set_rows(str(place), layout, table)
        _check_description(task, layout, place, table)
        return rows

    return read


def _check_description(task: Task, layout: HubLayout, place: Path, table: Any) -> None:
    """Raises UserError where a saved data set says that it is another task, or has its classes in another order."""
    import datasets

    found = table.info.config_name
    if found != layout.config and found in {other.hub.config for other in TASKS.values() if other.hub}:
        raise UserError(f"{place} holds {found!r}, not {layout.config!r}; give each task a folder of that name")
    feature = table.features["label"]
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else task.class_names
    if names != task.class_names and sorted(names) == sorted(task.class_names):
        raise UserError(f"{place} has the classes {', '.join(names)}, but must have {', '.join(task.class_names)}")


def _data_set_rows(place: str, layout: HubLayout, table: Any) -> Rows:
    return _table_rows(place, layout, table.column_names, lambda column: table[column][:])  # a slice is read at once


def _table_rows(place: str, layout: HubLayout, header: list[str], column: Callable[[str], list[Any]]) -> Rows:
    for name in ("label", *layout.texts):
        position(name, header, place)
    labels = column("label")
    return Rows(place, "row", range(1, len(labels) + 1), tuple(column(name) for name in layout.texts), labels)


# From rows to examples


def _check_hub(task: Task, layout: HubLayout, read: SplitReader) -> tuple[Task, Splits]:
    return task, _check(task, tuple(range(len(task.class_names))), read("train"), read(layout.validation))


def _check(task: Task, known: tuple[Any, ...], train: Rows, validation: Rows) -> Splits:
    """Return both splits as examples. `known` are the labels as the source spells them, in class order."""
    examples = _examples(task, known, train)
    for number, (label, class_name) in enumerate(zip(known, task.class_names, strict=True)):
        if number not in examples.labels:
            raise UserError(f"{train.place}: no example has the label {label!r} ({class_name}); training needs some")
    return Splits(examples, _examples(task, known, validation))


def _examples(task: Task, known: tuple[Any, ...], rows: Rows) -> Examples:
    check_texts(rows, task.empty_texts)
    pairs = rows.texts[1] if len(rows.texts) == 2 else None
    if task.bounds is None:
        return Examples(rows.texts[0], pairs, [_class(task, known, rows, index) for index in range(len(rows.labels))])
    return Examples(rows.texts[0], pairs, [_score(task.bounds, rows, index) for index in range(len(rows.labels))])


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
    found = f"there is no label ({label!r})" if label in (None, "", -1) else f"the label is {shown(label)}"
    return UserError(f"{rows.where(index)}: {found}, but must be {right}")
