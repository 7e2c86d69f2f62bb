"""Students as ONNX files, run by onnxruntime: every family, whole and pruned, in shapes that the exporter never saw."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_teacher
from tiny_families import SETTINGS, tiny_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from stkd.trainers import onnx_models
from stkd.trainers.config import StudentConfig
from stkd.trainers.errors import OnnxError
from stkd.trainers.families import FAMILIES, encoder_layers
from stkd.trainers.models import load_saved, load_tokenizer, parameter_count
from stkd.trainers.onnx_models import check_packages, quantize_onnx, random_batch, sample_batches, write_onnx
from stkd.trainers.students import make_student
from stkd.trainers.units import UnitMask, sliced

COMBINATIONS = [*product(FAMILIES, ("dense",)), *product(SETTINGS, ("pruned",))]
"""An export takes seconds: settings within a family have it pruned alone."""
SHAPES = ((1, 7), (5, 16), (5, 7), (1, 16), (1, 1), (2, 20))
WITHOUT_KINDS = ("distilbert", "mpnet", "modernbert")
"""The families that do not take token_type_ids."""
NAMES = ("input_ids", "attention_mask", "token_type_ids")
CONSTANTS, UNREAD = 20, 40
"""How many numbers of the program itself a file may hold beside the weights, and how many weights it may lack: the norm
in front of a layer's neurons, where it has none."""


def cut(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    return make_student(model, StudentConfig(layers=layers)).eval()


def pruned(name: str) -> PreTrainedModel:
    """Two layers: the first has lost every head, the second one of four, and each some neurons or all."""
    model = cut(tiny_model(name), 2)
    mask = UnitMask.dense(model)
    mask.heads[0] = mask.heads[1, 1] = mask.neurons[0, ::2] = mask.neurons[1] = False
    return sliced(model, mask).eval()


def batches_for(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    names = NAMES[:2] if model.config.model_type in WITHOUT_KINDS else NAMES
    generator = torch.Generator().manual_seed(3)
    return [random_batch(model, names, shape, generator) for shape in SHAPES]


def test_every_combination_is_here() -> None:
    assert len(COMBINATIONS) == 10 + 14
    for kind in ("dense", "pruned"):
        assert {tiny_model(name).config.model_type for name, found in COMBINATIONS if found == kind} == set(FAMILIES)


def test_batches_are_of_the_shapes_asked_for_and_padded() -> None:
    model = tiny_model("bert")
    batches = batches_for(model)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == list(SHAPES)
    assert not batches[1]["attention_mask"].all()
    absent = batches[1]["attention_mask"] == 0
    assert (batches[1]["input_ids"][absent] == model.config.pad_token_id).all()
    assert set(batches[1]["token_type_ids"].flatten().tolist()) == {0, 1}


def test_samples_hold_what_the_tokenizer_makes_and_no_more_tokens_than_asked_for(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "model")
    model, tokenizer = load_saved(Path(folder)), load_tokenizer(folder)
    for longest, shapes in ((30, [(1, 7), (5, 16), (2, 30)]), (10, [(1, 7), (5, 10), (2, 10)])):
        batches = sample_batches(model, tokenizer, longest)
        assert [tuple(batch["input_ids"].shape) for batch in batches] == shapes
        assert all(set(batch) == set(tokenizer("a film")) == set(NAMES) for batch in batches)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), COMBINATIONS)
def test_a_student_answers_the_same_as_onnx(tmp_path: Path, name: str, kind: str) -> None:
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    student = cut(tiny_model(name), 1) if kind == "dense" else pruned(name)
    batches = batches_for(student)
    path, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    difference = write_onnx(student, path, batches)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(given.name, given.shape) for given in session.get_inputs()] == [
        (given, ["batch", "sequence"]) for given in batches[0]
    ]
    worst = 0.0
    for batch in batches:
        (answers,) = session.run(None, {given: tensor.numpy() for given, tensor in batch.items()})
        with torch.inference_mode():
            expected = student(**batch).logits.numpy()
        assert answers.shape == expected.shape
        worst = max(worst, float(np.abs(answers - expected).max()))
    assert worst == pytest.approx(difference, abs=1e-6)
    assert worst < 1e-5

    weights = sum(int(np.prod(held.dims)) for held in onnx.load(path).graph.initializer if held.data_type == 1)
    assert -UNREAD < weights - parameter_count(student) < CONSTANTS
    assert b".py" not in path.read_bytes()  # neither source lines nor folders of this machine

    assert 1e-5 < quantize_onnx(path, small, student, batches) < 0.3
    assert small.stat().st_size < path.stat().st_size
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "int8.onnx"}


# --- what cannot be handed over


class Stubborn(nn.Module):
    """Computes what depends on more than its input, or on its input in a way that no fixed program has."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.calls = way, 0

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        self.calls += 1
        if self.way == "values":
            return hidden_states if hidden_states.sum() > 0 else -hidden_states
        if self.way == "length":
            return hidden_states + len(range(hidden_states.shape[1]))
        return hidden_states * self.calls


def stubborn(way: str) -> PreTrainedModel:
    model = cut(tiny_model("bert"), 1)
    encoder_layers(model)[0] = Stubborn(way)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("values", "cannot be written as ONNX: Could not guard on data-dependent expression"),
        ("length", "cannot be written as ONNX: "),
        ("calls", r"its logits there differ by .* from PyTorch's and may by 1e-04"),
    ],
)
def test_what_would_answer_otherwise_is_refused_and_not_left_behind(tmp_path: Path, way: str, message: str) -> None:
    pytest.importorskip("onnxruntime")
    model = stubborn(way)
    path = tmp_path / "model.onnx"
    path.write_text("an older one")
    with pytest.raises(OnnxError, match=f"^this bert model .*{message}"):
        write_onnx(model, path, batches_for(model))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["an older one"]


def test_missing_packages_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_models, "PACKAGES", ("torch", "no_such_package"))
    message = "^ONNX needs no_such_package, not installed here: pip install 'stkd\\[onnx\\]'$"
    with pytest.raises(OnnxError, match=message):
        check_packages()
    model = tiny_model("bert")
    with pytest.raises(OnnxError, match=message):
        write_onnx(model, tmp_path / "model.onnx", batches_for(model))
    with pytest.raises(OnnxError, match=message):
        quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", model, batches_for(model))


def test_a_model_that_one_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_models, "MOST_BYTES", 1000)
    model = tiny_model("bert")
    with pytest.raises(OnnxError, match=r"^this bert model has .* GB, and an ONNX file holds"):
        write_onnx(model, tmp_path / "model.onnx", batches_for(model))
