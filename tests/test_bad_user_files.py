"""Mistakes in a user's own files: each is refused in one line that names the file and its rows."""

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from refused import refused_task
from user_tables import GOOD, files, write_table

SCORES, SEVERAL = {"kind": "regression"}, {"separator": ";"}


@dataclass(frozen=True)
class Case:
    """A file with a mistake beside good ones, and how the message begins, in which FOLDER is where the files are.

    The content is a text, bytes, or rows for Parquet; None leaves the file out.
    """

    name: str
    content: str | bytes | list[dict[str, Any]] | None
    says: str
    file: str = "train.csv"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        return next((split for split in ("validation", "test") if self.file.startswith(split)), "train")


def json_lines(*lines: str) -> str:
    good = ['{"text": "a", "label": "x"}', '{"text": "b", "label": "y"}'] * 2
    return "\n".join([*good, *lines]) + "\n"


def rows(*labels: Any) -> list[dict[str, Any]]:
    return [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]


CASES = (
    # finding the files
    Case(
        "no such file",
        None,
        "trian.csv does not exist: there is no 'trian.csv' in 'FOLDER', did you mean 'train.csv'?",
        "trian.csv",
    ),
    Case("no such folder", None, "data/train.csv does not exist: there is no 'data' in 'FOLDER'", "data/train.csv"),
    Case("folder as file", None, "data.train: FOLDER is a folder", "", {"train": "FOLDER"}),
    Case("pattern without a match", None, "data.train: no file matches train-*.csv", "train-*.csv"),
    Case(
        "one file for both",
        None,
        "train.csv is in data.train and in data.validation",
        settings={"validation": "FOLDER/train.csv"},
    ),
    Case(
        "one file twice",
        None,
        "train.csv is in data.train twice; name it once",
        settings={"train": ["FOLDER/train.csv", "FOLDER/t*.csv"]},
    ),
    # formats and encodings
    Case("unknown end", GOOD, "train.txt: the name does not tell the format", "train.txt"),
    Case("misspelt end", GOOD, "train.cvs: the name does not tell the format, did you mean '.csv'", "train.cvs"),
    Case(
        "packed Parquet",
        GOOD,
        "train.parquet.gz: the name does not tell the format, did you mean '.parquet'",
        "train.parquet.gz",
    ),
    Case("nothing in it", "", "train.csv is empty"),
    Case("only blank lines", "\n  \n", "train.jsonl is empty", "train.jsonl"),
    Case("header only", "text,label\n", "train.csv has no examples"),
    Case("not packed", GOOD, "train.csv.gz cannot be unpacked: Not a gzipped file (b'te')", "train.csv.gz"),
    Case(
        "cut short",
        gzip.compress(GOOD.encode())[:-9],
        "train.csv.gz cannot be unpacked: Compressed file ended",
        "train.csv.gz",
    ),
    Case("not UTF-8", "text,label\na,x\nKöln,y\n".encode("latin-1"), "train.csv, line 3: byte 0xf6 is not UTF-8"),
    Case("UTF-16", GOOD.encode("utf-16"), "train.csv, line 1: byte 0xff is not UTF-8"),
    Case(
        "no Parquet",
        GOOD,
        "train.parquet cannot be read as Parquet: Parquet magic bytes not found in footer",
        "train.parquet",
    ),
    # columns and rows
    Case(
        "missing column",
        GOOD.replace("text", "txet"),
        "train.csv, line 1: no column 'text', did you mean 'txet'?; the columns are 'txet, label'",
    ),
    Case("no header", "a,x\nb,y\n", "train.csv, line 1: no column 'label'; the columns are 'a, x'"),
    Case(
        "column twice", "text,label,label\na,x,x\n", "train.csv, line 1: the column 'label' stands 2 times; leave one"
    ),
    Case(
        "another delimiter",
        GOOD.replace(",", ";"),
        "train.csv, line 1: the header is one column, 'text;label'; set data.delimiter to ';'",
    ),
    Case(
        "missing pair",
        GOOD,
        "train.csv, line 1: no column 'secondtext'; the columns are 'text, label'",
        settings={"text_pair": "secondtext"},
    ),
    Case("too few columns", GOOD + "e\nf,x\ng\n", "train.csv, lines 6 and 8: 1 column, not 2 as in the header, in 'e'"),
    Case(
        "many bad rows",
        GOOD + "e\n" * 1200,
        "validation.csv, lines 6, 7, 8, 9, 10, ... (1,200 in all): 1 column, not 2 as in the header, in 'e'",
        "validation.csv",
    ),
    Case(
        "quoted fields in TSV",
        'text\tlabel\n"a\nb"\tx\n',
        "train.tsv, line 2: 1 column, not 2 as in the header, in '\"a'",
        "train.tsv",
    ),
    Case("quote never closed", GOOD + 'e,x\n"f,y\ng,x\n', "train.csv, line 7: a quote is opened and never closed"),
    Case("text after a quote", GOOD + '"e\nf" and,x\n', "train.csv, line 6: text follows a closing quote"),
    Case(
        "bad JSON",
        json_lines('{"text": "a"', "[", "", "x"),
        "train.jsonl, lines 5, 6 and 8: no JSON (Expecting ',' delimiter, at character 13) in '{\"text\": \"a\"'",
        "train.jsonl",
    ),
    Case(
        "JSON list",
        '[{"text": "a", "label": "x"}]',
        'train.jsonl, line 1: no JSON object ({key: value, ...}) in \'[{"text": "a", "label": "x"}]\'',
        "train.jsonl",
    ),
    Case(
        "missing key",
        json_lines().replace("label", "labels"),
        "train.jsonl: no column 'label', did you mean 'labels'?; the columns are 'text, labels'",
        "train.jsonl",
    ),
    Case(
        "key twice",
        json_lines('{"text": "a", "label": "x", "label": "y"}'),
        'train.jsonl, line 5: the key \'label\' twice in \'{"text": "a", "label": "x", "label": "y"}\'',
        "train.jsonl",
    ),
    Case(
        "half a character",
        json_lines('{"text": "a\\ud83d", "label": "x"}'),
        'train.jsonl, line 5: half of an escaped character in \'{"text": "a\\\\ud83d", "label": "x"}\'',
        "train.jsonl",
    ),
    Case(
        "missing Parquet column",
        [{"txt": "a", "label": 1}],
        "train.parquet: no column 'text', did you mean 'txt'?; the columns are 'txt, label'",
        "train.parquet",
    ),
    # texts
    Case("empty texts", GOOD + ",x\ne,y\n  ,x\n", "train.csv, lines 6 and 8: the text is empty ('')"),
    Case(
        "null text",
        json_lines('{"text": null, "label": "x"}', '{"label": "x"}'),
        "train.jsonl, lines 5 and 6: None stands where a text must be",
        "train.jsonl",
    ),
    Case(
        "number as text",
        json_lines('{"text": 5, "label": "x"}'),
        "train.jsonl, line 5: 5 stands where a text must be",
        "train.jsonl",
    ),
    # labels
    Case("missing labels", GOOD + "e,\nf, \n", "train.csv, lines 6 and 7: there is no label ('')"),
    Case(
        "missing labels of many",
        GOOD + "e,\n" * 7,
        "validation.csv, lines 6, 7, 8, 9, 10, ... (7 in all): there is no label ('')",
        "validation.csv",
    ),
    Case(
        "null label",
        json_lines('{"text": "e", "label": null}', '{"text": "f"}'),
        "train.jsonl, lines 5 and 6: there is no label (None)",
        "train.jsonl",
    ),
    Case(
        "nulls in Parquet",
        rows(1, 0, None, 1, 0, None),
        "train.parquet, rows 3 and 6: there is no label (None)",
        "train.parquet",
    ),
    Case("missing test label", GOOD + "e,\n", "test.csv, line 6: there is no label ('')", "test.csv"),
    Case(
        "unknown labels",
        GOOD + "e,xx\nf,z\n",
        "validation.csv, lines 6 and 7: the label 'xx' is unknown, did you mean 'x'",
        "validation.csv",
    ),
    Case(
        "misspelt label",
        GOOD.replace(",x", ",fine").replace("c,fine", "c,Fine"),
        "validation.csv, lines 2 and 4: the label 'fine' is unknown",
        "validation.csv",
    ),
    Case(
        "label outside the classes",
        GOOD,
        "train.csv, lines 3 and 5: the label 'y' is unknown",
        settings={"classes": ["x", "z"]},
    ),
    Case(
        "class without examples",
        GOOD,
        "train.csv: no training example has the class 'z'",
        settings={"classes": ["x", "y", "z"]},
    ),
    Case(
        "class not in validation",
        "text,label\ne,x\n",
        "validation.csv: no validation example has the class 'y'",
        "validation.csv",
    ),
    Case(
        "one example of a class",
        GOOD + "e,yy\n",
        "train.csv, line 6: the class 'yy' has this one training example, did you mean 'y'",
    ),
    Case("one class", GOOD.replace("y", "x"), "train.csv: every label is 'x'"),
    Case(
        "words and numbers",
        GOOD + "e,1\nf,1\n",
        "train.csv, line 6: the label '1' is a number, but 'x' in train.csv, line 2 is a word",
    ),
    Case(
        "booleans and words",
        json_lines('{"text": "e", "label": true}'),
        "train.jsonl, line 5: the label True is a boolean, but 'x' in train.jsonl, line 1",
        "train.jsonl",
    ),
    Case(
        "fractions",
        "text,label\na,0.5\nb,1\nc,1.5\n",
        "train.csv, lines 2 and 4: the label '0.5' is a number with a fraction",
    ),
    Case(
        "many numbers",
        "text,label\n" + "".join(f"a,{number}\n" for number in range(42)),
        "train.csv: the labels are 42 different numbers",
    ),
    Case(
        "list as label",
        json_lines('{"text": "e", "label": ["x"]}'),
        "train.jsonl, line 5: the label is ['x']",
        "train.jsonl",
        {"kind": "classification"},
    ),
    Case(
        "object as label",
        json_lines('{"text": "e", "label": {"x": 1}}'),
        "train.jsonl, line 5: the label is {'x': 1}",
        "train.jsonl",
    ),
    Case(
        "infinite label",
        json_lines('{"text": "e", "label": Infinity}'),
        "train.jsonl, line 5: the label is inf, but must be a word, a finite number or a boolean",
        "train.jsonl",
    ),
    # scores
    Case(
        "not a number",
        "text,label\na,0.5\nb,nan\nc,inf\n",
        "train.csv, lines 3 and 4: the label is 'nan'",
        settings=SCORES,
    ),
    Case(
        "missing score",
        rows(0.5, float("nan")),
        "train.parquet, row 2: there is no label (nan)",
        "train.parquet",
        SCORES,
    ),
    Case("word as score", GOOD, "train.csv, lines 2, 3, 4 and 5: the label is 'x'", settings=SCORES),
    Case("decimal comma", 'text,label\na,"0,5"\n', "train.csv, line 2: the label is '0,5'", settings=SCORES),
    Case(
        "boolean as score", rows(True, False), "train.parquet, rows 1 and 2: the label is True", "train.parquet", SCORES
    ),
    Case("equal scores", "text,label\na,3\nb,3.0\n", "train.csv: every label is 3", settings=SCORES),
    # several labels
    Case(
        "text of several",
        GOOD,
        "train.csv, lines 2, 3, 4 and 5: the label is 'x', but must be a list",
        settings={"kind": "multilabel"},
    ),
    Case(
        "list beside a word",
        json_lines('{"text": "e", "label": ["x"]}'),
        "train.jsonl, lines 1, 2, 3 and 4: the label is 'x', but must be a list",
        "train.jsonl",
    ),
    Case(
        "hole in a list",
        [{"text": "a", "label": ["x", None]}, {"text": "b", "label": [""]}],
        "train.parquet, rows 1 and 2: the label is ['x', None]",
        "train.parquet",
    ),
    Case(
        "no list",
        [{"text": "a", "label": ["x"]}, {"text": "b", "label": None}],
        "train.parquet, row 2: there is no label (None)",
        "train.parquet",
    ),
    Case("no class at all", "text,label\na,\nb,\n", "train.csv: no example has a label", settings=SEVERAL),
    Case(
        "class not in validation of several",
        "text,label\na,y\nb,\n",
        "validation.csv: no validation example has the class 'x'",
        "validation.csv",
        SEVERAL,
    ),
    Case(
        "one example of a class of several",
        "text,label\na,x;y\nb,\nc,y\n",
        "train.csv, line 2: the class 'x' has this one training example",
        settings=SEVERAL,
    ),
    Case(
        "unknown class of several",
        "text,label\na,x;y\nb,x;w\n",
        "validation.csv, line 3: the label 'w' is unknown",
        "validation.csv",
        SEVERAL,
    ),
    # metrics
    Case(
        "metric of another kind",
        GOOD,
        "data.metrics: pearson does not fit a classification task",
        settings={"metrics": ["accuracy", "pearson"]},
    ),
)


def refusal(folder: Path, content: Any, file: str, split: str, settings: dict[str, Any]) -> str:
    paths = {"train": folder / "train.csv", "validation": folder / "validation.csv"}
    for path in paths.values():
        path.write_text(GOOD, encoding="utf-8")
    paths[split] = folder / file
    if isinstance(content, list):
        write_table(paths[split], content)
    elif content is not None:
        paths[split].write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused_task("mine", files(**{key: str(path) for key, path in paths.items()} | settings))
    return message.replace(f"{folder}/", "").replace(str(folder), "FOLDER")


def test_the_table_is_complete() -> None:
    assert len(CASES) == 70
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_one_line_with_file_and_rows(case: Case, tmp_path: Path) -> None:
    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(member) for member in value]
        return value.replace("FOLDER", str(tmp_path)) if isinstance(value, str) else value

    settings = {key: placed(value) for key, value in case.settings.items()}
    message = refusal(tmp_path, case.content, case.file, case.split, settings)
    assert len(message) < 300
    assert message.startswith(case.says), message
