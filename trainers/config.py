"""The settings of one training job, typed and checked when they are made.

Nothing heavy is imported here: the command line reads these before it decides whether to load torch at all.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from stkd.trainers.errors import MisplacedError
from stkd.trainers.labels import class_name, is_label
from stkd.trainers.tasks import FITTING_METRICS, Kind, did_you_mean

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]

KNOWN_FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "mpnet",
    "deberta",
    "deberta-v2",
    "modernbert",
)
"""The encoder families (`model_type` of a checkpoint) that `stkd.trainers.families` declares, told without torch."""


Scorer = Literal["knowledge", "expressiveness", "friendliness", "magnitude", "random"]


class Config(BaseModel):
    """Base of all settings: frozen, no unknown keys, no silent conversion of types, no infinite numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TrainingConfig(Config):
    """How a model is trained, teacher and student alike."""

    epochs: PositiveInt = 3
    """Passes over the training examples; after each, the model is evaluated, and the best one is kept."""
    patience: PositiveInt | None = None
    """Stop after so many evaluations without a better score; null trains to the end."""
    batch_size: PositiveInt = 16
    """Examples in one optimizer step, over all ranks and accumulation steps together."""
    accumulation: PositiveInt = 1
    """Micro-batches that one rank sums before an optimizer step."""
    learning_rate: PositiveFloat = 5.0e-5
    """The highest, at the end of the warm-up."""
    warmup: Fraction = 0.1
    """Share of all steps in which the learning rate rises linearly; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """AdamW's."""
    gradient_clipping: PositiveFloat = 1.0
    """The largest norm of a step's gradient; a larger one is scaled down to it."""
    max_length: PositiveInt = 128
    """Tokens after which a text is cut."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` is bf16 where the hardware computes it natively, fp32 elsewhere."""
    seed: Annotated[int, Field(ge=0)] = 776
    """Of the order of the examples, of dropout, and of new weights."""


class DistillationConfig(Config):
    """What of the teacher the student learns from. Terms as in Yang, Zhang, Song (EMNLP 2022)."""

    interpolation: Fraction = 0.5
    """lambda: knowledge = lambda * expressiveness + (1 - lambda) * friendliness."""
    sparsity: Sparsity = 0.0
    """Share of the teacher's heads, and of its neurons, removed."""
    head_sparsity: Sparsity | None = None
    """Share of the heads removed, where it is not `sparsity`."""
    neuron_sparsity: Sparsity | None = None
    """Share of the neurons removed, where it is not `sparsity`."""
    neuron_multiple: PositiveInt = 1
    """Each layer loses a multiple of so many neurons, as near to its own share as can be: 8 suits tensor cores."""
    scorer: Scorer = "knowledge"
    """What units are ranked by; `knowledge` mixes expressiveness and friendliness, the others take no interpolation."""
    temperature: PositiveFloat = 2.0
    """What logits are divided by before the student imitates them: the higher, the softer the teacher's answers."""
    hard_weight: Fraction = 0.5
    """Weight of the loss against the labels; the rest goes to the loss against the teacher."""


class ScoringConfig(Config):
    """On which data, and at which temperature of the distillation loss, the teacher's units are scored."""

    examples: PositiveInt | None = 2048
    """The first so many training examples of a seeded shuffle; null scores on all of them."""
    temperature: PositiveFloat = 2.0
    """Of the distillation loss whose gradient is the friendliness."""
    batch_size: PositiveInt = 32
    """Examples whose mean gradient `reduction: batch` takes; otherwise batches are what the device reads best."""
    reduction: Literal["example", "batch"] = "example"
    """Absolute values are taken of each example's gradient, or of a batch's mean gradient as the paper's code does."""


class StudentConfig(Config):
    """What the student is, and where its initial weights come from."""

    init: Literal["drop_layers", "prune_units", "pretrained"] = "drop_layers"
    """Some of the teacher's layers; all of them, without the heads and neurons that the task needs least; or another
    encoder, of any family and with a tokenizer of its own."""
    layers: PositiveInt = 3
    """`drop_layers`: how many of the teacher's layers."""
    keep: Literal["first", "last", "even"] = "first"
    """`drop_layers`: which of them."""
    sparsity: Sparsity = 0.7
    """`prune_units`: the share of the teacher's heads, and of its neurons, that the student lacks."""
    model: str | None = None
    """`pretrained`: a hub id, a local folder, or `package:NAME/FOLDER`."""


def _one_or_many(given: object) -> object:
    """A single text stands for a list of one, null for an empty one."""
    many = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(many, list | tuple) or not all(isinstance(member, str) and member for member in many):
        raise ValueError("must be a text or a list of texts, none of them empty")
    return tuple(many)


def _class_names(given: object) -> object:
    """The classes as the texts that they are called by; a list from the file may hold words, numbers and booleans."""
    if given is None:
        return None
    if not isinstance(given, list | tuple) or not all(is_label(member) for member in given):
        raise ValueError("must be a list of words, numbers or booleans, as in [negative, positive]")
    names = tuple(class_name(member) for member in given)
    if len(set(names)) < max(2, len(names)) or not all(names):
        raise ValueError("must be two classes or more, none of them empty or twice")
    return names


