"""Losses, one value an example, so that whoever sums them divides once.

Shapes: B examples, C classes (one output for regression).
"""

import torch
from torch import Tensor
from torch.nn import functional

from stkd.trainers.tasks import Kind


def task_losses(logits: Tensor, labels: Tensor, kind: Kind) -> Tensor:
    """Loss against the labels, (B,), from raw `logits` (B, C).

    Cross-entropy, `labels` (B,); squared error for regression, `labels` (B,); the mean over classes of the binary
    cross-entropy for multi-label, `labels` (B, C) of zeros and ones.
    """
    if kind == "regression":
        return (logits.float().squeeze(-1) - labels.float()).square()
    if kind == "multilabel":
        return functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none").mean(-1)
    return functional.cross_entropy(logits.float(), labels.long(), reduction="none")


def imitation_losses(student_logits: Tensor, teacher_logits: Tensor, kind: Kind, temperature: float) -> Tensor:
    """Loss against the teacher, (B,): T^2 times the soft cross-entropy at temperature T; squared error for regression.

    For multi-label, every class is a question of its own: with p = sigmoid(teacher / T) and q = sigmoid(student / T),
    T^2 times the mean over classes of -(p * log q + (1 - p) * log(1 - q)).

    Both logits are raw, (B, C). Gradients flow into either that asks for them. Source: Hinton, Vinyals, Dean (2015),
    section 2, for the soft targets and the factor T^2.
    """
    student, teacher = student_logits.float(), teacher_logits.float()
    if kind == "regression":
        return (student - teacher).square().squeeze(-1)
    if kind == "multilabel":
        wanted, given = torch.sigmoid(teacher / temperature), student / temperature
        # 1 - sigmoid(x) is sigmoid(-x), and its logarithm stays finite
        entropy = wanted * functional.logsigmoid(given) + (1.0 - wanted) * functional.logsigmoid(-given)
        return -entropy.mean(dim=-1) * temperature**2
    targets = torch.softmax(teacher / temperature, dim=-1)
    return -(targets * torch.log_softmax(student / temperature, dim=-1)).sum(dim=-1) * temperature**2


def distillation_losses(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    kind: Kind,
    temperature: float,
    hard_weight: float = 0.5,
) -> Tensor:
    """(1 - hard_weight) times the loss against the teacher plus hard_weight times the loss against the labels, (B,)."""
    soft = imitation_losses(student_logits, teacher_logits, kind, temperature)
    return (1.0 - hard_weight) * soft + hard_weight * task_losses(student_logits, labels, kind)
