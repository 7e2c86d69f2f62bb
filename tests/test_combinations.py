"""Every task of every source, with every kind of student of every encoder family: read, learned, measured."""

import math
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, get_args

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import save_file
from tiny import BAD, FILLERS, GOOD, tiny_teacher
from tiny_families import HEADS, LAYERS, NEURONS, SETTINGS, tiny_model
from user_tables import files, write_table

from stkd.trainers.config import KNOWN_FAMILIES, DataConfig, DistillationConfig, StudentConfig, TrainingConfig
from stkd.trainers.job import Job, encode_task
from stkd.trainers.models import load_classifier, load_tokenizer, save_model
from stkd.trainers.ranking import UnitScores
from stkd.trainers.ranks import Ranks
from stkd.trainers.sources import SOURCES, TaskData, load_task
from stkd.trainers.specs import LOGITS, SCORES, Distillation, JobSpec
from stkd.trainers.tasks import TASKS, Task

ROWS = 12
OWN: Mapping[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
    "own classes": (lambda number: ("low", "middle", "high")[number % 3], {}),
    "own scores": (lambda number: number / 4, {"kind": "regression"}),
    "own labels": (lambda number: ["short", "dull"][: number % 3], {"kind": "multilabel", "separator": "|"}),
}
"""Labels of a user's files, and what must be said of them."""
READ = [
    *(("glue_dir", name) for name, task in TASKS.items() if task.tsv),
    *(("hub", name) for name, task in TASKS.items() if task.hub),
    *(("datasets_dir", name) for name, task in TASKS.items() if task.hub),
    *(("files", name) for name in OWN),
    ("generated", "remarks"),
]
INITS = get_args(StudentConfig.model_fields["init"].annotation)
COMBINATIONS = [
    (source, task, init, list(SETTINGS)[number % len(SETTINGS)])
    for number, ((source, task), init) in enumerate(product(READ, INITS))
]


def test_all_combinations_are_here() -> None:
    assert len(COMBINATIONS) == (10 + 10 + 10 + 3 + 1) * 3
    assert {source for source, *_ in COMBINATIONS} == set(SOURCES)
    assert {task for _, task, *_ in COMBINATIONS} == set(TASKS) | set(OWN)
    assert {(init, name.split()[0]) for *_, init, name in COMBINATIONS} == set(product(INITS, KNOWN_FAMILIES))


@pytest.fixture(autouse=True)
def no_progress() -> None:
    datasets.disable_progress_bars()


def text(number: int) -> str:
    return f"{FILLERS[number % len(FILLERS)]} {(GOOD if number % 2 else BAD)[number % 4]}"


def label(task: Task, number: int) -> Any:
    return number % task.outputs if task.class_names else number % 6 * 1.0


def as_glue_dir(task: Task, folder: Path) -> DataConfig:
    layout = task.tsv
    assert layout is not None
    columns = layout.header or (*layout.texts, layout.label)
    lines = [] if layout.header else ["\t".join(columns)]
    for number in range(ROWS):
        found = label(task, number)
        cells = {column: text(number) for column in layout.texts}
        cells[layout.label] = layout.labels[found] if layout.labels else str(found)
        lines.append("\t".join(cells.get(column, "") for column in columns))
    (folder / layout.folder).mkdir()
    for file in ("train.tsv", layout.validation):
        (folder / layout.folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataConfig(source="glue_dir", path=str(folder), selection="official")


def hub_rows(task: Task) -> dict[str, list[Any]]:
    assert task.hub is not None
    texts = {column: [text(number) for number in range(ROWS)] for column in task.hub.texts}
    return texts | {"label": [label(task, number) for number in range(ROWS)]}


def as_hub(task: Task, folder: Path) -> DataConfig:
    assert task.hub is not None
    for split in ("train", task.hub.validation):
        (folder / task.hub.config).mkdir(exist_ok=True)
        Dataset.from_dict(hub_rows(task)).to_parquet(folder / task.hub.config / f"{split}-00000-of-00001.parquet")
    return DataConfig(source="hub", path=str(folder), selection="official")


def as_datasets_dir(task: Task, folder: Path) -> DataConfig:
    assert task.hub is not None
    split = Dataset.from_dict(hub_rows(task))
    DatasetDict({"train": split, task.hub.validation: split}).save_to_disk(str(folder / task.hub.config))
    return DataConfig(source="datasets_dir", path=str(folder), selection="official")


def as_files(name: str, folder: Path) -> DataConfig:
    label_of, settings = OWN[name]
    rows = [{"text": text(number), "label": label_of(number)} for number in range(ROWS)]
    return files(write_table(folder / "train.csv", rows), write_table(folder / "validation.csv", rows), **settings)


def read(source: str, name: str, folder: Path) -> TaskData:
    folder.mkdir()
    match source:
        case "glue_dir":
            return load_task(name, as_glue_dir(TASKS[name], folder))
        case "hub":
            return load_task(name, as_hub(TASKS[name], folder))
        case "datasets_dir":
            return load_task(name, as_datasets_dir(TASKS[name], folder))
        case "files":
            return load_task(name.replace(" ", "_"), as_files(name, folder))
        case _:
            return load_task(name, DataConfig(source="generated", train_examples=ROWS))


def distillation_of(task: Task, family: str, init: str, tokenizer: str, folder: Path) -> Distillation:
    """A teacher of the family with the task's head, and the student's settings; logits are to be written."""
    tiny_model(family).save_pretrained(folder / "base")
    teacher = load_classifier(str(folder / "base"), task, seed=0)
    save_model(teacher, load_tokenizer(tokenizer), folder / "teacher")
    for name in ("scores", "logits"):
        (folder / name).mkdir()
    generator = np.random.default_rng(3)
    shapes = ((LAYERS, HEADS), (LAYERS, NEURONS)) * 3
    UnitScores(*(generator.random(shape, dtype=np.float32) for shape in shapes)).save(folder / "scores" / SCORES)
    settings: dict[str, dict[str, object]] = {
        "drop_layers": {"layers": 2},
        "prune_units": {"sparsity": 0.5},
        "pretrained": {"model": tokenizer},
    }
    student = StudentConfig.model_validate({"init": init, **settings[init]})
    return Distillation(folder / "teacher", folder / "logits", student, DistillationConfig(), folder / "scores")


@pytest.mark.parametrize(("source", "name", "init", "family"), COMBINATIONS)
def test_a_student_learns_a_task(tmp_path: Path, source: str, name: str, init: str, family: str) -> None:
    torch.set_num_threads(1)
    data, tokenizer = read(source, name, tmp_path / "source"), tiny_teacher(tmp_path / "other", layers=2)
    (tmp_path / "data").mkdir()
    encode_task(data, tokenizer, 16, tmp_path / "data")
    distillation = distillation_of(data.task, family, init, tokenizer, tmp_path)
    logits = torch.randn(len(data.train), data.task.outputs, generator=torch.Generator().manual_seed(0))
    save_file({"logits": logits}, distillation.logits / LOGITS)
    training = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3, precision="fp32", max_length=16)
    job = Job(JobSpec(data.task, tmp_path / "data", training, distillation=distillation), Ranks())
    report = job.run_epoch()
    job.save_model(tmp_path / "student")
    job.close()
    assert len(data.train) == ROWS
    assert {*data.task.metrics, "score", "loss"} <= report.keys()
    assert math.isfinite(report["loss"])
    config = load_classifier(str(tmp_path / "student"), data.task, seed=1).config
    if data.task.class_names:
        assert tuple(config.id2label.values()) == data.task.class_names
