"""Reads a user's own files as a task: finds them, learns from the labels what the task is, and checks every row."""

import glob
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.examples import Examples, Splits
from stkd.trainers.rows import Rows, check_texts, existing, shown
from stkd.trainers.tables import read_table
from stkd.trainers.tasks import DEFAULT_METRICS, FITTING_METRICS, Kind, Task
from stkd.trainers.user_labels import (
    Labelled,
    check_frequent,
    check_known,
    check_present,
    check_scores_differ,
    find_classes,
    find_kind,
    labelled,
    scores,
)

Tables = dict[str, list[Rows]]
"""The tables of each split, one for each file; there is no `test` without a test file."""


def from_files(name: str, config: DataConfig) -> tuple[Task, Splits]:
    """Read the files that `config` names; the task is called `name`, and is what its labels make it.

    Raises:
        UserError: a file is not there or cannot be read, or a row is not what it should be; names file and lines.

    """
    files = find_files(config)
    tables = {split: [read_table(path, config) for path in paths] for split, paths in files.items()}
    for table in chain(*tables.values()):
        check_texts(table)
        check_present(table, config)
    kind = config.kind or find_kind(tables["train"], config)
    if kind == "regression":
        return Task(name, kind, (), _metrics(config, kind, ())), _scored(tables)
    split_labels = {split: [labelled(table, kind, config.separator) for table in tables[split]] for split in tables}
    classes = config.classes or find_classes(split_labels["train"])
    for split in split_labels.values():
        check_known(split, classes)
    check_frequent(split_labels["train"], split_labels["validation"], classes)
    return Task(name, kind, classes, _metrics(config, kind, classes)), _classified(split_labels, kind, classes)


# Files


def find_files(config: DataConfig) -> dict[str, list[Path]]:
    """Return the files of every split that has some; raises UserError where one is missing, or is named twice."""
    wanted = {"train": config.train, "validation": config.validation, "test": config.test}
    files = {
        split: [path for given in paths for path in _matching(split, given)] for split, paths in wanted.items() if paths
    }
    owners: dict[Path, str] = {}
    for split, path in ((split, path) for split, paths in files.items() for path in paths):
        owner = owners.get(path.resolve())
        if owner == split:
            raise UserError(f"{path} is in data.{split} twice; name it once")
        if owner is not None:
            raise UserError(f"{path} is in data.{owner} and in data.{split}; no example may be in both")
        owners[path.resolve()] = split
    return files


def _matching(split: str, given: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        raise UserError(f"data.{split}: {given} is a folder; name its files, as {given.rstrip('/')}/*.csv")
    if path.exists() or not glob.has_magic(given):
        return [existing(path)]
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - the pattern may start at the root
    found = [match for match in map(Path, matches) if match.is_file()]
    if not found:
        raise UserError(f"data.{split}: no file matches {given}; {_neighbours(path.parent)}")
    return found


def _neighbours(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    return f"the files in {folder} are {shown(', '.join(names), 120)}" if names else f"{folder} holds no files"


# Tasks and examples


def _metrics(config: DataConfig, kind: Kind, classes: Sequence[str]) -> tuple[str, ...]:
    metrics = config.metrics or DEFAULT_METRICS[kind]
    for metric in metrics:
        if metric not in FITTING_METRICS[kind]:
            fitting = ", ".join(FITTING_METRICS[kind])
            raise UserError(f"data.metrics: {metric} does not fit a {kind} task; choose from {fitting}")
        if metric == "f1" and len(classes) != 2:
            raise UserError(f"data.metrics: f1 is for two classes, not {len(classes)}; choose macro_f1")
    return metrics


def _scored(tables: Tables) -> Splits:
    splits = {}
    for split in tables:
        numbers = [number for table in tables[split] for number in scores(table)]
        if split != "test":
            check_scores_differ(tables[split], numbers)
        splits[split] = _examples(tables[split], numbers)
    return Splits(**splits)


def _classified(tables: dict[str, list[Labelled]], kind: Kind, classes: Sequence[str]) -> Splits:
    numbers = {name: number for number, name in enumerate(classes)}
    splits = {}
    for split, parts in tables.items():
        named = [names for part in parts for names in part.names]
        labels: list[Any]
        if kind == "multilabel":
            labels = [[float(name in names) for name in classes] for names in map(set, named)]
        else:
            labels = [numbers[name] for (name,) in named]
        splits[split] = _examples([part.rows for part in parts], labels)
    return Splits(**splits)


def _examples(tables: Sequence[Rows], labels: list[Any]) -> Examples:
    columns = [list(chain(*texts)) for texts in zip(*(table.texts for table in tables), strict=True)]
    return Examples(columns[0], columns[1] if len(columns) == 2 else None, labels)
