"""GLUE from its official files, and the task that stkd makes by itself."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls_in
from refused import refused_task

from stkd.trainers import generated
from stkd.trainers.config import DataConfig
from stkd.trainers.sources import Examples, load_task

GLUE = Path(__file__).parents[1].parent / "shared" / "glue"
OFFICIAL_ROWS = {
    "rte": (2490, 277),
    "mrpc": (3668, 408),
    "cola": (8551, 1043),
    "stsb": (5749, 1500),
    "sst2": (67349, 872),
    "wnli": (635, 71),
}
HEAVY = ("torch", "ray", "mlflow", "transformers", "sklearn", "scipy", "pandas", "datasets", "pyarrow")

# Two training rows of every task in the official layout: folder, validation file, text.
TSV = {
    "cola": ("CoLA", "dev.tsv", "gj04\t1\t\tThe cat sat.\ngj04\t0\t*\tCat the sat.\n"),
    "sst2": ("SST-2", "dev.tsv", "sentence\tlabel\na dull film \t0\na fine film \t1\n"),
    "mrpc": (
        "MRPC",
        "dev.tsv",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        '1\t7\t8\tHe said "so.\tHe said so."\n'
        "0\t9\t10\tÜber \"all.\tNothing 'new\u2028here.\n",
    ),
    "stsb": (
        "STS-B",
        "dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tg\tf\t2012\t1\tn\tn\tA plane.\tAn air plane.\t5.000\n"
        "1\tg\tf\t2012\t2\tn\tn\tA man.\tA dog.\t0.250\n",
    ),
    "qqp": (
        "QQP",
        "dev.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "1\t2\t3\tWhy?\tHow?\t0\n"
        '4\t5\t6\t"torn\n'
        "\tin two?\t0\n"
        "7\t8\t9\tWho?\t\t1\n",
    ),
    "mnli": (
        "MNLI",
        "dev_matched.tsv",
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
        "0\tp\th\tneutral\tneutral\n1\tp\th\tentailment\tentailment\n2\tp\th\tcontradiction\tcontradiction\n",
    ),
    "qnli": (
        "QNLI",
        "dev.tsv",
        "index\tquestion\tsentence\tlabel\n0\tq\ts\tnot_entailment\n1\tq\ts\tentailment\n",
    ),
    "rte": (
        "RTE",
        "dev.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\ta\tb\tentailment\n",
    ),
    "wnli": ("WNLI", "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t0\n1\ta\tb\t1\n"),
}
LABELS = {
    "cola": [1, 0],
    "sst2": [0, 1],
    "mrpc": [1, 0],
    "stsb": [5.0, 0.25],
    "qqp": [0, 1],
    "mnli": [1, 0, 2],
    "qnli": [1, 0],
    "rte": [1, 0],
    "wnli": [0, 1],
}


def write_glue(root: Path, name: str, train: str | bytes | None = None) -> DataConfig:
    folder, validation, text = TSV[name]
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / validation).write_text(text, encoding="utf-8")
    train = text if train is None else train
    (root / folder / "train.tsv").write_bytes(train if isinstance(train, bytes) else train.encode())
    return DataConfig(source="glue_dir", path=str(root), selection="official")


# glue_dir


@pytest.mark.parametrize("name", TSV)
def test_every_task_is_read_in_its_official_layout(tmp_path: Path, name: str) -> None:
    data = load_task(name, write_glue(tmp_path, name))
    assert data.train == data.validation
    assert data.train.labels == LABELS[name]
    assert {type(label) for label in data.train.labels} == {float if name == "stsb" else int}
    assert (data.train.pairs is None) == (name in ("cola", "sst2"))


def test_texts_are_taken_as_they_are(tmp_path: Path) -> None:
    train = load_task("mrpc", write_glue(tmp_path, "mrpc")).train
    assert train.texts == ['He said "so.', 'Über "all.']
    assert train.pairs == ['He said so."', "Nothing 'new\u2028here."]


def test_torn_rows_of_qqp_are_left_out_and_empty_questions_kept(tmp_path: Path) -> None:
    train = load_task("qqp", write_glue(tmp_path, "qqp")).train
    assert train == Examples(["Why?", "Who?"], ["How?", ""], [0, 1])


@pytest.mark.parametrize("name", ["mrpc", "cola"])
def test_byte_order_mark_line_ends_and_last_line_do_not_matter(tmp_path: Path, name: str) -> None:
    plain = load_task(name, write_glue(tmp_path, name))
    text = TSV[name][2]
    for variant in ("\ufeff" + text, text.replace("\n", "\r\n"), text.removesuffix("\n"), text + "\n"):
        assert load_task(name, write_glue(tmp_path, name, variant)) == plain


def test_a_field_may_be_long(tmp_path: Path) -> None:
    word = "long " * 100_000
    train = load_task("sst2", write_glue(tmp_path, "sst2", f"sentence\tlabel\n{word}\t0\nshort\t1\n")).train
    assert train.texts[0] == word


Break = Callable[[str], str | bytes]


def replaced(old: str, new: str) -> Break:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


BAD_FILES: dict[str, tuple[str, Break, tuple[str, ...]]] = {
    "unknown label": (
        "rte",
        replaced("b\tentailment", "b\tentailmnt"),
        ("train.tsv, line 3:", "'entailmnt'", "'entailment', 'not_entailment'"),
    ),
    "unknown number": (
        "mrpc",
        replaced("0\t9", "2\t9"),
        ("train.tsv, line 3:", "'2'", "'0' (not_equivalent), '1' (equivalent)"),
    ),
    "label without header": ("cola", replaced("gj04\t0", "gj04\tno"), ("train.tsv, line 2:", "'no'")),
    "no label": ("sst2", replaced("film \t1", "film \t"), ("train.tsv, line 3:", "no label", "'1' (positive)")),
    "label of a test split": ("sst2", replaced("film \t1", "film \t-1"), ("train.tsv, line 3:", "'-1'")),
    "empty label column": (
        "sst2",
        lambda text: text.replace("\t0", "\t").replace("\t1", "\t"),
        ("train.tsv, line 2:", "no label"),
    ),
    "score above": ("stsb", replaced("0.250", "5.1"), ("train.tsv, line 3:", "'5.1'", "a number from 0 to 5")),
    "score not a number": ("stsb", replaced("0.250", "nan"), ("train.tsv, line 3:", "'nan'", "from 0 to 5")),
    "score is a word": ("stsb", replaced("0.250", "high"), ("train.tsv, line 3:", "'high'", "from 0 to 5")),
    "no score": ("stsb", replaced("0.250", ""), ("train.tsv, line 3:", "no label")),
    "empty text": ("mrpc", replaced('He said "so.', "  "), ("train.tsv, line 2:", "text is empty", "'  '")),
    "empty pair": ("rte", replaced("b\tentailment", "\tentailment"), ("train.tsv, line 3:", "text is empty")),
    "too few columns": ("rte", replaced("1\ta\tb", "1\tab"), ("train.tsv, line 3:", "3 columns, not 4", "1\\tab")),
    "too many columns": ("rte", replaced("1\ta\tb", "1\ta\tb\tc"), ("train.tsv, line 3:", "5 columns, not 4")),
    "too many columns in qqp": ("qqp", replaced("Who?", "Wh\to?"), ("train.tsv, line 5:", "7 columns, not 6")),
    "a blank line": ("sst2", replaced("0\n", "0\n\n"), ("train.tsv, line 3:", "1 columns, not 2", "''")),
    "columns without header": ("cola", replaced("\t*\t", "\t"), ("train.tsv, line 2:", "3 columns, not 4")),
    "missing column": (
        "mrpc",
        replaced("#2 String", "#2 Strng"),
        ("train.tsv, line 1:", "no column '#2 String', did you mean '#2 Strng'?", "#1 String"),
    ),
    "missing label column": ("sst2", replaced("sentence\tlabel", "sentence\tclass"), ("line 1:", "no column 'label'")),
    "class never shown": (
        "sst2",
        replaced("\t1", "\t0"),
        ("train.tsv:", "no example has the label '1' (positive)"),
    ),
    "header only": ("sst2", lambda text: text.split("\n")[0], ("train.tsv has no examples",)),
    "nothing": ("cola", lambda text: "\n", ("train.tsv is empty",)),
    "not utf-8": ("mrpc", lambda text: text.encode("latin-1", "replace"), ("train.tsv, line 3:", "byte 0xdc")),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    name, change, expected = BAD_FILES[case]
    message = refused_task(name, write_glue(tmp_path, name, change(TSV[name][2])))
    assert [part for part in expected if part not in message] == [], message


def test_the_validation_file_is_checked_too(tmp_path: Path) -> None:
    config = write_glue(tmp_path, "sst2")
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nfine\tyes\n")
    assert "dev.tsv, line 2: the label is 'yes'" in refused_task("sst2", config)
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nonly one class\t1\n")
    assert load_task("sst2", config).validation.labels == [1]


@pytest.mark.parametrize("name", TSV)
def test_a_test_file_is_left_alone(tmp_path: Path, name: str) -> None:
    config = write_glue(tmp_path, name)
    without = load_task(name, config)
    for file in ("test.tsv", "test_matched.tsv", "test_mismatched.tsv"):
        (tmp_path / TSV[name][0] / file).write_bytes(b"index\tsentence\n0\t\xff unlabelled\n")
    assert load_task(name, config) == without


def test_mismatched_mnli_has_the_training_examples_of_mnli(tmp_path: Path) -> None:
    config = write_glue(tmp_path, "mnli")
    (tmp_path / "MNLI" / "dev_mismatched.tsv").write_text(TSV["mnli"][2].replace("\tp\t", "\tother\t"))
    matched, mismatched = load_task("mnli", config), load_task("mnli_mm", config)
    assert matched.train == mismatched.train
    assert (matched.validation.texts, mismatched.validation.texts) == (["p"] * 3, ["other"] * 3)


def test_a_missing_path_names_what_is_near(tmp_path: Path) -> None:
    write_glue(tmp_path / "glue", "mrpc")
    for path, expected in {
        tmp_path / "gleu": "no 'gleu' in",
        tmp_path / "gleu" / "deep": "did you mean 'glue'?",
        tmp_path / "glue" / "MRPC": "dev.tsv, train.tsv",
        tmp_path / "glue" / "MRPC" / "train.tsv": "is a file, not a folder",
    }.items():
        assert expected in refused_task("mrpc", DataConfig(source="glue_dir", path=str(path)))
    (tmp_path / "glue" / "MRPC").rename(tmp_path / "glue" / "MPRC")
    assert "did you mean 'MPRC'?" in refused_task("mrpc", DataConfig(source="glue_dir", path=str(tmp_path / "glue")))


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    config = write_glue(tmp_path, "mnli")
    (tmp_path / "MNLI" / "dev_matched.tsv").rename(tmp_path / "MNLI" / "dev.tsv")
    message = refused_task("mnli", config)
    assert "dev_matched.tsv does not exist" in message
    assert "dev.tsv" in message


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    config = write_glue(tmp_path, "rte")
    (tmp_path / "RTE" / "dev.tsv").unlink()
    (tmp_path / "RTE" / "dev.tsv").mkdir()
    assert "dev.tsv cannot be read: Is a directory" in refused_task("rte", config)


def test_glue_dir_needs_a_path() -> None:
    assert "data.path is not set" in refused_task("mrpc", DataConfig(source="glue_dir"))


def test_an_unknown_task_is_refused() -> None:
    assert "did you mean 'mrpc'?" in refused_task("mrcp", DataConfig())


# The sample and the fingerprint


def test_a_sample_is_the_start_of_a_seeded_shuffle(tmp_path: Path) -> None:
    rows = "".join(f"{i}\tfirst {i}\tsecond {i}\t{i % 2}\n" for i in range(50))
    base = write_glue(tmp_path, "wnli", TSV["wnli"][2].split("\n")[0] + "\n" + rows)

    def sample(count: int, seed: int = 0) -> Examples:
        return load_task("wnli", base.model_copy(update={"train_examples": count, "seed": seed})).train

    large, small = sample(30), sample(10)
    assert len(small) == len(small.texts) == 10
    assert (large.texts[:10], large.labels[:10]) == (small.texts, small.labels)
    assert small.pairs == [text.replace("first", "second") for text in small.texts]
    assert small.labels == [int(text.split()[1]) % 2 for text in small.texts]
    assert sample(10) == small
    assert sample(10, seed=1) != small
    assert sorted(sample(1000).texts) == sorted(load_task("wnli", base).train.texts)


def test_the_fingerprint_is_of_name_and_contents(tmp_path: Path) -> None:
    config = write_glue(tmp_path / "one", "wnli")
    same = write_glue(tmp_path / "two", "wnli")
    other = write_glue(tmp_path / "three", "wnli", TSV["wnli"][2].replace("a\tb\t1", "ab\t \x01\t1"))
    prints = [load_task("wnli", each).fingerprint for each in (config, same, other)]
    assert len(prints[0]) == 16
    assert prints[0] == prints[1] != prints[2]
    assert load_task("wnli", config.model_copy(update={"train_examples": 1})).fingerprint != prints[0]


# generated


def test_the_generated_task_depends_on_the_seed_alone() -> None:
    data = load_task(generated.NAME, DataConfig(source="generated"))
    assert data == load_task(generated.NAME, DataConfig(source="generated"))
    assert (len(data.train), len(data.validation)) == (2000, 500)
    assert data.train.pairs is None
    assert set(data.train.labels) == set(range(data.task.outputs))
    assert data.fingerprint != load_task(generated.NAME, DataConfig(source="generated", seed=1)).fingerprint
    cut = load_task(generated.NAME, DataConfig(source="generated", train_examples=7))
    assert (len(cut.train), len(cut.validation)) == (7, 500)


def test_a_task_of_another_source_is_refused(tmp_path: Path) -> None:
    assert f"{generated.NAME!r} only, not 'mrpc'" in refused_task("mrpc", DataConfig(source="generated"))
    for config in (DataConfig(source="glue_dir", path=str(tmp_path)), DataConfig(source="hub")):
        assert "set data.source to 'generated'" in refused_task(generated.NAME, config)


# Real data, speed and imports


def test_official_files_have_their_official_rows() -> None:
    if not GLUE.is_dir():
        pytest.skip(f"there is no folder of GLUE files at {GLUE}")
    seen = {}
    for name in OFFICIAL_ROWS:
        data = load_task(name, DataConfig(source="glue_dir", path=str(GLUE), selection="official"))
        seen[name] = (len(data.train), len(data.validation))
    assert seen == OFFICIAL_ROWS
    assert len(seen) == 6


def test_a_task_of_the_size_of_mrpc_takes_little_work(tmp_path: Path) -> None:
    rows = "".join(f"1\t{i}\t{i}\t{'word ' * 20}{i}\t{'word ' * 20}{i}\n" for i in range(4000))
    config = write_glue(tmp_path, "mrpc", TSV["mrpc"][2] + rows)
    assert calls_in(lambda: load_task("mrpc", config)) < 4000 * 20


def test_files_and_the_generated_task_need_nothing_heavy(tmp_path: Path) -> None:
    write_glue(tmp_path, "mrpc")
    program = f"""
import sys
from stkd.trainers.config import DataConfig
from stkd.trainers.sources import load_task
load_task("mrpc", DataConfig(source="glue_dir", path=sys.argv[1], selection="official"))
load_task({generated.NAME!r}, DataConfig(source="generated"))
print([module for module in {HEAVY} if module in sys.modules])
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
