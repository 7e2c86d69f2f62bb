"""Classifiers: found, loaded, saved."""

from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stkd.trainers.errors import UserError
from stkd.trainers.families import family_of
from stkd.trainers.model_files import resolve_model
from stkd.trainers.specs import UNITS
from stkd.trainers.tasks import DEFAULT_METRICS, Kind, Task
from stkd.trainers.units import UnitMask, cut, expanded

PROBLEM_TYPES: dict[Kind, str] = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multilabel": "multi_label_classification",
}
"""What `transformers` calls the kinds of task; its pipelines choose softmax, nothing or sigmoid by it."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub model; raises UserError where a package to read it is missing."""
    source = resolve_model(model)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except ValueError as error:
        if find_spec("sentencepiece"):
            raise
        raise UserError(
            f"model {model!r}: its tokenizer cannot be read; it may need a package: pip install 'stkd[sentencepiece]'"
        ) from error
    return tokenizer


def load_classifier(model: str, task: Task, seed: int) -> PreTrainedModel:
    """A classifier for the task, in fp32 and eval mode; its head is a new, seeded one where the checkpoint has none."""
    return _load(model, task, seed)[0]


def load_base(model: str, task: Task, seed: int) -> PreTrainedModel:
    """The same for what will be a teacher; raises UserError for a family whose units are not known."""
    classifier = load_classifier(model, task, seed)
    family_of(classifier)
    return classifier


def _load(model: str, task: Task, seed: int) -> tuple[PreTrainedModel, set[str]]:
    """The classifier, and the names of the weights that its checkpoint lacks."""
    source = resolve_model(model)
    config = AutoConfig.from_pretrained(source)
    config.num_labels = task.outputs
    if task.class_names:
        config.id2label = dict(enumerate(task.class_names))
        config.label2id = {name: number for number, name in enumerate(task.class_names)}
    config.problem_type = PROBLEM_TYPES[task.kind]
    torch.manual_seed(seed)
    classifier, found = AutoModelForSequenceClassification.from_pretrained(
        source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
    )
    return classifier.eval(), set(found["missing_keys"])


def load_fine_tuned(model: str, task: Task) -> PreTrainedModel:
    """A classifier that was fine-tuned for the task elsewhere; raises UserError where it has no fitting head."""
    config = AutoConfig.from_pretrained(resolve_model(model))
    if config.num_labels != task.outputs:
        raise UserError(
            f"teacher.model {model!r} has {config.num_labels} outputs, but task {task.name} needs {task.outputs}; "
            f"set teacher.finetune to train it, or name a model that was fine-tuned for {task.name}"
        )
    _check_order([str(config.id2label[number]) for number in range(task.outputs)], model, task)
    classifier, missing = _load(model, task, seed=0)
    family_of(classifier)
    if missing:
        raise UserError(
            f"teacher.model {model!r} lacks the weights {', '.join(sorted(missing))}: it was not fine-tuned for "
            f"{task.name}; set teacher.finetune to train it"
        )
    return classifier


def _check_order(names: list[str], model: str, task: Task) -> None:
    """Raises UserError where the model has the task's classes in another order: its answers would be taken wrong."""
    theirs, ours = ([name.lower() for name in order] for order in (names, task.class_names))
    if theirs != ours and sorted(theirs) == sorted(ours):
        raise UserError(
            f"teacher.model {model!r} has the classes {', '.join(names)}, but task {task.name} has them in the order "
            f"{', '.join(task.class_names)}; give data.classes in the model's order, or set teacher.finetune"
        )


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, mask: UnitMask | None = None
) -> None:
    """Write a folder that `transformers` loads by itself: safetensors, configuration and tokenizer.

    A model without the units that `mask` removes is written at full size, with zeros for them, and with the mask
    beside it: `transformers` has no layers of unequal width, and so loads a model that computes the same.
    """
    (model if mask is None else expanded(model, mask)).save_pretrained(folder)
    if mask is not None:
        mask.save(folder / UNITS)
    tokenizer.save_pretrained(folder)


def load_saved(folder: Path) -> PreTrainedModel:
    """A classifier that `save_model` wrote, in eval mode and without the units that it lacks."""
    classifier: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    units = folder / UNITS
    return (cut(classifier, UnitMask.load(units)) if units.exists() else classifier).eval()


def saved_task(folder: Path, name: str) -> Task:
    """What a classifier that was saved is for: its kind of task and its classes; the metrics are the usual ones."""
    config = AutoConfig.from_pretrained(folder)
    kinds = {problem: kind for kind, problem in PROBLEM_TYPES.items()}
    kind = kinds.get(config.problem_type) or ("regression" if config.num_labels == 1 else "classification")
    classes = () if kind == "regression" else tuple(str(config.id2label[place]) for place in range(config.num_labels))
    return Task(name, kind, classes, DEFAULT_METRICS[kind])


def parameter_count(model: PreTrainedModel) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())
