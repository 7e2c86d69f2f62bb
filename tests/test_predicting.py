"""Files scored with a student: every format in and out, in any form, rows in order, mistakes with their lines."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from tiny import MULTILABEL, REGRESSION, TASK, tiny_examples, tiny_teacher
from user_tables import FORMATS, write_table

from stkd.orchestrator import predicting
from stkd.orchestrator.cli import main
from stkd.search_spaces.reading import read_space, space_text
from stkd.trainers.batches import encode
from stkd.trainers.examples import Examples
from stkd.trainers.loop import predict
from stkd.trainers.models import load_classifier, load_saved, load_tokenizer, save_model
from stkd.trainers.predicting import Answers
from stkd.trainers.ranks import Ranks
from stkd.trainers.table_writers import table_writer
from stkd.trainers.tasks import Task

LENGTH = 8


def student(folder: Path, task: Task = TASK) -> Path:
    """A tiny student for the task, that reads so many tokens, and does not give the same answer to every text."""
    base = tiny_teacher(folder / "base", outputs=task.outputs)
    tokenizer = load_tokenizer(base)
    tokenizer.model_max_length = LENGTH
    model = load_classifier(base, task, seed=3)
    logits = predict(model, encode(tiny_examples(25, 4), tokenizer, LENGTH), Ranks())
    with torch.no_grad():
        model.get_parameter("classifier.bias").sub_(logits.mean(dim=0))  # not the median, which is one of them
    save_model(model, tokenizer, folder / "student")
    return folder / "student"


def expected(model: Path, texts: list[str], pairs: list[str] | None = None) -> Any:
    """The logits (N, C) of the student, one example after the other."""
    tokenizer, loaded = load_tokenizer(str(model)), load_saved(model)
    rows = [
        predict(loaded, encode(Examples([text], pairs and [pairs[place]], [0]), tokenizer, LENGTH), Ranks()).numpy()[0]
        for place, text in enumerate(texts)
    ]
    return np.stack(rows)


def scored(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)])


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_is_scored_window_by_window_in_order(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "WINDOW", 7)
    model, texts = student(tmp_path), tiny_examples(25, 4).texts
    source = write_table(
        tmp_path / f"in{ending}", [{"id": str(place), "text": text} for place, text in enumerate(texts)]
    )
    target = tmp_path / "out.jsonl"
    done = scored("--model", model, "--input", source, "--output", target)
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith(f"{target}: 25 rows, ")
    found, logits = read(target), expected(model, texts)
    unit, first = ("row", 1) if ending == ".parquet" else ("line", 1 if "jsonl" in ending else 2)
    assert list(found[0]) == [unit, "label", "score_negative", "score_positive"]
    assert [row[unit] for row in found] == list(range(first, first + 25))
    assert [row["label"] for row in found] == [TASK.class_names[place] for place in logits.argmax(axis=1)]
    assert {row["label"] for row in found} == {*TASK.class_names}
    odds = np.exp(logits[:, 1] - logits[:, 0])
    np.testing.assert_allclose([row["score_positive"] for row in found], odds / (1 + odds), atol=1e-5)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_task_is_written_in_every_format(tmp_path: Path, ending: str) -> None:
    texts = tiny_examples(6, 4).texts
    source = write_table(tmp_path / "in.csv", [{"text": text} for text in texts])
    several, number = student(tmp_path / "several", MULTILABEL), student(tmp_path / "number", REGRESSION)
    for model in (several, number):
        assert scored("--model", model, "--input", source, "--output", model / f"out{ending}").exit_code == 0
    rows = read(number / f"out{ending}")
    assert list(rows[0]) == ["line", "score"]
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected(number, texts)[:, 0], atol=1e-4)
    rows, logits = read(several / f"out{ending}"), expected(several, texts)
    assert list(rows[0]) == ["line", "label", "score_praise", "score_long", "score_film"]
    names = [[name for name, logit in zip(MULTILABEL.class_names, row, strict=True) if logit > 0] for row in logits]
    assert [row["label"] for row in rows] == [";".join(each) if ending in (".csv", ".tsv") else each for each in names]
    assert len({len(each) for each in names}) > 1
    likely = [[float(row[f"score_{name}"]) for name in MULTILABEL.class_names] for row in rows]
    np.testing.assert_allclose(likely, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_pairs_are_read_where_the_student_reads_them(tmp_path: Path) -> None:
    model, examples, others = student(tmp_path), tiny_examples(9, 4).texts, tiny_examples(9, 5).texts
    rows = [{"text": first, "text_pair": second} for first, second in zip(examples, others, strict=True)]
    source = write_table(tmp_path / "in.csv", rows)
    logits = expected(model, examples, others)
    glue = ["tasks=[mrpc]", "data={source: glue_dir, path: somewhere}"]
    (model / "space.yaml").write_text(space_text(read_space(Path("quickstart"), glue)))
    for place, words in enumerate(([], ["--text-pair", "text_pair"])):
        target = tmp_path / f"out{place}.jsonl"
        assert scored("--model", model, "--input", source, "--output", target, *words).exit_code == 0
        assert [row["label"] for row in read(target)] == [TASK.class_names[best] for best in logits.argmax(axis=1)]
    own = ["tasks=[mine]", "data={source: files, train: a.csv, validation: b.csv, text: text_pair}"]
    (model / "space.yaml").write_text(space_text(read_space(Path("quickstart"), own)))
    assert scored("--model", model, "--input", source, "--output", tmp_path / "own.jsonl").exit_code == 0
    labels = [TASK.class_names[best] for best in expected(model, others).argmax(axis=1)]
    assert [row["label"] for row in read(tmp_path / "own.jsonl")] == labels
    (model / "space.yaml").write_text(space_text(read_space(Path("quickstart"))))
    done = scored("--model", model, "--input", source, "--text-pair", "text_pair")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "reads single texts; leave it out" in done.stderr


def test_without_an_output_csv_goes_to_the_screen(tmp_path: Path) -> None:
    source = write_table(tmp_path / "in.csv", [{"text": "a good film"}])
    done = scored("--model", student(tmp_path), "--input", source)
    assert done.exit_code == 0
    header, row = done.stdout.splitlines()
    assert header == "line,label,score_negative,score_positive"
    assert row.startswith("2,")
    assert done.stderr == ""


MISTAKES: Sequence[tuple[str, str | None, list[str], str]] = (
    ("no file", None, [], "in.csv does not exist"),
    ("no rows", "text\n", [], "in.csv has no examples"),
    ("empty", "", [], "in.csv is empty"),
    (
        "no column",
        "txt\na\n",
        [],
        "no column 'text', did you mean 'txt'?; the columns are 'txt'; set --text to the right",
    ),
    ("torn", "id,text\n1,a\n2,b,c\n3\n", [], "in.csv, lines 3 and 4: 3 columns, not 2 as in the header"),
    ("no text", "id,text\n1,a\n2,\n3,c\n4,\n", [], "in.csv, lines 3 and 5: the text is empty"),
    ("late", "text\n" + "a\n" * 30 + '""\n', [], "in.csv, line 32: the text is empty"),
    ("open quote", 'text\n"a\n', [], "in.csv, line 2: a quote is opened and never closed"),
    ("semicolons", "id;text\n1;a\n", [], "set --delimiter to ';'"),
    (
        "latin",
        "text\ncaf\xe9\n",
        [],
        "in.csv, line 2: byte 0xe9 is not UTF-8; save the file as UTF-8, or set --encoding",
    ),
    ("encoding", "text\na\n", ["--encoding", "utf-99"], "--encoding 'utf-99': must be an encoding that Python knows"),
    ("delimiter", "text\na\n", ["--delimiter", "ab"], "--delimiter 'ab': must be one character"),
    ("output", "text\na\n", ["--output", "out.xls"], "out.xls: the name does not tell the format"),
    ("there", "text\na\n", ["--output", "FOLDER/in.csv"], "in.csv is already there; choose another name, or remove it"),
    ("form", "text\na\n", ["--form", "onnx"], "has no model.onnx; `stkd export` writes it"),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[0])
def test_a_mistake_is_told_before_anything_is_scored(
    tmp_path: Path, mistake: tuple[str, str | None, list[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "WINDOW", 10)
    _, content, words, says = mistake
    source = tmp_path / "in.csv"
    if content is not None:
        source.write_bytes(content.encode("latin-1"))
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    done = scored("--model", student(tmp_path), "--input", source, *words)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    (line,) = done.stderr.splitlines()
    assert says in line


def test_what_is_no_student_is_told(tmp_path: Path) -> None:
    source = write_table(tmp_path / "in.csv", [{"text": "a good film"}])
    for model, says in (
        (tmp_path, "no student; give a folder that `stkd export` wrote"),
        (tmp_path / "x", "does not exist"),
    ):
        done = scored("--model", model, "--input", source)
        assert done.exit_code == 2
        assert says in done.stderr


def test_what_is_done_stays_where_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "WINDOW", 2)
    source = write_table(tmp_path / "in.csv", [{"text": text} for text in tiny_examples(6, 4).texts])
    of, windows = Answers.of, iter(range(2))

    def interrupted(task: Task, logits: Any) -> Answers:
        if next(windows, None) is None:
            raise KeyboardInterrupt
        return of(task, logits)

    monkeypatch.setattr(Answers, "of", interrupted)
    target = tmp_path / "out.csv"
    done = scored("--model", student(tmp_path), "--input", source, "--output", target)
    assert done.exit_code == 130
    assert done.stderr.strip() == f"stopped; the rows that are done are in {target}.part"
    assert not target.exists()
    assert len((tmp_path / "out.csv.part").read_text().splitlines()) == 1 + 4


def test_packed_texts_are_packed(tmp_path: Path) -> None:
    import gzip

    with table_writer(tmp_path / "out.csv.gz", "csv", packed=True) as write:
        write({"line": [2, 3], "label": ["a", "b, c"]})
        write({"line": [4], "label": ["d"]})
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode() == 'line,label\n2,a\n3,"b, c"\n4,d\n'
