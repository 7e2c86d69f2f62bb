"""What the library `datasets` saved to disk: GLUE in one folder per task, or a single task."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.sources import load_task
from stkd.trainers.tasks import TASKS, HubLayout, Task

GLUE = [task for task in TASKS.values() if task.hub is not None]


@pytest.fixture(autouse=True)
def no_progress() -> None:
    datasets.disable_progress_bars()


def layout(name: str) -> HubLayout:
    found = TASKS[name].hub
    assert found is not None
    return found


def rows(name: str, labels: list[Any]) -> Dataset:
    """A split in the hub's layout: each text names its column and its row."""
    task = TASKS[name]
    texts = {column: [f"{column} {number}" for number in range(len(labels))] for column in layout(name).texts}
    table = Dataset.from_dict(texts | {"label": labels, "idx": list(range(len(labels)))})
    known = task.class_names and -1 not in labels
    return table.cast_column("label", ClassLabel(names=list(task.class_names))) if known else table


def splits(name: str) -> DatasetDict:
    """A task with a training split, its validation split, and a test split without labels."""
    task = TASKS[name]
    labels = list(range(task.outputs)) * 2 if task.class_names else [0.0, 5.0, 2.5]
    unlabelled = rows(name, [-1] if task.class_names else [-1.0])
    return DatasetDict({"train": rows(name, labels), layout(name).validation: rows(name, labels), "test": unlabelled})


def config(path: Path) -> DataConfig:
    return DataConfig(source="datasets_dir", path=str(path), selection="official")


def refusal(name: str, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_task(name, config(path))
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path}/", "").replace(str(path), "FOLDER")


def test_all_of_glue_is_here() -> None:
    assert len(GLUE) == 10


@pytest.mark.parametrize("as_it_is", [False, True])
@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
def test_every_task_is_read(tmp_path: Path, task: Task, as_it_is: bool) -> None:
    folder = tmp_path if as_it_is else tmp_path / layout(task.name).config
    splits(task.name).save_to_disk(str(folder))
    data = load_task(task.name, config(tmp_path))
    assert data.task is task
    assert data.train == data.validation
    assert data.train.labels == (list(range(task.outputs)) * 2 if task.class_names else [0.0, 5.0, 2.5])
    first, *second = layout(task.name).texts
    assert data.train.texts[1] == f"{first} 1"
    assert (data.train.pairs is None) == (not second)
    assert data.test == data.validation


def test_splits_may_be_saved_one_by_one(tmp_path: Path) -> None:
    for folder in (tmp_path / "rte", tmp_path / "alone"):
        for split in ("train", "validation"):
            rows("rte", [0, 1, 1]).save_to_disk(str(folder / split))
    assert load_task("rte", config(tmp_path)) == load_task("rte", config(tmp_path / "alone"))
    assert load_task("rte", config(tmp_path)).train.labels == [0, 1, 1]


def test_matched_and_mismatched_mnli_lie_side_by_side(tmp_path: Path) -> None:
    both = splits("mnli")
    both["validation_mismatched"] = rows("mnli", [2])
    both.save_to_disk(str(tmp_path / "mnli"))
    matched, mismatched = load_task("mnli", config(tmp_path)), load_task("mnli_mm", config(tmp_path))
    assert matched.train == mismatched.train
    assert (len(matched.validation), mismatched.validation.labels) == (6, [2])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    splits("rte").save_to_disk(str(tmp_path / "rte"))
    assert "there is no 'mrpc' in" in refusal("mrpc", tmp_path)
    assert refusal("rte", tmp_path / "rte" / "train").endswith("holds a single split; give the folder of a DatasetDict")
    (tmp_path / "rte" / "validation").rename(tmp_path / "rte" / "dev")
    assert "there is no 'validation' in" in refusal("rte", tmp_path)
    (tmp_path / "rte" / "dev" / "state.json").unlink()
    (tmp_path / "rte" / "dev").rename(tmp_path / "rte" / "validation")
    assert "rte/validation holds no data set that save_to_disk wrote" in refusal("rte", tmp_path)
    with pytest.raises(UserError, match=r"data\.path is not set: data\.source 'datasets_dir' needs"):
        load_task("rte", DataConfig(source="datasets_dir"))
    with pytest.raises(UserError, match=r"set data\.source to 'generated'"):
        load_task("remarks", config(tmp_path))


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    splits("rte").save_to_disk(str(tmp_path))
    (tmp_path / "train" / "data-00000-of-00001.arrow").write_bytes(b"no arrow at all")
    assert refusal("rte", tmp_path).startswith("train cannot be loaded as a data set: ")


def test_bad_rows_are_told(tmp_path: Path) -> None:
    DatasetDict({"train": rows("rte", [0, 1, -1]), "validation": rows("rte", [0])}).save_to_disk(str(tmp_path / "rte"))
    message = refusal("rte", tmp_path)
    assert message == "rte/train, row 3: there is no label (-1), but must be one of 0 (entailment), 1 (not_entailment)"


def test_another_task_is_refused_by_what_it_says_of_itself(tmp_path: Path) -> None:
    found = splits("mrpc")
    for split in found.values():
        split.info.config_name = "mrpc"
    found.save_to_disk(str(tmp_path))
    assert len(load_task("mrpc", config(tmp_path)).train) == 4
    assert refusal("rte", tmp_path) == "train holds 'mrpc', not 'rte'; give each task a folder of that name"


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    turned = rows("rte", [-1]).remove_columns("label").add_column("label", [0])
    names = list(reversed(TASKS["rte"].class_names))
    DatasetDict({"train": turned.cast_column("label", ClassLabel(names=names))}).save_to_disk(str(tmp_path))
    assert refusal("rte", tmp_path).startswith("train has the classes not_entailment, entailment, but must have")


def test_the_hub_source_points_to_the_right_one(tmp_path: Path) -> None:
    splits("rte").save_to_disk(str(tmp_path / "rte"))
    with pytest.raises(UserError, match=r"was written by save_to_disk: set data\.source to 'datasets_dir'"):
        load_task("rte", DataConfig(source="hub", path=str(tmp_path)))
