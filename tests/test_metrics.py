import math

import numpy as np
import pytest

from stkd.trainers.errors import NonFiniteLossError
from stkd.trainers.metrics import evaluate
from stkd.trainers.tasks import TASKS


def logits_of(classes: list[int], outputs: int = 2) -> np.ndarray:
    return np.eye(outputs, dtype=np.float32)[classes]


def test_mrpc_has_accuracy_and_f1_of_the_equivalent_class() -> None:
    result = evaluate(TASKS["mrpc"], logits_of([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0]))
    # Two true, one false positive, one false negative.
    assert result == pytest.approx({"accuracy": 3 / 5, "f1": 2 / 3, "score": (3 / 5 + 2 / 3) / 2})


def test_cola_has_the_matthews_correlation() -> None:
    result = evaluate(TASKS["cola"], logits_of([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0]))
    assert result == pytest.approx({"matthews": (2 * 1 - 1 * 1) / 6, "score": 1 / 6})


def test_mnli_has_accuracy_over_three_classes() -> None:
    result = evaluate(TASKS["mnli"], logits_of([0, 1, 2, 2], outputs=3), np.array([0, 1, 2, 0]))
    assert result == {"accuracy": 0.75, "score": 0.75}


def test_stsb_has_both_correlations_of_the_raw_scores() -> None:
    predictions, labels = np.array([1.0, 2.0, 3.0, 10.0]), np.array([0.5, 1.0, 3.0, 4.0])
    result = evaluate(TASKS["stsb"], predictions[:, None].astype(np.float32), labels)
    by_hand = np.corrcoef(predictions, labels)[0, 1]
    assert result == pytest.approx({"pearson": by_hand, "spearman": 1.0, "score": (by_hand + 1) / 2})
    assert evaluate(TASKS["stsb"], -predictions[:, None], labels)["spearman"] == pytest.approx(-1.0)


@pytest.mark.parametrize("name", ["cola", "stsb"])
@pytest.mark.parametrize("examples", [1, 2, 5])
def test_constant_predictions_correlate_not_at_all(name: str, examples: int) -> None:
    task = TASKS[name]
    logits = np.full((examples, task.outputs), 0.1, dtype=np.float32)
    labels = np.arange(examples) % 2
    assert set(evaluate(task, logits, labels).values()) == {0.0}


def test_constant_labels_correlate_not_at_all() -> None:
    assert evaluate(TASKS["stsb"], np.array([[1.0], [2.0]]), np.array([3.0, 3.0]))["score"] == 0.0
    assert evaluate(TASKS["cola"], logits_of([0, 1]), np.array([1, 1]))["score"] == 0.0


def test_nearly_constant_predictions_warn_of_nothing() -> None:
    logits = np.array([[1.0], [1.0 + 1e-15], [1.0]])
    assert math.isfinite(evaluate(TASKS["stsb"], logits, np.array([1.0, 2.0, 3.0]))["score"])


def test_f1_without_any_positive_is_zero() -> None:
    result = evaluate(TASKS["mrpc"], logits_of([0, 0]), np.array([0, 0]))
    assert result == {"accuracy": 1.0, "f1": 0.0, "score": 0.5}


def test_values_are_plain_floats() -> None:
    for name in ("mrpc", "cola"):
        assert {type(value) for value in evaluate(TASKS[name], logits_of([0, 1]), np.array([0, 1])).values()} == {float}


@pytest.mark.parametrize(("rows", "columns"), [(3, 2), (2, 1), (2, 3), (0, 2)])
def test_wrong_shapes_are_refused(rows: int, columns: int) -> None:
    with pytest.raises(ValueError, match="logits of mrpc have shape"):
        evaluate(TASKS["mrpc"], np.zeros((rows, columns)), np.zeros(2 if rows else 0))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match="mrpc"):
        evaluate(TASKS["mrpc"], np.array([[0.0, value]]), np.array([0]))
