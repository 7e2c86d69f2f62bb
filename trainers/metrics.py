"""The metrics of the tasks, from a model's logits. A metric that is undefined counts 0."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from stkd.trainers.errors import NonFiniteLossError
from stkd.trainers.tasks import Task

Array = npt.NDArray[Any]
Metric = Callable[[Array, Array], float]


def evaluate(task: Task, logits: Array, labels: Array) -> dict[str, float]:
    """Return each of the task's metrics, and their mean as `score`.

    Args:
        task: decides which metrics there are.
        logits: what the model gave, (examples, outputs).
        labels: class numbers or raw scores, (examples,); for multi-label zeros and ones, (examples, outputs).

    Raises:
        ValueError: the shapes do not fit the task or each other, or there are no examples.
        NonFiniteLossError: a logit is not a number or infinite.

    """
    wanted = (len(labels), task.outputs)
    if not len(labels) or logits.shape != wanted:
        raise ValueError(f"logits of {task.name} have shape {logits.shape}, but must have {wanted}, not empty")
    if labels.shape != (wanted if task.kind == "multilabel" else wanted[:1]):
        raise ValueError(f"labels of {task.name} have shape {labels.shape}, which does not fit logits of {wanted}")
    if not np.isfinite(logits).all():
        raise NonFiniteLossError(f"the model gives logits on {task.name} that are not finite")
    predictions = _predictions(task, logits)
    values = {name: METRICS[name](predictions, labels) for name in task.metrics}
    return values | {"score": sum(values.values()) / len(values)}


def guessing_score(task: Task, labels: Array) -> float:
    """Return the best score of a model that gives every example the same answer.

    Args:
        task: decides which metrics there are.
        labels: as for `evaluate`.

    """
    match task.kind:
        case "regression":
            answers = np.zeros((1, 1))
        case "multilabel":
            answers = np.stack([labels.mean(axis=0) - 0.5, np.ones(task.outputs)])
        case "classification":  # the most frequent class, or the one whose F1 counts
            answers = np.eye(task.outputs)[[int(np.bincount(labels).argmax()), 1]]
    wanted = (len(labels), task.outputs)
    return max(evaluate(task, np.broadcast_to(answer, wanted), labels)["score"] for answer in answers)


def _predictions(task: Task, logits: Array) -> Array:
    """Return class numbers, scores, or for multi-label zeros and ones: a class applies if it is likelier than not."""
    if task.kind == "classification":
        classes: Array = logits.argmax(axis=1)
        return classes
    return (logits > 0).astype(np.int64) if task.kind == "multilabel" else logits[:, 0].astype(np.float64)


def _accuracy(predictions: Array, labels: Array) -> float:
    return float(np.mean(predictions == labels))


def _exact_match(predictions: Array, labels: Array) -> float:
    """Return the share of examples of which every class is right."""
    return float(np.mean((predictions == labels).all(axis=1)))


def _f1(predictions: Array, labels: Array) -> float:
    """Return the F1 of class 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


def _macro_f1(predictions: Array, labels: Array) -> float:
    """Return the mean of the F1 of every class."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def _micro_f1(predictions: Array, labels: Array) -> float:
    """Return the F1 of all decisions about all classes, taken together."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="micro", zero_division=0.0))


def _matthews(predictions: Array, labels: Array) -> float:
    from sklearn.metrics import matthews_corrcoef

    return 0.0 if _constant(predictions, labels) else float(matthews_corrcoef(labels, predictions))


def _pearson(predictions: Array, labels: Array) -> float:
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, labels)


def _spearman(predictions: Array, labels: Array) -> float:
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, labels)


def _correlation(function: Callable[..., Any], predictions: Array, labels: Array) -> float:
    if _constant(predictions, labels):
        return 0.0
    # Predictions that differ in their last digits only are legal, but scipy warns of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(function(predictions, labels).statistic)
    return value if np.isfinite(value) else 0.0


def _constant(predictions: Array, labels: Array) -> bool:
    return bool(np.ptp(predictions) == 0 or np.ptp(labels) == 0)


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "exact_match": _exact_match,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "micro_f1": _micro_f1,
    "pearson": _pearson,
    "spearman": _spearman,
}
"""Every metric by the name that a task uses; each takes predictions and labels of one shape."""
