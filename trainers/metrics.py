"""The official metrics of the tasks, from a model's logits. A metric that is undefined counts 0."""

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
        labels: class numbers or raw scores, (examples,).

    Raises:
        ValueError: the shapes do not fit the task or each other, or there are no examples.
        NonFiniteLossError: a logit is not a number or infinite.

    """
    if not len(labels) or logits.shape != (len(labels), task.outputs):
        raise ValueError(
            f"logits of {task.name} have shape {logits.shape}, but must have ({len(labels)}, {task.outputs}), not empty"
        )
    if not np.isfinite(logits).all():
        raise NonFiniteLossError(f"the model gives logits on {task.name} that are not finite")
    predictions = logits.argmax(axis=1) if task.kind == "classification" else logits[:, 0].astype(np.float64)
    values = {name: METRICS[name](predictions, labels) for name in task.metrics}
    return values | {"score": sum(values.values()) / len(values)}


def _accuracy(predictions: Array, labels: Array) -> float:
    return float(np.mean(predictions == labels))


def _f1(predictions: Array, labels: Array) -> float:
    """Return the F1 of class 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


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
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
"""Every metric by the name that a task uses; each takes predictions and labels, both (examples,)."""