def encoding_name(name: str) -> str:
    """The name of an encoding; raises ValueError where Python does not know it."""
    try:
        "a".encode(name)
    except (LookupError, UnicodeError):
        raise ValueError("must be an encoding that Python knows, as utf-8, latin-1, cp1252 or utf-16") from None
    return name


def one_character(character: str) -> str:
    """What stands between columns; raises ValueError where it cannot."""
    if len(character) != 1 or character in '"\r\n':
        raise ValueError('must be one character, and neither a quote nor a line break, as ";" or "\\t"')
    return character


def _known_metric(name: str) -> str:
    known = list(dict.fromkeys(metric for metrics in FITTING_METRICS.values() for metric in metrics))
    if name not in known:
        raise ValueError(f"unknown metric{did_you_mean(name, known)}; must be one of {', '.join(known)}")
    return name


_Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
_Filled = Annotated[str, Field(min_length=1)]


class DataConfig(Config):
    """Where a task's examples come from. All keys below `seed` are of `source: files` alone."""

    source: Literal["hub", "glue_dir", "datasets_dir", "files", "generated"] = "hub"
    """The Hugging Face hub; a folder of GLUE's official files; one that `save_to_disk` wrote; your own files; or the
    generated task `remarks`."""
    path: str | None = None
    """`glue_dir`: the folder with one sub-folder per task (`MRPC/train.tsv`, ...). `hub`: the data set's name, or a
    folder of its Parquet files. `datasets_dir`: the folder with what `save_to_disk` wrote, in one sub-folder per task
    (`mrpc`, ...) or as it is."""
    selection: Literal["held_out", "official"] = "held_out"
    """What students are chosen by. `held_out` keeps a test apart that nothing was chosen by: examples held out from
    training stand in for the split that the source lacks. `official` chooses and tests on validation, as the paper."""
    held_out_examples: PositiveInt | None = None
    """How many are held out; null takes a tenth, and at most 2,000."""
    train_examples: PositiveInt | None = None
    """Only the first so many training examples of a seeded shuffle; null takes all."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generated task and of the sample of training examples."""

    train: _Texts = ()
    """Training files: a path, a pattern such as `data/train-*.csv`, or a list of them."""
    validation: _Texts = ()
    """Files of the examples that students are compared on."""
    test: _Texts = ()
    """Files of examples that nothing is chosen by; may be left out."""
    format: Literal["csv", "tsv", "jsonl", "parquet"] | None = None
    """null: what the file's name ends with; `.gz` after it is unpacked."""
    text: _Filled = "text"
    """The column (in JSON: the key) of the text."""
    text_pair: _Filled | None = None
    """The column of the second text, where a task has pairs."""
    label: _Filled = "label"
    """The column of the label: a word, a number, true or false; for multi-label a list or a text with a separator."""
    kind: Kind | None = None
    """null: found from the training labels. Lists are multi-label; words, booleans and up to 20 whole numbers are
    classes; for other numbers it must be said whether they are classes or scores."""
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_class_names)] = None
    """The classes in order; null: those of the training examples, words by alphabet, numbers by size."""
    separator: _Filled | None = None
    """What stands between the classes of a multi-label text; a text without a class is one that none applies to."""
    encoding: Annotated[str, AfterValidator(encoding_name)] = "utf-8"
    """Of CSV, TSV and JSON lines."""
    delimiter: Annotated[str, AfterValidator(one_character)] | None = None
    """What stands between two columns; null: a comma in CSV, a tab in TSV."""
    quoting: bool | None = None
    """Whether quotes (") enclose fields, which may then hold delimiters and line breaks; null: in CSV, not in TSV."""
    metrics: Annotated[tuple[Annotated[str, AfterValidator(_known_metric)], ...], BeforeValidator(_one_or_many)] = ()
    """A student's score is their mean; null: accuracy, for scores pearson and spearman, for multi-label F1s."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if self.source == "files":
            _check_paths(self)
            _check_columns(self)
            _check_kind(self)
        else:
            _check_unused(self)
        return self


FILES_KEYS = (
    *("train", "validation", "test", "format", "text", "text_pair", "label", "kind", "classes", "separator"),
    *("encoding", "delimiter", "quoting", "metrics"),
)
"""The settings of `source: files` alone."""


def _check_unused(data: DataConfig) -> None:
    for key in data.model_dump(exclude_defaults=True, include={*FILES_KEYS}):
        raise MisplacedError((key,), "is read by data.source files only; set that source, or leave this out")


def _check_paths(data: DataConfig) -> None:
    for key, files in (("train", data.train), ("validation", data.validation)):
        if not files:
            raise MisplacedError((key,), "data.source files needs a file here, as train.csv, or a list of files")
    if data.path is not None:
        raise MisplacedError(("path",), "data.source files reads data.train and data.validation; leave the path out")


def _check_columns(data: DataConfig) -> None:
    if data.label in (data.text, data.text_pair):
        raise MisplacedError(("label",), "is the column of a text; a label has a column of its own")
    if data.text_pair == data.text:
        raise MisplacedError(("text_pair",), "is the column of the first text; a second text has a column of its own")


def _check_kind(data: DataConfig) -> None:
    if data.separator is not None and data.kind not in (None, "multilabel"):
        raise MisplacedError(("separator",), f"is for data.kind multilabel, not {data.kind}; leave it out")
    if data.classes is not None and data.kind == "regression":
        raise MisplacedError(("classes",), "data.kind regression has no classes; leave them out")
