"""Teachers and students: what is loaded, what a student starts from, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import REGRESSION, TASK, Case, tiny_case, tiny_teacher
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from stkd.trainers.config import KNOWN_FAMILIES, StudentConfig
from stkd.trainers.errors import UserError
from stkd.trainers.families import FAMILIES, encoder_layers, family_of, linear
from stkd.trainers.model_files import model_fingerprint, resolve_model
from stkd.trainers.models import (
    load_base,
    load_classifier,
    load_fine_tuned,
    load_saved,
    load_tokenizer,
    parameter_count,
    save_model,
)
from stkd.trainers.students import kept_layers, make_student
from stkd.trainers.units import UnitMask, sliced

Keep = Literal["first", "last", "even"]
THREE_CLASSES = replace(TASK, name="three", class_names=("low", "middle", "high"))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return tiny_case(tmp_path_factory.mktemp("models"), train=8, layers=6)


def logits(model: PreTrainedModel, case: Case) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(**case.train.batch(np.arange(8), torch.device("cpu")).inputs).logits
    return found


# --- students


@pytest.mark.parametrize(
    ("keep", "layers", "chosen"),
    [
        ("first", 3, [0, 1, 2]),
        ("last", 3, [3, 4, 5]),
        ("even", 3, [1, 3, 5]),
        ("even", 4, [0, 2, 3, 5]),
        ("even", 1, [5]),
        ("first", 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_student_starts_from_the_chosen_layers(case: Case, keep: Keep, layers: int, chosen: list[int]) -> None:
    teacher = case.load()
    student = make_student(teacher, StudentConfig(layers=layers, keep=keep))
    assert student.config.num_hidden_layers == len(encoder_layers(student)) == layers
    for layer, number in zip(encoder_layers(student), chosen, strict=True):
        assert_equal_weights(layer, encoder_layers(teacher)[number])
    for part in ("bert.embeddings", "bert.pooler", "classifier"):
        assert_equal_weights(student.get_submodule(part), teacher.get_submodule(part))
    assert teacher.config.num_hidden_layers == len(encoder_layers(teacher)) == 6
    assert parameter_count(student) < parameter_count(teacher) or layers == 6


def assert_equal_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    ours, theirs = left.state_dict(), right.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_a_student_shares_no_weights_with_its_teacher(case: Case) -> None:
    teacher = case.load()
    student = make_student(teacher, StudentConfig(layers=2))
    ours, theirs = ({weight.data_ptr() for weight in model.parameters()} for model in (student, teacher))
    assert ours.isdisjoint(theirs)


@settings(deadline=None)
@given(teacher_layers=st.integers(1, 48), data=st.data(), keep=st.sampled_from(("first", "last", "even")))
def test_kept_layers_rise_and_stay_within_the_teacher(teacher_layers: int, data: st.DataObject, keep: Keep) -> None:
    layers = data.draw(st.integers(1, teacher_layers))
    chosen = kept_layers(teacher_layers, StudentConfig(layers=layers, keep=keep))
    assert len(set(chosen)) == layers
    assert chosen == sorted(chosen)
    assert chosen[0] >= 0
    assert chosen[-1] == (layers if keep == "first" else teacher_layers) - 1
    if keep == "even":
        gaps = np.diff([-1, *chosen])
        assert gaps.max() - gaps.min() <= 1


def test_more_layers_than_the_teacher_has_are_refused(case: Case) -> None:
    with pytest.raises(UserError, match=r"^student\.layers is 7, but the teacher has only 6 layers$"):
        make_student(case.load(), StudentConfig(layers=7))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_saved_student_loads_with_transformers_alone(case: Case, tmp_path: Path, precision: torch.dtype) -> None:
    teacher = load_classifier(str(case.model), TASK, seed=0)
    student = make_student(teacher, StudentConfig(layers=2, keep="even")).to(precision)
    save_model(student, load_tokenizer(str(case.model)), tmp_path)

    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.config.num_hidden_layers == 2
    assert loaded.config.id2label == {0: "negative", 1: "positive"}
    assert loaded.config.label2id == {"negative": 0, "positive": 1}
    assert {weight.dtype for weight in load_saved(tmp_path).parameters()} == {torch.float32}
    assert torch.equal(logits(load_saved(tmp_path), case), logits(student.float(), case))
    assert torch.equal(logits(loaded.eval(), case), logits(student.float(), case))
    words = AutoTokenizer.from_pretrained(tmp_path)("a very good film")["input_ids"]
    assert words == load_tokenizer(str(case.model))("a very good film")["input_ids"]


# --- loading


def test_a_fitting_head_is_kept(case: Case) -> None:
    classifier = load_classifier(str(case.model), TASK, seed=5)
    assert_equal_weights(classifier, case.load())
    assert not classifier.training
    assert classifier.config.problem_type == "single_label_classification"


def test_a_new_head_is_seeded_and_leaves_the_encoder_alone(case: Case) -> None:
    first, again, other = (load_classifier(str(case.model), THREE_CLASSES, seed) for seed in (1, 1, 2))
    assert first.classifier.weight.shape == (3, 16)
    assert first.config.id2label == {0: "low", 1: "middle", 2: "high"}
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert_equal_weights(first.bert, case.load().bert)


def test_a_regression_has_one_output(case: Case) -> None:
    classifier = load_classifier(str(case.model), REGRESSION, seed=0)
    assert classifier.config.problem_type == "regression"
    assert logits(classifier, case).shape == (8, 1)


def test_a_checkpoint_of_half_precision_is_loaded_in_fp32(case: Case, tmp_path: Path) -> None:
    save_model(case.load().to(torch.bfloat16), load_tokenizer(str(case.model)), tmp_path)
    assert {weight.dtype for weight in load_classifier(str(tmp_path), TASK, 0).parameters()} == {torch.float32}


def test_a_fine_tuned_teacher_is_taken_as_it_is(case: Case) -> None:
    assert_equal_weights(load_fine_tuned(str(case.model), TASK), case.load())


def test_a_teacher_with_another_head_is_refused(case: Case) -> None:
    with pytest.raises(UserError, match=r"has 2 outputs, but task three needs 3; set teacher\.finetune"):
        load_fine_tuned(str(case.model), THREE_CLASSES)


def test_a_teacher_with_the_classes_in_another_order_is_refused(case: Case, tmp_path: Path) -> None:
    turned = replace(TASK, class_names=("Positive", "Negative"))
    save_model(load_classifier(str(case.model), TASK, 0), load_tokenizer(str(case.model)), tmp_path)
    with pytest.raises(UserError, match=r"has the classes negative, positive, but task tiny has them in the order"):
        load_fine_tuned(str(tmp_path), turned)
    renamed = replace(TASK, class_names=("Negative", "Positive"))
    assert load_fine_tuned(str(tmp_path), renamed).config.id2label == {0: "Negative", 1: "Positive"}


def test_a_teacher_without_a_head_is_refused_where_it_would_not_be_trained(case: Case, tmp_path: Path) -> None:
    AutoModel.from_pretrained(case.model).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"lacks the weights classifier\.bias, classifier\.weight.*set teacher\.finetune"
    ):
        load_fine_tuned(str(tmp_path), TASK)
    assert load_classifier(str(tmp_path), TASK, seed=0).classifier.weight.shape == (2, 16)


# --- families


def test_an_unknown_family_is_refused_by_name_with_the_known_ones(tmp_path: Path) -> None:
    config = AlbertConfig(vocab_size=26, hidden_size=16, intermediate_size=32, num_attention_heads=2, embedding_size=8)
    AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    known = ", ".join(sorted(FAMILIES))
    with pytest.raises(UserError, match=rf"^encoder family 'albert' is not supported; supported are: {known}$"):
        load_base(str(tmp_path), TASK, seed=0)
    load_classifier(str(tmp_path), TASK, seed=0)  # as a student it will do


def test_the_families_told_without_torch_are_the_declared_ones() -> None:
    assert set(KNOWN_FAMILIES) == set(FAMILIES)


def test_a_sliced_teacher_tells_its_new_sizes(case: Case) -> None:
    teacher = case.load()
    mask = UnitMask.dense(teacher)
    mask.heads[0, :3] = False
    mask.neurons[0, 5:] = False
    layer = encoder_layers(sliced(teacher, mask))[0]
    family = family_of(teacher)
    for path, inputs, outputs in (
        (family.heads[0], 16, 4),
        (family.attention_output, 4, 16),
        (family.neurons, 16, 5),
        (family.neurons_output, 5, 16),
    ):
        projection = linear(layer, path)
        assert (projection.in_features, projection.out_features) == (inputs, outputs)
        assert projection.weight.shape == (outputs, inputs)
    assert_equal_weights(teacher, case.load())


def test_a_tokenizer_that_lacks_its_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "deberta-v2"}')
    (tmp_path / "spm.model").write_bytes(b"\0" * 8)
    monkeypatch.setattr("stkd.trainers.models.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tokenizer cannot be read.*pip install 'stkd\[sentencepiece\]'"):
        load_tokenizer(str(tmp_path))


# --- names


def test_a_model_folder_is_known_by_its_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tiny_teacher(tmp_path / "first"), tiny_teacher(tmp_path / "second")
    other = tiny_teacher(tmp_path / "other", layers=2)
    assert model_fingerprint(first) == model_fingerprint(second) != model_fingerprint(other)
    assert model_fingerprint("google-bert/bert-base-uncased") == model_fingerprint("google-bert/bert-base-uncased")
    assert resolve_model(first) == first


def test_a_model_in_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_teacher(tmp_path / "a_model_package" / "model", layers=1)
    (tmp_path / "a_model_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert load_classifier("package:a_model_package/model", TASK, seed=0).config.num_hidden_layers == 1


@pytest.mark.parametrize("model", ["package:no_such_package/model", "package:no_such_package"])
def test_a_package_that_is_not_installed_is_told_by_name(model: str) -> None:
    with pytest.raises(UserError, match=r"'no_such_package' is not installed"):
        resolve_model(model)
