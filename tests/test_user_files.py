"""A user's own files: what is read of them, and what the task is that their labels make."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from counting import calls_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from refused import refused_task
from user_tables import FORMATS, GOOD, files, write_table

from stkd.search_spaces.reading import read_space
from stkd.trainers.config import FILES_KEYS, DataConfig
from stkd.trainers.sources import TaskData, load_task
from stkd.trainers.tasks import DEFAULT_METRICS

README = Path(__file__).parents[1] / "README.md"
WORDS = ["good", "bad", "good", "bad"]
# Labels as a user has them; settings beside the files; the kind, the classes and the labels that must come of them.
LABELS: dict[str, tuple[list[Any], dict[str, Any], str, tuple[str, ...], list[Any]]] = {
    "words": (WORDS, {}, "classification", ("bad", "good"), [1, 0, 1, 0]),
    "numbers": ([10, 2, 10, 2], {}, "classification", ("2", "10"), [1, 0, 1, 0]),
    "negative numbers": ([1, -1, 0, -1, 1, 0], {}, "classification", ("-1", "0", "1"), [2, 0, 1, 0, 2, 1]),
    "booleans": ([True, False, False, True], {}, "classification", ("false", "true"), [1, 0, 0, 1]),
    "whole floats": ([1.0, 0.0, 1.0, 0.0], {}, "classification", ("0", "1"), [1, 0, 1, 0]),
    "classes in order": (WORDS, {"classes": ["good", "bad"]}, "classification", ("good", "bad"), [0, 1, 0, 1]),
    "fractions": (
        [0.5, 1.5, 0.5, 1.5],
        {"kind": "classification"},
        "classification",
        ("0.5", "1.5"),
        [0, 1, 0, 1],
    ),
    "scores": ([0.5, 3, -2.25], {"kind": "regression"}, "regression", (), [0.5, 3.0, -2.25]),
    "whole scores": ([5, 0, 3], {"kind": "regression"}, "regression", (), [5.0, 0.0, 3.0]),
    "several": (
        [["b", "a"], [], ["b"], ["a"]],
        {"separator": "|"},
        "multilabel",
        ("a", "b"),
        [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]],
    ),
    "several numbers": (
        [[10, 9], [9], [10]],
        {"kind": "multilabel", "separator": "|"},
        "multilabel",
        ("9", "10"),
        [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]],
    ),
}
COMBINATIONS = [(form, case, pairs) for form in FORMATS for case in LABELS for pairs in (False, True)]
HEAVY = ("torch", "ray", "mlflow", "transformers", "sklearn", "scipy", "pandas", "datasets", "pyarrow")


def rows_of(labels: list[Any], pairs: bool = False) -> list[dict[str, Any]]:
    second = {"second": "and what else"} if pairs else {}
    return [{"id": number, "text": f"text {number}", **second, "label": label} for number, label in enumerate(labels)]


def written(folder: Path, labels: list[Any], form: str = ".csv", **settings: Any) -> DataConfig:
    train = write_table(folder / f"train{form}", rows_of(labels))
    return files(train, write_table(folder / f"validation{form}", rows_of(labels)), **settings)


def read(train: str | bytes, folder: Path, name: str = "train.csv", **settings: Any) -> TaskData:
    """The task of a training file with this content, and of the same content as validation file."""
    config = files(folder / name, folder / f"other-{name}", **settings)
    for path in (*config.train, *config.validation):
        Path(path).write_bytes(train if isinstance(train, bytes) else train.encode())
    return load_task("mine", config)


def test_all_combinations_are_there() -> None:
    assert len(COMBINATIONS) == 7 * 11 * 2
    assert {LABELS[case][2] for _, case, _ in COMBINATIONS} == {"classification", "regression", "multilabel"}


@pytest.mark.parametrize(("form", "case", "pairs"), COMBINATIONS)
def test_every_format_with_every_kind_of_label(tmp_path: Path, form: str, case: str, pairs: bool) -> None:
    found, settings, kind, classes, labels = LABELS[case]
    if form.startswith((".jsonl", ".parquet")):  # they have lists
        settings = {key: value for key, value in settings.items() if key != "separator"}
    train, validation = (
        write_table(tmp_path / f"{split}{form}", rows_of(found, pairs)) for split in ("train", "validation")
    )
    data = load_task("mine", files(train, validation, text_pair="second" if pairs else None, **settings))
    assert (data.task.name, data.task.kind, data.task.class_names) == ("mine", kind, classes)
    assert data.task.metrics == DEFAULT_METRICS[data.task.kind]
    assert data.task.outputs == len(classes or "1")
    assert data.train == data.validation
    assert data.train.texts == [f"text {number}" for number in range(len(found))]
    assert data.train.pairs == (["and what else"] * len(found) if pairs else None)
    assert data.train.labels == labels
    assert {type(label) for label in data.train.labels} == {
        {"classification": int, "regression": float}.get(kind, list)
    }
    assert data.test == data.validation


# Files


def test_many_files_are_joined_in_order(tmp_path: Path) -> None:
    for number, form in enumerate((".csv", ".jsonl", ".parquet", ".tsv.gz")):
        write_table(tmp_path / f"part-{number}{form}", rows_of(WORDS))
    validation = write_table(tmp_path / "validation.csv", rows_of(WORDS[:2]))
    by_pattern = load_task("mine", files(f"{tmp_path}/part-*", validation))
    assert (len(by_pattern.train), len(by_pattern.validation)) == (16, 2)
    assert by_pattern.train.labels == [1, 0, 1, 0] * 4
    by_list = load_task("mine", files([f"{tmp_path}/part-3*", f"{tmp_path}/part-0.csv"], validation))
    assert len(by_list.train) == 8


def test_columns_may_stand_elsewhere_in_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,text\nx,one\ny,two\n")
    (tmp_path / "b.csv").write_text("note,text,label\n?,three,x\n?,four,y\n")
    validation = write_table(tmp_path / "v.csv", [{"text": "five", "label": "x"}, {"text": "six", "label": "y"}])
    data = load_task("mine", files([f"{tmp_path}/a.csv", f"{tmp_path}/b.csv"], validation))
    assert data.train.texts == ["one", "two", "three", "four"]
    assert data.train.labels == [0, 1, 0, 1]


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    config = written(tmp_path / "a[1]", WORDS)
    assert len(load_task("mine", config).train) == 4


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "data", WORDS)
    assert len(load_task("mine", files("~/data/train.csv", "~/data/vali*.csv")).validation) == 4


def test_a_test_file_is_carried_along(tmp_path: Path) -> None:
    config = written(tmp_path, WORDS)
    test = write_table(tmp_path / "test.csv", rows_of(["bad"]))
    with_test = load_task("mine", config.model_copy(update={"test": (str(test),)}))
    without = load_task("mine", config)
    assert with_test.test is not None
    assert with_test.test.labels == [0]
    assert with_test.fingerprint != without.fingerprint


def test_the_fingerprint_is_of_the_task_too(tmp_path: Path) -> None:
    base = written(tmp_path, WORDS)
    prints = [load_task("mine", base).fingerprint]
    changes: tuple[dict[str, Any], ...] = (
        {"classes": ("good", "bad")},
        {"metrics": ("macro_f1",)},
        {"train_examples": 3},
    )
    prints += [load_task("mine", base.model_copy(update=change)).fingerprint for change in changes]
    prints.append(load_task("other", base).fingerprint)
    assert len(set(prints)) == len(prints) == 5
    assert load_task("mine", base).fingerprint == prints[0]


def test_the_name_may_be_that_of_a_known_task(tmp_path: Path) -> None:
    task = load_task("mrpc", written(tmp_path, WORDS)).task
    assert (task.class_names, task.metrics) == (("bad", "good"), ("accuracy",))


@pytest.mark.parametrize(
    ("case", "metrics"),
    [
        ("words", ["accuracy", "macro_f1", "f1", "matthews"]),
        ("scores", ["spearman"]),
        ("several", ["exact_match", "macro_f1"]),
    ],
)
def test_metrics_can_be_chosen(tmp_path: Path, case: str, metrics: list[str]) -> None:
    labels, settings, *_ = LABELS[case]
    data = load_task("mine", written(tmp_path, labels, metrics=metrics, **settings))
    assert data.task.metrics == tuple(metrics)


def test_the_readmes_example_is_read_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text().partition("### Your own data")[2]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]
    making, command, arguments = block.partition("stkd sweep ")
    assert command
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", making], cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    monkeypatch.chdir(tmp_path)
    words = shlex.split(arguments)
    assert words[::2] == ["--space", "--tasks", "--set", "--set"]
    name, task, *overrides = words[1::2]
    space = read_space(Path(name), overrides, [task])
    data = load_task(task, space.data)
    assert data.task.class_names == ("happy", "unhappy")
    assert len(data.train) >= 1000
    assert len(data.validation) >= 200


def test_every_setting_of_files_is_refused_elsewhere() -> None:
    texts = ("train", "validation", "test", "text", "text_pair", "label", "separator", "delimiter")
    choices = {"format": "csv", "kind": "regression", "encoding": "latin-1", "metrics": "accuracy"}
    given: dict[str, Any] = {**dict.fromkeys(texts, "x"), **choices, "classes": ["a", "b"], "quoting": False}
    assert len(given) == 14
    assert set(given) == set(FILES_KEYS)
    for key, value in given.items():
        with pytest.raises(ValidationError, match=r"is read by data\.source files only"):
            DataConfig.model_validate({"source": "hub", key: value})
    assert DataConfig.model_validate({"source": "hub", "kind": None, "train": None, "metrics": None}) == DataConfig()


# CSV, TSV and encodings


def test_quotes_may_hold_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = 'text,label\n"one, ""two""\nthree",x\r\nplain 5" disk,y\n\n"four\r\nfive",x\nsix,y\n'
    data = read(text, tmp_path)
    assert data.train.texts == ['one, "two"\nthree', 'plain 5" disk', "four\r\nfive", "six"]
    assert data.train.labels == [0, 1, 0, 1]


def test_tsv_knows_no_quotes_unless_told(tmp_path: Path) -> None:
    text = 'text\tlabel\n"so\tx\nhe said"\ty\n" "\tx\nthis\ty\n'
    assert read(text, tmp_path, "a.tsv").train.texts == ['"so', 'he said"', '" "', "this"]
    quoted = 'text\tlabel\n"so\nhe"\tx\nthat\ty\nthis\tx\nthese\ty\n'
    assert read(quoted, tmp_path, "b.tsv", quoting=True).train.texts == ["so\nhe", "that", "this", "these"]
    assert read(text.replace("\t", ","), tmp_path, "c.csv", quoting=False).train.texts[0] == '"so'


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=4, max_size=9
    )
)
@pytest.mark.parametrize("form", [".csv", ".jsonl", ".parquet"])
def test_any_text_is_read_as_it_was_written(tmp_path: Path, form: str, texts: list[str]) -> None:
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(texts)]
    train, validation = (write_table(tmp_path / f"{split}{form}", rows) for split in ("train", "validation"))
    assert load_task("mine", files(train, validation)).train.texts == texts


def test_a_delimiter_and_a_format_can_be_told(tmp_path: Path) -> None:
    text = "text;label\none, two;x\nthree;y\nfour;x\nfive;y\n"
    assert read(text, tmp_path, "data.txt", format="csv", delimiter=";").train.texts[0] == "one, two"
    packed = read(gzip.compress(text.encode()), tmp_path, "data.gz", format="csv", delimiter=";")
    assert packed.train.texts[0] == "one, two"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252", "utf-16-le"])
@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
def test_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    rows = [{"text": f"Köln {number}", "label": label} for number, label in enumerate(["ä", "ö", "ä", "ö"])]
    plain = write_table(tmp_path / name, rows).read_text(encoding="utf-8")
    told = "utf-8" if encoding == "utf-8-sig" else encoding
    data = read(plain.encode(encoding), tmp_path, name, encoding=told)
    assert data.train.texts[0] == "Köln 0"
    assert data.task.class_names == ("ä", "ö")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_line_ends_and_empty_lines_do_not_matter(tmp_path: Path, name: str, end: str) -> None:
    plain = write_table(tmp_path / name, rows_of(WORDS)).read_bytes().decode().replace("\r\n", "\n")
    expected = read(plain, tmp_path, name).train
    for variant in (plain.removesuffix("\n"), plain + "\n\n", plain.replace("\n", "\n\n")):
        assert read(variant.replace("\n", end), tmp_path, name).train == expected


def test_a_text_may_be_long_and_hold_other_line_separators(tmp_path: Path) -> None:
    long = "word\u2028\x0b\x85 " * 60_000
    data = read(f"text,label\n{long},x\nb,y\nc,x\nd,y\n", tmp_path)
    assert data.train.texts[0] == long


def test_labels_are_stripped_and_texts_are_not(tmp_path: Path) -> None:
    data = read("text,label\n a ,x\nb, x\nc,y \nd,y\n", tmp_path)
    assert data.train.texts[0] == " a "
    assert data.task.class_names == ("x", "y")


def test_codes_stay_apart(tmp_path: Path) -> None:
    codes = [code for code in ("01", "001", "+1", "1e3") for _ in range(2)]
    data = load_task("mine", written(tmp_path, codes))
    assert data.task.class_names == ("+1", "001", "01", "1e3")
    mixed = load_task("mine", written(tmp_path, ["01", "01", "1", "1", "1.0"], classes=["1", "01"]))
    assert mixed.train.labels == [1, 1, 0, 0, 0]


def test_a_number_is_the_same_class_in_every_file(tmp_path: Path) -> None:
    train = write_table(tmp_path / "train.csv", rows_of(["1.0", "0.0", "1.0", "0.0"]))
    validation = write_table(tmp_path / "validation.jsonl", rows_of([0, 1]))
    assert load_task("mine", files(train, validation)).validation.labels == [0, 1]


def test_blanks_between_separators_do_not_count(tmp_path: Path) -> None:
    data = read("text,label\na, x ; y;\nb,;\nc,y;x;x\n", tmp_path, separator=";")
    assert data.train.labels == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("form", [".csv", ".jsonl"])
def test_each_of_many_rows_takes_as_little_work(form: str, tmp_path: Path) -> None:
    config = written(tmp_path, WORDS * 250, form)
    load_task("mine", config)  # what it imports on first use is no work of a row
    of_few = calls_in(lambda: load_task("mine", config))
    written(tmp_path, WORDS * 1000, form)
    of_many = calls_in(lambda: load_task("mine", config))
    assert len(load_task("mine", config).train) == 4000
    assert of_many < 4.1 * of_few
    assert of_many < 2 * 4000 * 100  # both splits have 4,000 rows


def test_text_files_need_nothing_heavy(tmp_path: Path) -> None:
    for form in (".csv", ".tsv.gz", ".jsonl"):
        written(tmp_path, WORDS, form)
    program = f"""
