"""The benches: that each runs, and that both sides of one compute the same."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from baselines import PlainLoop, mask_gradients, padded_batches
from equality import unbucketed
from measuring import Goal, Row, Settings, in_turns
from tiny import TASK, Case, cpu_only, tiny_case, tiny_training
from workloads import LENGTHS, examples

from stkd.trainers.batches import epoch_order
from stkd.trainers.config import StudentConfig, TrainingConfig
from stkd.trainers.engine import computes_in_bf16
from stkd.trainers.loop import CachedTeacher, Training, label_loss, predict
from stkd.trainers.ranks import Ranks
from stkd.trainers.scores import score_units
from stkd.trainers.students import make_student

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WITH_BF16 = computes_in_bf16(TrainingConfig(), torch.device("cpu"))
ROWS = {
    "steps": 4,
    "scores": 2,
    "evaluation": 2,
    "side_by_side": 1,
    "first_step": 2,
    "no_ops": 3,
    "trial_memory": 1,
    "scale": 3,
    "second_sweep": 1,
    "commands": 2,
    "whole_sweep": 1,
    "engineered_sweep": 2,
    "equality": 10 if WITH_BF16 else 8,
}
"""How many rows each bench has when quick; `second_sweep` has one more otherwise."""
OF_SWEEPS = {"side_by_side", "first_step", "no_ops", "trial_memory", "second_sweep", "whole_sweep", "engineered_sweep"}
"""Benches that start Ray several times over: minutes, even when quick."""
RUN = [pytest.param(bench, marks=pytest.mark.bench if bench in OF_SWEEPS else pytest.mark.slow) for bench in ROWS]


def row(ours: list[float], theirs: list[float], *goals: Goal) -> Row:
    return Row("a bench", "ours", "theirs", "s", ours, theirs, goals)


def test_a_ratio_is_that_of_pairs_with_their_spread() -> None:
    faster = row([1.0, 2.0, 4.0], [4.0, 4.0, 4.0], Goal("faster", 2))
    assert faster.ratios == [4.0, 2.0, 1.0]
    assert faster.cells[5] == "2x (1 to 4)"
    assert row([1.0], [4.0], Goal("costs", 1.3)).cells[5] == "0.25x"


@pytest.mark.parametrize(
    ("found", "reached"),
    [
        (row([1.0], [4.0], Goal("faster", 4)), True),
        (row([1.0], [3.9], Goal("faster", 4)), False),
        (row([1.3], [1.0], Goal("costs", 1.3)), True),
        (row([1.4], [1.0], Goal("costs", 1.3)), False),
        (row([0.2], [20.0], Goal("under", 0.3), Goal("faster", 50)), True),
        (row([0.4], [40.0], Goal("under", 0.3), Goal("faster", 50)), False),
        (row([1.0, 2.0], [1.5, 2.5], Goal("noise")), True),
        (row([9.0, 9.5], [1.5, 2.5], Goal("noise")), False),
        (row([1.0], [1.0], Goal("noise")), None),
        (row([1.0], [1.0]), None),
    ],
)
def test_goals(found: Row, reached: bool | None) -> None:
    assert found.reached is reached


def test_sides_are_measured_in_turns() -> None:
    seen: list[str] = []

    def side(name: str) -> float:
        seen.append(name)
        return float(len(seen))

    measured = in_turns({"a": lambda: side("a"), "b": lambda: side("b")}, repeats=2)
    assert seen == ["a", "b"] * 3
    assert measured == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_lengths_are_those_of_the_tasks() -> None:
    means = {name: examples(name, 4000, 2000).lengths.mean() for name in LENGTHS}
    assert {name: len(tokens) for name, tokens in LENGTHS.items()} == {"MRPC": 40, "SST-2": 40}
    assert means == pytest.approx({"MRPC": 53.2, "SST-2": 13.3}, rel=0.03)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return tiny_case(tmp_path)


def test_the_plain_loop_trains_as_ours_does(case: Case) -> None:
    training = tiny_training(epochs=2)
    ours = Training(case.load(), case.train, label_loss(TASK.kind), training, Ranks(), {})
    plain = PlainLoop(case.load(), case.train, training, bf16=False)
    for _ in range(training.epochs):
        np.testing.assert_allclose(plain.run_epoch(), ours.run_epoch(), rtol=0, atol=1e-5)
    ours.engine.close()


def test_gradients_of_masks_are_our_scores(case: Case) -> None:
    teacher = case.load()
    student = make_student(teacher, StudentConfig(layers=2)).eval()
    found = mask_gradients(teacher, student, padded_batches(case.train, 32, 16), 2.0)
    order = np.array_split(np.arange(len(case.train)), 3)
    batches = (case.train.batch(indices, torch.device("cpu")) for indices in order)
    followed = CachedTeacher(predict(student, case.train, Ranks()))
    ours = score_units(teacher, followed.logits, batches, TASK.kind, 2.0, "batch")
    wanted = (ours.head_expressiveness, ours.neuron_expressiveness, ours.head_friendliness, ours.neuron_friendliness)
    for theirs, scores in zip(found, wanted, strict=True):
        assert scores.max() > 0
        np.testing.assert_allclose(theirs.numpy(), scores, rtol=1e-3, atol=1e-7)


def test_without_buckets_batches_mix_lengths() -> None:
    lengths = examples("MRPC", 800, 2000).lengths

    def spread() -> float:
        return float(np.mean([lengths[indices].std() for indices in epoch_order(lengths, 16, 0, 0)]))

    bucketed = spread()
    with unbucketed():
        assert spread() > 5 * bucketed
    assert spread() == bucketed


@pytest.mark.parametrize("bench", RUN)
def test_every_bench_runs(bench: str, tmp_path: Path) -> None:
    command = [sys.executable, "run.py", "--quick", "--out", str(tmp_path), bench]
    subprocess.run(command, cwd=BENCHMARKS, env=os.environ, check=True, timeout=600)
    (filed,) = tmp_path.glob("*.json")
    found = json.loads(filed.read_text())
    assert found["quick"]
    assert [row["bench"] for row in found["rows"]] == [bench] * ROWS[bench]
    numbers = [number for row in found["rows"] for number in (*row["ours"], *row["theirs"])]
    assert len(numbers) >= 2 * ROWS[bench]
    assert all(math.isfinite(number) and number > 0 for number in numbers)
    assert filed.with_suffix(".md").read_text().count(f"| {bench} |") == ROWS[bench]


@pytest.mark.slow
def test_the_bench_of_one_device_runs(tmp_path: Path) -> None:
    command = [sys.executable, "gpu.py", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    subprocess.run(command, cwd=BENCHMARKS, env=os.environ, check=True, timeout=600)
    (filed,) = tmp_path.glob("gpu-*.json")
    rows = json.loads(filed.read_text())["rows"]
    assert [row["what"] for row in rows] == [
        "teacher's logits",
        "teacher, fine-tuning",
        *["student, teacher in the loop", "student, cached teacher"],
        *["student, cached teacher"] * 2,
    ]
    assert [row["side_by_side"] for row in rows] == [1, 1, 1, 1, 1, 2]
    assert all(rate > 0 for row in rows for rate in row["examples_per_second"])
    assert all(row["share_of_peak"] > 0 for row in rows)


@pytest.mark.slow
def test_the_bench_of_one_device_needs_neither_ray_nor_mlflow() -> None:
    code = "import sys; sys.modules['ray'] = sys.modules['mlflow'] = None; import gpu, device_rates; print('imported')"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("imported\n"), done.stderr


@cpu_only
@pytest.mark.bench
def test_the_bench_of_many_nodes_runs(tmp_path: Path) -> None:
    command = [sys.executable, "many_nodes.py", "--nodes", "2", "--trials", "8", "--out", str(tmp_path)]
    subprocess.run(command, cwd=BENCHMARKS, env=os.environ, check=True, timeout=600)
    (page,) = tmp_path.glob("many-nodes-*.json")
    rows = json.loads(page.read_text())["rows"]
    assert [row[:2] for row in rows] == [["2", f"{first} to {first + 1}"] for first in (1, 3, 5, 7)]


def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, "gpu.py"]
    done = subprocess.run(command, cwd=BENCHMARKS, env=os.environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert "no GPU" in line


def test_every_bench_is_tested() -> None:
    from run import BENCHES

    assert set(BENCHES) == set(ROWS)
    assert Settings().times(7) == 7
