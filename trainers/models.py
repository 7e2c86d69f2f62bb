"""Teachers and students: found, loaded, cut to size, saved."""

import copy
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stkd.trainers.config import StudentConfig
from stkd.trainers.errors import UserError
from stkd.trainers.families import encoder_layers, family_of, linear
from stkd.trainers.model_files import resolve_model
from stkd.trainers.tasks import Task

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


def _load(model: str, task: Task, seed: int) -> tuple[PreTrainedModel, set[str]]:
    """The classifier, and the names of the weights that its checkpoint lacks."""
    source = resolve_model(model)
    config = AutoConfig.from_pretrained(source)
    config.num_labels = task.outputs
    if task.kind == "classification":
        config.id2label = dict(enumerate(task.class_names))
        config.label2id = {name: number for number, name in enumerate(task.class_names)}
    config.problem_type = "regression" if task.kind == "regression" else "single_label_classification"
    torch.manual_seed(seed)
    classifier, found = AutoModelForSequenceClassification.from_pretrained(
        source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
    )
    family_of(classifier)
    return classifier.eval(), set(found["missing_keys"])


def load_fine_tuned(model: str, task: Task) -> PreTrainedModel:
    """A classifier that was fine-tuned for the task elsewhere; raises UserError where it has no fitting head."""
    outputs = AutoConfig.from_pretrained(resolve_model(model)).num_labels
    if outputs != task.outputs:
        raise UserError(
            f"teacher.model {model!r} has {outputs} outputs, but task {task.name} needs {task.outputs}; "
            f"set teacher.finetune to train it, or name a model that was fine-tuned for {task.name}"
        )
    classifier, missing = _load(model, task, seed=0)
    if missing:
        raise UserError(
            f"teacher.model {model!r} lacks the weights {', '.join(sorted(missing))}: it was not fine-tuned for "
            f"{task.name}; set teacher.finetune to train it"
        )
    return classifier


def make_student(teacher: PreTrainedModel, student: StudentConfig) -> PreTrainedModel:
    """A copy of the teacher with fewer layers; embeddings, pooler and head are the teacher's."""
    chosen = kept_layers(len(encoder_layers(teacher)), student)
    family, smaller = family_of(teacher), copy.deepcopy(teacher)
    smaller.set_submodule(family.layers, nn.ModuleList([encoder_layers(smaller)[i] for i in chosen]))
    smaller.config.num_hidden_layers = len(chosen)
    for name in family.layer_settings:
        setattr(smaller.config, name, [getattr(teacher.config, name)[i] for i in chosen])
    if family.later_norm is not None and chosen[0] != 0:
        _fold_norm(encoder_layers(smaller)[0], family.later_norm, family.heads)
    return smaller


def _fold_norm(layer: nn.Module, norm: str, heads: Iterable[str]) -> None:
    """Takes the norm out of a layer that becomes the first one, where `transformers` knows none; its scale stays."""
    scale = layer.get_parameter(f"{norm}.weight").detach()
    for path in heads:
        linear(layer, path).weight.detach().mul_(scale)
    layer.set_submodule(norm, nn.Identity())


def kept_layers(teacher_layers: int, student: StudentConfig) -> list[int]:
    """Numbers of the teacher's layers that a student starts from; `even` spreads them and ends at the last one."""
    if student.layers > teacher_layers:
        raise UserError(f"student.layers is {student.layers}, but the teacher has only {teacher_layers} layers")
    if student.keep == "first":
        return list(range(student.layers))
    if student.keep == "last":
        return list(range(teacher_layers - student.layers, teacher_layers))
    return [(number + 1) * teacher_layers // student.layers - 1 for number in range(student.layers)]


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that `transformers` loads by itself: safetensors, configuration and tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_saved(folder: Path) -> PreTrainedModel:
    """A classifier that `save_model` wrote, in eval mode."""
    classifier: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return classifier.eval()


def parameter_count(model: PreTrainedModel) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())