import sys
from stkd.trainers.config import DataConfig
from stkd.trainers.sources import load_task
for form in (".csv", ".tsv.gz", ".jsonl"):
    paths = {{split: sys.argv[1] + "/" + split + form for split in ("train", "validation")}}
    settings = {{"source": "files", "selection": "official", **paths}}
    print(len(load_task("mine", DataConfig.model_validate(settings)).train))
print([module for module in {HEAVY} if module in sys.modules])
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["4", "4", "4", "[]"]


# Mistakes that take two files or more; those in one are in test_bad_user_files.py


def test_a_link_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD, encoding="utf-8")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    message = refused_task("mine", files(tmp_path / "a.csv", tmp_path / "b.csv"))
    assert "b.csv is in data.train and in data.validation" in message


def test_the_second_text_is_checked_too(tmp_path: Path) -> None:
    bad, good = tmp_path / "a.csv", tmp_path / "b.csv"
    bad.write_text("text,second,label\na,b,x\nc,,y\n", encoding="utf-8")
    good.write_text("text,second,label\na,b,x\nc,d,y\n", encoding="utf-8")
    message = refused_task("mine", files(bad, good, text_pair="second"))
    assert "a.csv, line 3: the text is empty ('')" in message


def test_f1_is_of_two_classes(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(GOOD + "e,z\nf,z\n", encoding="utf-8")
    message = refused_task("mine", files(tmp_path / "a.csv", tmp_path / "b.csv", metrics="f1"))
    assert message == "data.metrics: f1 is for two classes, not 3; choose macro_f1"
