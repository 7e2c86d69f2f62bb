"""The tasks that stkd knows: what a label is, which metrics are official, and how each source lays the task out."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from stkd.trainers import generated
from stkd.trainers.errors import UserError

Kind = Literal["classification", "regression", "multilabel"]
"""What an example gets: one of the classes, a number, or any number of the classes."""

FITTING_METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1", "f1", "matthews"),
    "regression": ("pearson", "spearman"),
    "multilabel": ("micro_f1", "macro_f1", "exact_match"),
}
"""Names in `stkd.trainers.metrics` of all metrics that a task of this kind can have."""

DEFAULT_METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "regression": ("pearson", "spearman"),
    "multilabel": ("micro_f1", "macro_f1"),
}
"""The metrics of a task that names none."""


@dataclass(frozen=True)
class TsvLayout:
    """Where a task lies in a folder of the official GLUE files, and what its columns are called.

    `labels` are the labels as the files spell them, in class order; empty for regression. `header` names the columns of
    files that have no header line.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...] = ()
    validation: str = "dev.tsv"
    header: tuple[str, ...] = ()
    torn_rows: bool = False
    """The official files hold some rows torn in two by a line break; they are left out, as in the hub's copy."""


@dataclass(frozen=True)
class HubLayout:
    """Where a task lies in the hub's `nyu-mll/glue`. The label column is always `label`, a class number or a score."""

    config: str
    texts: tuple[str, ...]
    validation: str = "validation"


@dataclass(frozen=True)
class Task:
    """A task: texts, or pairs of texts, to be sorted into classes or given a score.

    The score of a task is the mean of its `metrics` (names in `stkd.trainers.metrics`). `bounds` are the lowest and the
    highest label of a regression that has such. A source whose layout is None does not have the task.
    """

    name: str
    kind: Kind
    class_names: tuple[str, ...]
    metrics: tuple[str, ...]
    tsv: TsvLayout | None = None
    hub: HubLayout | None = None
    bounds: tuple[float, float] | None = None
    empty_texts: bool = False
    """Whether the official data holds empty texts, so that one is no mistake."""

    @property
    def outputs(self) -> int:
        """Width of the model's logits: the number of classes, or 1 for regression."""
        return len(self.class_names) or 1


_SENTENCE = ("sentence",)
_SENTENCES = ("sentence1", "sentence2")
_QUESTIONS = ("question1", "question2")
_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_INFERENCE = ("entailment", "neutral", "contradiction")

_MNLI = Task(
    name="mnli",
    kind="classification",
    class_names=_INFERENCE,
    metrics=("accuracy",),
    tsv=TsvLayout("MNLI", _SENTENCES, "gold_label", _INFERENCE, validation="dev_matched.tsv"),
    hub=HubLayout("mnli", ("premise", "hypothesis"), validation="validation_matched"),
)
_MNLI_MISMATCHED = replace(
    _MNLI,
    name="mnli_mm",
    tsv=TsvLayout("MNLI", _SENTENCES, "gold_label", _INFERENCE, validation="dev_mismatched.tsv"),
    hub=HubLayout("mnli", ("premise", "hypothesis"), validation="validation_mismatched"),
)

_TASKS = (
    Task(
        name="cola",
        kind="classification",
        class_names=("unacceptable", "acceptable"),
        metrics=("matthews",),
        tsv=TsvLayout("CoLA", _SENTENCE, "label", _BINARY, header=("source", "label", "mark", "sentence")),
        hub=HubLayout("cola", _SENTENCE),
    ),
    Task(
        name="sst2",
        kind="classification",
        class_names=("negative", "positive"),
        metrics=("accuracy",),
        tsv=TsvLayout("SST-2", _SENTENCE, "label", _BINARY),
        hub=HubLayout("sst2", _SENTENCE),
    ),
    Task(
        name="mrpc",
        kind="classification",
        class_names=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        tsv=TsvLayout("MRPC", ("#1 String", "#2 String"), "Quality", _BINARY),
        hub=HubLayout("mrpc", _SENTENCES),
    ),
    Task(
        name="stsb",
        kind="regression",
        class_names=(),
        metrics=("pearson", "spearman"),
        tsv=TsvLayout("STS-B", _SENTENCES, "score"),
        hub=HubLayout("stsb", _SENTENCES),
        bounds=(0.0, 5.0),
    ),
    Task(
        name="qqp",
        kind="classification",
        class_names=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        tsv=TsvLayout("QQP", _QUESTIONS, "is_duplicate", _BINARY, torn_rows=True),
        hub=HubLayout("qqp", _QUESTIONS),
        empty_texts=True,
    ),
    _MNLI,
    _MNLI_MISMATCHED,
    Task(
        name="qnli",
        kind="classification",
        class_names=_ENTAILMENT,
        metrics=("accuracy",),
        tsv=TsvLayout("QNLI", ("question", "sentence"), "label", _ENTAILMENT),
        hub=HubLayout("qnli", ("question", "sentence")),
    ),
    Task(
        name="rte",
        kind="classification",
        class_names=_ENTAILMENT,
        metrics=("accuracy",),
        tsv=TsvLayout("RTE", _SENTENCES, "label", _ENTAILMENT),
        hub=HubLayout("rte", _SENTENCES),
    ),
    Task(
        name="wnli",
        kind="classification",
        class_names=("not_entailment", "entailment"),
        metrics=("accuracy",),
        tsv=TsvLayout("WNLI", _SENTENCES, "label", _BINARY),
        hub=HubLayout("wnli", _SENTENCES),
    ),
    Task(name=generated.NAME, kind="classification", class_names=generated.CLASS_NAMES, metrics=("accuracy",)),
)

TASKS = {task.name: task for task in _TASKS}
"""All known tasks by name; a task of the user's own files is none of them."""


def find_task(name: str) -> Task:
    """Return the task of this name.

    Raises:
        UserError: there is none; the message names the nearest match and all known tasks.

    """
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}{did_you_mean(name, TASKS)}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` with the known word nearest to `word`, or nothing if none is near."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f", did you mean {by_lower_case[near[0]]!r}?" if near else ""
