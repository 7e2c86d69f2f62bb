"""The model card of a student: the README.md that the hub shows, with what its sweep knows of it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stkd.orchestrator.best import BestStudent, percentage
from stkd.orchestrator.tables import OFFICIAL
from stkd.search_spaces.schema import Space, setting_of
from stkd.trainers.model_files import PACKAGE
from stkd.trainers.tasks import FITTING_METRICS, find_task

WEIGHTS, ONNX = "model.safetensors", "model.onnx"
"""Files of a student's folder."""
SHOWN_CLASSES = 20
DEFAULT_CLASSES = {"0": "LABEL_0", "1": "LABEL_1"}
"""Classes of these names are not written into a config.json."""
KINDS = {
    "single_label_classification": "one of the classes for",
    "regression": "a score for",
    "multi_label_classification": "any number of the classes for",
}
"""What an example gets, by what `transformers` calls the kind of task."""
PRUNED = (
    "`transformers` knows no layers of unequal width. So `{weights}` has full size, with zeros for the heads and "
    "neurons that this student lacks: `transformers` alone loads it, and answers the same, but neither smaller nor "
    "faster."
)
LEARNED = (
    "Distilled from a sparse version of the teacher: one without the share `sparsity` of its heads and neurons, those "
    "with the least knowledge = lambda * expressiveness + (1 - lambda) * friendliness, lambda being `interpolation` "
    "(Yang, Zhang, Song: Sparse Teachers Can Be Dense with Knowledge, EMNLP 2022)."
)
CHOSEN = "Students were chosen by the selection split, and nothing was by the test split."
ONE_TRAINING = "Each score is of one training, and the student the best of many: the test score is what to believe."
SMALL = (
    "`{onnx}` is the small one: {small:.1f} MB instead of {full:.1f} MB. Its logits differ by {difference:.1e} at most."
)
LACKING = (
    "The small one would be `{onnx}`, which is not here: {reason}. `stkd best --export` writes it where that is mended."
)
MEASURED = "Logits were compared with the student's in PyTorch on random tokens, in batches of several shapes."
USE = """\
```python
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER"{options})
classify({one}, truncation=True, max_length={longest})
```"""
USE_ONNX = """\
```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
inputs = tokenizer({texts}, padding=True, truncation=True, max_length={longest}, return_tensors="np")
(logits,) = session.run(["logits"], dict(inputs))  # a row for each text
```"""


@dataclass(frozen=True)
class ModelFile:
    """One form in which a student is handed over."""

    name: str
    megabytes: float
    largest_difference: float | None = None
    """How far its logits lie from the student's in PyTorch at most; None for PyTorch's own."""


@dataclass(frozen=True)
class HandedOver:
    """A student with all that its card tells."""

    student: BestStudent
    space: Space
    """As the sweep was run."""
    config: Mapping[str, Any]
    """The student's config.json."""
    pruned: bool
    files: Sequence[ModelFile]
    lacking: str = ""
    """Why a pruned student has no small form."""

    @property
    def settled(self) -> Space:
        """The space with the values of the student's trial."""
        return self.space.with_values(self.student.trial.values)

    def file(self, name: str) -> ModelFile | None:
        """The form with this file name, if it is there."""
        return next((file for file in self.files if file.name == name), None)


def model_card(given: HandedOver) -> str:
    """The card, in Markdown with YAML in front."""
    head = (_front_matter(given), f"# A small classifier for {given.student.results.task}", _facts(given))
    return "\n\n".join([*head, *_training(given), *_scores(given), *_files(given), *_use(given)]) + "\n"


def _front_matter(given: HandedOver) -> str:
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["stkd", "knowledge-distillation", *(["onnx"] if given.file(ONNX) else [])],
    }
    base = _started_from(given.space)
    if _is_on_hub(base):
        fields["base_model"] = base
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _started_from(space: Space) -> str:
    return space.student.model or space.teacher.model


def _is_on_hub(model: str) -> bool:
    return re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", model) is not None


def _model_name(model: str) -> str:
    """A folder goes by its own name: a card is for everybody, and where the folder lay is not."""
    return _code(model if model.startswith(PACKAGE) or _is_on_hub(model) else Path(model).name)


def _facts(given: HandedOver) -> str:
    space, student = given.space, given.student
    kind, reads = str(given.config["problem_type"]), "pairs of texts" if _reads_pairs(given) else "texts"
    rows = [("task", f"{_code(student.results.task)}: {KINDS[kind]} {reads}")]
    if kind != "regression":
        rows.append(("classes", _classes(given.config)))
    fine_tuned = "fine-tuned on the task" if space.teacher.finetune else "which was fine-tuned before"
    rows += [
        ("teacher", f"{_model_name(space.teacher.model)}, {fine_tuned}"),
        ("student", _start(given)),
        ("size", f"{student.trial.metrics['parameters'] / 1e6:.1f}M parameters"),
        ("found by", f"stkd: trial {student.trial.trial} of the sweep {_code(student.sweep)}"),
    ]
    return _table(("", ""), rows)


