"""What several seeds say, and that nothing is claimed where there is nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stkd.orchestrator.evidence import Answers, chosen_trial, contenders, interval_on_test, paired_difference, weigh
from stkd.orchestrator.results import Interval, Role, Status, TaskResults, TrialResult

SPARSE = {"distillation.sparsity": 0.5, "distillation.temperature": 2.0}
DENSE = {"distillation.sparsity": 0.0, "distillation.temperature": 2.0}


def confirmed(
    name: str,
    values: Mapping[str, Any],
    scores: Mapping[int, float],
    role: Role = "candidate",
    status: Status = "finished",
) -> list[TrialResult]:
    return [
        TrialResult(
            f"{name}-{seed}",
            {**values, "training.seed": seed},
            status,
            phase="confirm",
            role=role,
            metrics={"score": score},
            student=f"student-{name}-{seed}",
        )
        for seed, score in scores.items()
    ]


def accuracy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(np.mean(logits.argmax(axis=1) == labels))


def answers(labels: NDArray[Any], right: float, seeds: int, generator: np.random.Generator) -> Answers:
    """Students that are right on a share of the examples, other ones at each seed."""
    logits = {}
    for seed in range(seeds):
        correct = generator.random(len(labels)) < right
        predicted = np.where(correct, labels, 1 - labels)
        logits[seed] = np.eye(2, dtype=np.float32)[predicted]
    return Answers(logits, labels)


def test_trials_are_grouped_by_all_but_their_seed_and_the_surest_one_wins() -> None:
    steady, lucky = {1: 0.80, 2: 0.81, 3: 0.80}, {1: 0.70, 2: 0.95, 3: 0.80}
    trials = [*confirmed("a", SPARSE, lucky), *confirmed("b", DENSE, steady, "dense teacher")]
    found = contenders([*trials, *confirmed("c", SPARSE, {4: 0.99}, status="failed")])
    assert [contender.role for contender in found] == ["dense teacher", "candidate"]
    assert found[1].selection.mean > found[0].selection.mean
    assert found[0].selection.low > found[1].selection.low
    assert sorted(found[0].trials) == [1, 2, 3]
    assert found[0].name == "dense teacher, s=0 T=2"


def test_the_chosen_student_is_a_candidate_at_its_best_seed() -> None:
    results = TaskResults("tiny")
    search = TrialResult("x", {"sparsity": 0.5}, "finished", metrics={"score": 0.99}, student="student-x")
    results.trials = {"x": search}
    assert chosen_trial(results) == search
    dense = confirmed("b", DENSE, {1: 0.9, 2: 0.9}, "dense teacher")
    results.trials |= {trial.trial: trial for trial in [*dense, *confirmed("a", SPARSE, {1: 0.7, 2: 0.8})]}
    chosen = chosen_trial(results)
    assert chosen is not None
    assert chosen.trial == "a-2"
    assert chosen_trial(TaskResults("empty")) is None


def test_an_interval_covers_the_seeds_and_the_examples() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=400)
    found, spread = interval_on_test(answers(labels, 0.8, 5, generator), accuracy)
    assert found.low < 0.8 < found.high
    assert 0.005 < spread < 0.05
    few, _ = interval_on_test(answers(labels[:50], 0.8, 5, generator), accuracy)
    assert few.high - few.low > 1.5 * (found.high - found.low)


def test_a_difference_is_of_the_seeds_that_both_have() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=100)
    left, right = (answers(labels, share, 3, generator) for share in (0.9, 0.5))
    only = Answers({7: right.logits[0]}, labels)
    assert paired_difference(left, only, accuracy) is None
    both = paired_difference(left, Answers({0: right.logits[0], 7: right.logits[1]}, labels), accuracy)
    assert both is not None
    assert both.mean == pytest.approx(accuracy(left.logits[0], labels) - accuracy(right.logits[0], labels))
    assert (both.low, both.high) == (-np.inf, np.inf)


def test_a_real_difference_is_claimed_and_for_the_right_side() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=400)
    found = contenders([*confirmed("a", SPARSE, {0: 0.9, 1: 0.9}), *confirmed("b", DENSE, {0: 0.7, 1: 0.7})])
    better, worse = (answers(labels, share, 5, generator) for share in (0.9, 0.7))
    by_name = dict(zip((contender.name for contender in found), (better, worse), strict=True))
    evidence = weigh(found, by_name, accuracy)
    assert evidence.verdict.startswith("the sparse teacher's student is better")
    assert evidence.difference is not None
    assert evidence.difference.low > 0
    swapped = dict(zip(by_name, (worse, better), strict=True))
    assert weigh(found, swapped, accuracy).verdict.startswith("the dense teacher's student is better")


@pytest.mark.parametrize("same_answers_at_every_seed", [False, True])
def test_on_shuffled_labels_hardly_anything_is_claimed(same_answers_at_every_seed: bool) -> None:
    """Two students that know nothing of the labels, and may differ from each other at every seed alike."""
    generator = np.random.default_rng(1)
    claims = 0
    for _ in range(60):
        labels = generator.integers(2, size=200)
        sides = []
        for _ in range(2):
            first = answers(labels, 0.5, 1 if same_answers_at_every_seed else 3, generator)
            sides.append(
                Answers(dict.fromkeys(range(3), first.logits[0]), labels) if same_answers_at_every_seed else first
            )
        difference = paired_difference(sides[0], sides[1], accuracy)
        assert difference is not None
        claims += difference.low > 0 or difference.high < 0
    assert claims <= 6  # 3 are expected at 95 %


def test_nothing_is_compared_without_both_sides() -> None:
    found = contenders(confirmed("a", SPARSE, {0: 0.9, 1: 0.8}))
    labels = np.asarray([0, 1, 1, 0])
    evidence = weigh(found, {found[0].name: answers(labels, 1.0, 2, np.random.default_rng(0))}, accuracy)
    assert evidence.difference is None
    assert "nothing to compare" in evidence.verdict
    assert isinstance(evidence.confirmed[0].test, Interval)
