"""Students as they start: layers of the teacher, the teacher without its least needed units, or another encoder."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from stkd.trainers.config import DistillationConfig, StudentConfig
from stkd.trainers.errors import UserError
from stkd.trainers.families import encoder_layers, family_of, linear
from stkd.trainers.models import load_classifier, load_saved
from stkd.trainers.ranking import UnitScores
from stkd.trainers.specs import SCORES, Distillation
from stkd.trainers.tasks import Task
from stkd.trainers.units import UnitMask, cut


@dataclass(frozen=True)
class Student:
    """A student, and which of its units are left where it was cut."""

    model: PreTrainedModel
    mask: UnitMask | None = None


def start_student(distillation: Distillation, task: Task, seed: int) -> Student:
    """The student with its initial weights; `seed` is for a new head. Raises UserError where it cannot be made."""
    student = distillation.student
    match student.init:
        case "drop_layers":
            return Student(_drop_layers(load_saved(distillation.teacher), student))
        case "prune_units":
            assert distillation.importance is not None, "a student is cut by the importance of units"
            scores = UnitScores.load(distillation.importance / SCORES)
            return prune(load_saved(distillation.teacher), scores, student.sparsity)
        case "pretrained":
            assert student.model is not None, "the settings were checked"
            return Student(load_classifier(student.model, task, seed))


def prune(teacher: PreTrainedModel, scores: UnitScores, sparsity: float) -> Student:
    """The teacher itself without the share of heads, and of neurons, that the task's own loss needs least.

    Source: the parameter-pruned student of Yang, Zhang, Song (EMNLP 2022), after Michel, Levy, Neubig (2019).
    """
    mask = UnitMask.of(scores, DistillationConfig(scorer="expressiveness", sparsity=sparsity))
    return Student(cut(teacher, mask), mask)


def make_student(teacher: PreTrainedModel, student: StudentConfig) -> PreTrainedModel:
    """A copy of the teacher with fewer layers; embeddings, pooler and head are the teacher's."""
    return _drop_layers(copy.deepcopy(teacher), student)


def _drop_layers(model: PreTrainedModel, student: StudentConfig) -> PreTrainedModel:
    """The model itself, with those of its layers that the student keeps."""
    chosen, family = kept_layers(len(encoder_layers(model)), student), family_of(model)
    model.set_submodule(family.layers, nn.ModuleList([encoder_layers(model)[i] for i in chosen]))
    model.config.num_hidden_layers = len(chosen)
    for name in family.layer_settings:
        setattr(model.config, name, [getattr(model.config, name)[i] for i in chosen])
    if family.later_norm is not None and chosen[0] != 0:
        _fold_norm(encoder_layers(model)[0], family.later_norm, family.heads)
    return model


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
