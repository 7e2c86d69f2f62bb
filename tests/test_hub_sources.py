"""GLUE's tasks as Parquet files: from the hub, and from a folder as it comes from there."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from refused import refused_task

from stkd.trainers.config import DataConfig
from stkd.trainers.sources import Examples, load_task

MRPC_TABLE: dict[str, list[Any]] = {
    "sentence1": ["first", "third", "fifth"],
    "sentence2": ["second", "fourth", "sixth"],
    "label": [1, 0, 1],
    "idx": [0, 1, 2],
}


def write_parquet(folder: Path, file: str, table: dict[str, list[Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(table), folder / file)


def write_hub(root: Path, table: dict[str, list[Any]], name: str = "mrpc") -> DataConfig:
    write_parquet(root / name, "train-00000-of-00001.parquet", table)
    write_parquet(root / name, "validation-00000-of-00001.parquet", table)
    return DataConfig(source="hub", path=str(root), selection="official")


def test_a_local_folder_of_parquet_files_is_read(tmp_path: Path) -> None:
    data = load_task("mrpc", write_hub(tmp_path, MRPC_TABLE))
    assert data.train == data.validation
    assert data.train == Examples(["first", "third", "fifth"], ["second", "fourth", "sixth"], [1, 0, 1])


def test_parts_of_a_split_are_joined_in_order(tmp_path: Path) -> None:
    config = write_hub(tmp_path, MRPC_TABLE)
    write_parquet(tmp_path / "mrpc", "train-00000-of-00002.parquet", MRPC_TABLE)
    write_parquet(tmp_path / "mrpc", "train-00001-of-00002.parquet", MRPC_TABLE | {"label": [0, 0, -1]})
    (tmp_path / "mrpc" / "train-00000-of-00001.parquet").unlink()
    assert "train-*.parquet, row 6: there is no label (-1)" in refused_task("mrpc", config)


def test_hub_scores_stay_raw(tmp_path: Path) -> None:
    table = MRPC_TABLE | {"label": [5.0, 0.0, 2.5]}
    assert load_task("stsb", write_hub(tmp_path, table, "stsb")).train.labels == [5.0, 0.0, 2.5]


def test_mnli_takes_the_matched_validation(tmp_path: Path) -> None:
    table: dict[str, list[Any]] = {"premise": ["p"] * 3, "hypothesis": ["h"] * 3, "label": [0, 1, 2]}
    write_parquet(tmp_path / "mnli", "train-00000-of-00001.parquet", table)
    for split, label in (("matched", 0), ("mismatched", 1)):
        file = f"validation_{split}-00000-of-00001.parquet"
        write_parquet(tmp_path / "mnli", file, {"premise": ["p"], "hypothesis": ["h"], "label": [label]})
    write_parquet(tmp_path / "mnli", "test_matched-00000-of-00001.parquet", {"nothing": [-1]})
    for name, label in (("mnli", 0), ("mnli_mm", 1)):
        data = load_task(name, DataConfig(source="hub", path=str(tmp_path), selection="official"))
        assert data.train.labels == [0, 1, 2]
        assert data.validation.labels == [label]


BAD_TABLES: dict[str, tuple[dict[str, list[Any]], tuple[str, ...]]] = {
    "unlabelled": ({"label": [1, 0, -1]}, ("row 3", "no label (-1)", "0 (not_equivalent), 1 (equivalent)")),
    "null label": ({"label": [1, 0, None]}, ("row 3", "no label (None)")),
    "unknown class": ({"label": [1, 0, 2]}, ("row 3", "the label is 2", "0 (not_equivalent)")),
    "class never shown": ({"label": [1, 1, 1]}, ("no example has the label 0 (not_equivalent)",)),
    "null text": ({"sentence2": ["a", None, "c"]}, ("row 2", "None stands where a text must be")),
    "empty text": ({"sentence1": ["a", "", "c"]}, ("row 2", "the text is empty")),
    "no text": ({"sentence1": [1, 2, 3]}, ("rows 1, 2 and 3", "1 stands where a text must be")),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    change, expected = BAD_TABLES[case]
    message = refused_task("mrpc", write_hub(tmp_path, MRPC_TABLE | change))
    assert [part for part in expected if part not in message] == [], message
    assert "train-00000-of-00001.parquet" in message


def test_bad_hub_folders_are_refused(tmp_path: Path) -> None:
    config = write_hub(tmp_path, MRPC_TABLE)
    (tmp_path / "tsv" / "RTE").mkdir(parents=True)
    (tmp_path / "tsv" / "RTE" / "train.tsv").touch()
    assert "no 'rte' in" in refused_task("rte", config)
    assert "data.source to 'glue_dir'" in refused_task("rte", DataConfig(path=str(tmp_path / "tsv")))
    assert "does not exist" in refused_task("mrpc", DataConfig(path=str(tmp_path / "absent")))
    renamed = {column + "s" if column == "label" else column: values for column, values in MRPC_TABLE.items()}
    write_hub(tmp_path, renamed)
    assert "no column 'label', did you mean 'labels'?" in refused_task("mrpc", config)
    (tmp_path / "mrpc" / "train-00000-of-00001.parquet").write_text("not Parquet")
    assert "cannot be read as Parquet" in refused_task("mrpc", config)
    (tmp_path / "mrpc" / "train-00000-of-00001.parquet").unlink()
    assert "train.parquet does not exist" in refused_task("mrpc", config)


class FakeSplit(dict[str, list[Any]]):
    @property
    def column_names(self) -> list[str]:
        return list(self)


def fake_datasets(monkeypatch: pytest.MonkeyPatch, load: Callable[[str, str], Any]) -> None:
    module = ModuleType("datasets")
    vars(module).update(load_dataset=load, exceptions=SimpleNamespace(DatasetsError=KeyError))
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_the_hub_is_asked_for_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, config: str) -> dict[str, FakeSplit]:
        asked.append((name, config))
        return {"train": FakeSplit(MRPC_TABLE), "validation": FakeSplit(MRPC_TABLE)}

    fake_datasets(monkeypatch, load)
    assert load_task("mrpc", DataConfig(selection="official")).train.labels == [1, 0, 1]
    assert load_task("mrpc", DataConfig(path="someone/glue", selection="official")).train.labels == [1, 0, 1]
    assert asked == [("nyu-mll/glue", "mrpc"), ("someone/glue", "mrpc")]


def test_trouble_with_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, config: str) -> None:
        raise ConnectionError("Couldn't reach the hub\nwith details")

    fake_datasets(monkeypatch, fail)
    message = refused_task("mrpc", DataConfig())
    assert "'nyu-mll/glue' (mrpc) cannot be loaded: Couldn't reach the hub;" in message
    fake_datasets(monkeypatch, lambda name, config: {"train": FakeSplit(MRPC_TABLE)})
    assert "no split 'validation'; it has train" in refused_task("mrpc", DataConfig())