def _reads_pairs(given: HandedOver) -> bool:
    if given.space.data.source == "files":
        return given.space.data.text_pair is not None
    task = find_task(given.student.results.task)
    layout = task.tsv or task.hub
    return layout is not None and len(layout.texts) > 1


def _classes(config: Mapping[str, Any]) -> str:
    found = config.get("id2label", DEFAULT_CLASSES)
    names = [str(name) for _, name in sorted(found.items(), key=lambda item: int(item[0]))]
    more = f" and {len(names) - SHOWN_CLASSES} more, see config.json" if len(names) > SHOWN_CLASSES else ""
    return ", ".join(_code(name) for name in names[:SHOWN_CLASSES]) + more


def _start(given: HandedOver) -> str:
    student = given.settled.student
    match student.init:
        case "drop_layers":
            spread = {"first": "the first", "last": "the last", "even": "evenly spread"}[student.keep]
            return f"started as {student.layers} of the teacher's layers, {spread}"
        case "prune_units":
            share = f"{100 * student.sparsity:.3g} %"
            return f"started as the teacher without {share} of its attention heads and feed-forward neurons"
        case "pretrained":
            return f"started as {_model_name(_started_from(given.space))}"


def _training(given: HandedOver) -> Iterable[str]:
    settings = given.settled.distillation.model_dump(exclude_none=True)
    values: dict[str, Any] = {f"distillation.{key}": value for key, value in settings.items()}
    values |= {".".join(setting_of(key)): value for key, value in given.student.trial.values.items()}
    yield "## Training"
    yield LEARNED
    yield _table(("setting", "value"), [(f"`{key}`", _value(value)) for key, value in values.items()])


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _scores(given: HandedOver) -> Iterable[str]:
    student, official = given.student, given.space.data.selection == "official"
    rows = [
        ("this student", student.trial.score, student.test_score),
        ("its teacher", student.teacher_score, student.teacher_test_score),
        ("the student of the dense teacher", student.dense_score, student.dense_test_score),
    ]
    yield "## Scores"
    yield f"In percent; the score is {_metrics(student.trial.metrics)}. {f'Here {OFFICIAL}.' if official else CHOSEN}"
    shown = [(name, percentage(selection), percentage(test)) for name, selection, test in rows]
    yield _table(("", "selection", "test"), shown)
    yield from _evidence(student)


def _metrics(measured: Mapping[str, float]) -> str:
    """What the score is the mean of, with this student's values."""
    known = {name for names in FITTING_METRICS.values() for name in names}
    names = [name for name in measured if name in known]
    if len(names) == 1:
        return f"the {names[0]}"
    return f"the mean of {' and '.join(f'{name} (selection: {percentage(measured[name])})' for name in names)}"


def _evidence(student: BestStudent) -> Iterable[str]:
    evidence = student.results.evidence
    found = next((found for found in evidence.confirmed if found.role == "candidate"), None) if evidence else None
    if evidence is None or found is None:
        yield ONE_TRAINING
        return
    low, high = percentage(max(found.test.low, -1.0)), percentage(min(found.test.high, 1.0))
    mean = f"{percentage(found.test.mean)} on the test split (95 % interval {low} to {high})"
    yield f"Over {found.seeds} seeds, students with these settings have a mean of {mean}. Verdict: {evidence.verdict}."


def _files(given: HandedOver) -> Iterable[str]:
    full, small = given.file(WEIGHTS), given.file(ONNX)
    yield "## Files"
    yield _table(("file", "MB", "logits differ by at most"), [_row(file) for file in given.files])
    if small:
        yield MEASURED
    if not given.pruned:
        return
    yield PRUNED.format(weights=WEIGHTS)
    if full and small:
        sizes = {"small": small.megabytes, "full": full.megabytes}
        yield SMALL.format(onnx=ONNX, difference=small.largest_difference, **sizes)
    if given.lacking:
        yield LACKING.format(onnx=ONNX, reason=given.lacking)


def _row(file: ModelFile) -> tuple[str, str, str]:
    difference = "" if file.largest_difference is None else f"{file.largest_difference:.1e}"
    return f"`{file.name}`", f"{file.megabytes:.1f}", difference


def _use(given: HandedOver) -> Iterable[str]:
    pairs, longest = _reads_pairs(given), given.space.training.max_length
    several = given.config["problem_type"] == "multi_label_classification"
    one = '{"text": "One text.", "text_pair": "Another."}' if pairs else '"One text."'
    texts = '["One text.", "A second one."]' + (', ["Its pair.", "Its pair."]' if pairs else "")
    yield "## Use"
    yield USE.format(options=", top_k=None" if several else "", one=one, longest=longest)
    if given.file(ONNX):
        yield USE_ONNX.format(texts=texts, longest=longest)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """A user's text as it stands, whatever marks of Markdown it holds."""
    plain = " ".join(text.split()).replace("|", "\\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"
