"""What classifiers cost to serve: sizes counted, latencies measured, in a fresh process and in all forms."""

from pathlib import Path
from time import sleep, thread_time

import numpy as np
import pytest
from tiny import TASK, tiny_teacher

from stkd.trainers import cost_process, costs
from stkd.trainers.config import StudentConfig
from stkd.trainers.cost_process import measure, untrained
from stkd.trainers.costs import Conditions, Measurement, Saved, Untrained, measure_afresh, processor_name
from stkd.trainers.errors import UserError
from stkd.trainers.form_names import Form
from stkd.trainers.models import load_classifier, load_saved, load_tokenizer, parameter_count, save_model
from stkd.trainers.ranking import UnitScores
from stkd.trainers.students import make_student, prune
from stkd.trainers.units import UnitMask, sliced

SHORT = Conditions(length=16)


def test_conditions_read_as_a_sentence() -> None:
    assert str(Conditions()) == "one example of 128 tokens on 1 thread of the processor, PyTorch in fp32"
    several = Conditions(form="onnx-int8", batch=8, length=64, threads=2)
    assert str(several) == "8 examples of 64 tokens on 2 threads of the processor, onnxruntime in int8"
    assert str(Conditions(device="cuda", form="pytorch-bf16")).endswith("on the GPU, PyTorch in bf16")


def test_a_saved_model_is_counted_and_timed(tmp_path: Path) -> None:
    folder = Path(tiny_teacher(tmp_path))
    cost = measure(Measurement(subject=Saved(folder=folder), conditions=SHORT))
    assert cost.parameters == parameter_count(load_saved(folder))
    assert cost.megabytes == pytest.approx(4 * cost.parameters / 1e6)
    assert 0 < cost.p50 <= cost.p95 <= cost.p99
    assert cost.runs >= cost_process.FEWEST_RUNS
    half = Conditions(length=16, form="pytorch-bf16")
    cost = measure(Measurement(subject=Saved(folder=folder), conditions=half))
    assert cost.megabytes == pytest.approx(2 * cost.parameters / 1e6)


def test_a_model_is_not_run_on_more_tokens_than_it_reads(tmp_path: Path) -> None:
    wanted = Measurement(subject=Saved(folder=Path(tiny_teacher(tmp_path))), conditions=Conditions(length=33))
    with pytest.raises(UserError, match="the length is 33 tokens, but this bert model reads 32 at most"):
        measure(wanted)


def test_a_pruned_model_costs_what_is_left_of_it(tmp_path: Path) -> None:
    base = tiny_teacher(tmp_path / "base")
    model = load_classifier(base, TASK, seed=0)
    mask = UnitMask.dense(model)
    mask.neurons[:, ::2] = mask.heads[1] = False
    smaller = sliced(model, mask)
    save_model(smaller, load_tokenizer(base), tmp_path / "pruned", mask)
    cost = measure(Measurement(subject=Saved(folder=tmp_path / "pruned"), conditions=SHORT))
    assert cost.parameters == parameter_count(smaller) < parameter_count(model)


def test_an_untrained_student_has_the_size_of_the_trained_one(tmp_path: Path) -> None:
    base = tiny_teacher(tmp_path / "base", outputs=3)
    teacher = load_saved(Path(base))
    layers = StudentConfig(layers=2, keep="last")
    found = untrained(Untrained(teacher=base, student=layers, outputs=3))
    assert parameter_count(found) == parameter_count(make_student(teacher, layers))
    rng = np.random.default_rng(0)
    heads, neurons = (rng.random(shape, dtype=np.float32) for shape in ((3, 4), (3, 32)))
    heads[0] = 0.0  # the first layer loses every head
    trained = prune(teacher, UnitScores(heads, neurons, heads, neurons, heads, neurons), 0.5)
    cut = StudentConfig(init="prune_units", sparsity=0.5)
    found = untrained(Untrained(teacher=base, student=cut, outputs=3))
    assert parameter_count(found) == parameter_count(trained.model)
    other = StudentConfig(init="pretrained", model=tiny_teacher(tmp_path / "other", layers=1, outputs=3))
    found = untrained(Untrained(teacher=base, student=other, outputs=3))
    assert parameter_count(found) == parameter_count(load_saved(tmp_path / "other"))


def test_time_that_other_work_takes_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_process, "RUNS", 30)
    monkeypatch.setattr(cost_process, "WARM_SECONDS", 0.0)
    calls = 0

    def run() -> None:
        nonlocal calls
        calls += 1
        end = thread_time() + 0.001
        while thread_time() < end:
            pass
        if calls % 3 == 0:
            sleep(0.01)  # as if another process had the processor

    seconds, interrupted = cost_process._time(run, SHORT)
    assert len(seconds) == 30
    assert interrupted is not None
    assert interrupted >= 10 / 30
    assert 0.001 <= np.median(seconds) <= max(seconds) < 0.005
    seconds, interrupted = cost_process._time(run, Conditions(threads=2))
    assert interrupted is None
    assert max(seconds) > 0.01


def test_slow_models_are_run_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_process, "SECONDS", 0.01)
    monkeypatch.setattr(cost_process, "WARM_SECONDS", 0.0)
    seconds, interrupted = cost_process._time(lambda: sleep(0.001), SHORT)
    assert len(seconds) == cost_process.FEWEST_RUNS
    assert interrupted == 1.0
    assert max(seconds) < 0.001


def test_the_processor_has_a_name() -> None:
    assert processor_name("cpu")
    assert processor_name("cuda")


@pytest.mark.slow
def test_a_fresh_process_measures_one_after_the_other_and_says_what_cannot_be(tmp_path: Path) -> None:
    folder = Path(tiny_teacher(tmp_path / "model"))
    student = Untrained(teacher=str(folder), student=StudentConfig(layers=1), outputs=2)
    wanted = [Measurement(subject=subject, conditions=SHORT) for subject in (Saved(folder=folder), student)]
    impossible = Measurement(subject=student, conditions=Conditions(form="onnx", device="cuda"))
    found = measure_afresh([*wanted, impossible])
    first, second = next(found), next(found)
    assert first.parameters == parameter_count(load_saved(folder)) > second.parameters
    with pytest.raises(UserError, match="onnx is run by onnxruntime on the processor; use the device cpu, not cuda"):
        next(found)
    gone = Measurement(subject=Saved(folder=tmp_path / "gone"), conditions=SHORT)
    with pytest.raises(UserError, match="gone"):
        list(measure_afresh([gone]))
    assert list(measure_afresh([])) == []


@pytest.mark.slow
def test_onnx_forms_are_written_where_they_are_missing(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    student = Untrained(teacher=tiny_teacher(tmp_path / "model"), student=StudentConfig(layers=1), outputs=2)
    forms: tuple[Form, ...] = ("onnx", "onnx-int8")
    whole, rounded = (
        measure(Measurement(subject=student, conditions=Conditions(length=16, form=form))) for form in forms
    )
    assert whole.parameters == rounded.parameters
    assert whole.megabytes > 0
    assert rounded.megabytes > 0


def test_a_process_that_dies_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(costs, "PROCESS", [*costs.PROCESS[:1], "-c", "import sys; sys.exit('out of luck')"])
    wanted = Measurement(subject=Saved(folder=tmp_path), conditions=SHORT)
    with pytest.raises(RuntimeError, match="ended without an answer: out of luck"):
        list(measure_afresh([wanted]))
