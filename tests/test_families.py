"""The contract of every encoder family: what must hold for all that a sweep does with a teacher and its students."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_teacher, tiny_training
from tiny_families import HEADS, LAYERS, NEURONS, SETTINGS, tiny_examples_for, tiny_model, told_on_disk
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from stkd.trainers.batches import Batch, EncodedExamples
from stkd.trainers.config import KNOWN_FAMILIES, DistillationConfig, StudentConfig
from stkd.trainers.engine import decays
from stkd.trainers.errors import UserError
from stkd.trainers.families import FAMILIES, encoder_layers, family_of, linear
from stkd.trainers.loop import CachedTeacher, Training, distillation_loss, predict
from stkd.trainers.losses import imitation_losses, task_losses
from stkd.trainers.model_files import layer_count, token_limit
from stkd.trainers.models import load_saved, load_tokenizer, parameter_count, save_model
from stkd.trainers.ranking import UnitScores
from stkd.trainers.ranks import Ranks
from stkd.trainers.scores import score_units
from stkd.trainers.students import make_student
from stkd.trainers.units import UnitMask, cut, masked, sliced, zeroed

every_family = pytest.mark.parametrize("name", SETTINGS)
SDPA = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "modernbert")
"""The families that can compute attention in more than one way."""
UNLIMITED = ("deberta", "deberta-v2", "deberta-v2 with a convolution")
"""Positions are relative alone."""
CPU = torch.device("cpu")


def padded_batch(model: PreTrainedModel) -> Batch:
    batch = tiny_examples_for(model).batch(np.arange(8), CPU)
    assert not batch.inputs["attention_mask"].all()
    return batch


def logits(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(**padded_batch(model).inputs).logits
    return found


def random_mask(sparsity: float) -> UnitMask:
    torch.manual_seed(round(sparsity * 10))
    shapes = ((LAYERS, HEADS), (LAYERS, NEURONS)) * 3
    return UnitMask.of(
        UnitScores(*(torch.rand(shape).numpy() for shape in shapes)), DistillationConfig(sparsity=sparsity)
    )


def assert_one_function(model: PreTrainedModel, mask: UnitMask) -> None:
    """Masked, sliced and zeroed models agree and differ from the dense one; sliced away is what zeroed has at zero."""
    with masked(model, mask):
        expected = logits(model)
    smaller, same_size = sliced(model, mask), zeroed(model, mask)
    torch.testing.assert_close(logits(smaller), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(same_size), expected, atol=1e-5, rtol=0)
    assert (logits(model) - expected).abs().max() > 1e-3
    assert zeros(model) == 0
    assert parameter_count(same_size) == parameter_count(model) == parameter_count(smaller) + zeros(same_size)


def zeros(model: PreTrainedModel) -> int:
    return sum(int((parameter == 0).sum()) for parameter in model.parameters())


def test_the_contract_sees_every_family() -> None:
    assert {tiny_model(name).config.model_type for name in SETTINGS} == set(FAMILIES)
    assert len(FAMILIES) == len(KNOWN_FAMILIES) == 10
    assert all(family.model_type == model_type for model_type, family in FAMILIES.items())


def test_every_path_of_a_family_leads_somewhere() -> None:
    present: dict[str, set[str]] = {model_type: set() for model_type in FAMILIES}
    for model in map(tiny_model, SETTINGS):
        layer = encoder_layers(model)[-1]
        present[model.config.model_type] |= {name for name, _ in (*layer.named_modules(), *layer.named_parameters())}
    for model_type, family in FAMILIES.items():
        paths = {*family.heads, family.attention, family.attention_output, family.neurons, family.neurons_output}
        assert paths | ({family.later_norm} - {None}) <= present[model_type], model_type


# --- units


@every_family
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_masked_sliced_and_zeroed_teachers_are_one_function(name: str, sparsity: float) -> None:
    assert_one_function(tiny_model(name), random_mask(sparsity))


@every_family
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_neurons_that_fill_a_multiple_change_nothing(name: str, sparsity: float) -> None:
    model, mask = tiny_model(name), random_mask(sparsity)
    filled = cut(copy.deepcopy(model), mask, multiple=5)
    torch.testing.assert_close(logits(filled), logits(sliced(model, mask)), atol=1e-5, rtol=0)
    outputs = [linear(layer, family_of(model).neurons_output) for layer in encoder_layers(filled)]
    assert [output.in_features for output in outputs] == mask.rounded_up(5).neurons.sum(dim=1).tolist()
    assert {output.in_features for output in outputs} <= {*range(0, NEURONS, 5), NEURONS}


@every_family
@pytest.mark.parametrize("lost", ["heads", "neurons", "both", "all heads", "all"])
def test_a_layer_can_lose_all_its_units(name: str, lost: str) -> None:
    model = tiny_model(name)
    mask = UnitMask.dense(model)
    assert mask.heads.shape == (LAYERS, HEADS)
    assert mask.neurons.shape == (LAYERS, NEURONS)
    if lost != "neurons":
        mask.heads[:, :] = not lost.startswith("all")
        mask.heads[0] = mask.heads[2] = False
    if lost in ("neurons", "both", "all"):
        mask.neurons[:, :] = lost != "all"
        mask.neurons[1] = mask.neurons[2] = False
    assert_one_function(model, mask)


@every_family
def test_a_dense_mask_changes_no_bit(name: str) -> None:
    model = tiny_model(name)
    mask = UnitMask.dense(model)
    for same in (sliced(model, mask), cut(copy.deepcopy(model), mask, multiple=5), zeroed(model, mask)):
        assert torch.equal(logits(same), logits(model))


@pytest.mark.parametrize("name", SDPA)
def test_ways_to_compute_attention_agree_on_sliced_teachers(name: str) -> None:
    for mask in (random_mask(0.5), random_mask(0.9)):
        eager, fused = (sliced(tiny_model(name, attention), mask) for attention in ("eager", "sdpa"))
        assert (eager.config._attn_implementation, fused.config._attn_implementation) == ("eager", "sdpa")
        torch.testing.assert_close(logits(eager), logits(fused), atol=1e-5, rtol=0)


def test_all_ways_to_compute_attention_are_tested() -> None:
    assert {model.config.model_type for model in map(tiny_model, SETTINGS) if model._supports_sdpa} == set(SDPA)


@every_family
def test_token_types_that_say_nothing_change_nothing(name: str) -> None:
    model = tiny_model(name)
    inputs = padded_batch(model).inputs
    with torch.inference_mode():
        typed = model(**inputs, token_type_ids=torch.zeros_like(inputs["input_ids"])).logits
    torch.testing.assert_close(typed, logits(model), atol=1e-6, rtol=0)


# --- scores


@every_family
def test_scores_are_slopes_of_the_losses_along_masks(name: str) -> None:
    teacher = copy.deepcopy(tiny_model(name)).double()
    student = make_student(teacher, StudentConfig(layers=1))
    batch = padded_batch(teacher)
    student_logits = student(**batch.inputs).logits.detach()
    scores = score_units(teacher, lambda _: student_logits, [batch], "classification", temperature=2.0)

    def losses(units: str, place: tuple[int, int], factor: float) -> Tensor:
        """Both losses of every example, (2, B), with one unit multiplied."""
        mask = {"heads": torch.ones(LAYERS, HEADS).double(), "neurons": torch.ones(LAYERS, NEURONS).double()}
        mask[units][place] = factor
        with masked(teacher, UnitMask(**mask)), torch.no_grad():
            found = teacher(**batch.inputs).logits
        imitation = imitation_losses(student_logits, found, "classification", 2.0) / 2
        return torch.stack([task_losses(found, batch.labels, "classification"), imitation])

    for units, expressiveness, friendliness in (
        ("heads", scores.head_expressiveness, scores.head_friendliness),
        ("neurons", scores.neuron_expressiveness[:, :HEADS], scores.neuron_friendliness[:, :HEADS]),
    ):
        assert min(np.median(expressiveness), np.median(friendliness)) > 2e-4
        for place in itertools.product(range(LAYERS), range(HEADS)):
            slope = (losses(units, place, 1.01) - losses(units, place, 0.99)).div(0.02).abs().mean(dim=1)
            found = torch.tensor([expressiveness[place], friendliness[place]])
            torch.testing.assert_close(found, slope.to(found), rtol=2e-2, atol=2e-5)


# --- students


@every_family
@pytest.mark.parametrize("keep", ["first", "last", "even"])
def test_a_student_with_fewer_layers_is_saved_and_loaded(name: str, keep: str, tmp_path: Path) -> None:
    teacher = tiny_model(name)
    student = make_student(teacher, StudentConfig.model_validate({"layers": 2, "keep": keep}))
    assert len(encoder_layers(student)) == layer_count(told_on_disk(student)) == 2
    assert len(encoder_layers(teacher)) == layer_count(told_on_disk(teacher)) == LAYERS
    assert_saved_and_loaded(student, tmp_path)
    assert_one_function(student, UnitMask(random_mask(0.5).heads[:2], random_mask(0.5).neurons[:2]))


@every_family
def test_teachers_and_zeroed_teachers_are_saved_and_loaded(name: str, tmp_path: Path) -> None:
    assert_saved_and_loaded(tiny_model(name), tmp_path / "dense")
    assert_saved_and_loaded(zeroed(tiny_model(name), random_mask(0.7)), tmp_path / "zeroed")


def assert_saved_and_loaded(model: PreTrainedModel, folder: Path) -> None:
    save_model(model, load_tokenizer(tiny_teacher(folder / "tokenizer")), folder)
    assert torch.equal(logits(load_saved(folder)), logits(model))
    loaded, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert torch.equal(logits(loaded.eval()), logits(model))
    assert not any(report.values())


def test_a_layer_of_modernbert_that_becomes_the_first_keeps_the_scale_of_its_norm() -> None:
    teacher = tiny_model("modernbert")
    for keep, chosen in (("last", [2, 3]), ("even", [1, 3]), ("first", [0, 1])):
        student = make_student(teacher, StudentConfig.model_validate({"layers": 2, "keep": keep}))
        assert student.config.layer_types == [teacher.config.layer_types[number] for number in chosen]
        first, origin = encoder_layers(student)[0], encoder_layers(teacher)[chosen[0]]
        assert isinstance(first.get_submodule("attn_norm"), nn.Identity)
        scale = origin.get_parameter("attn_norm.weight") if chosen[0] else torch.ones(16)
        states = torch.randn(5, 16)
        torch.testing.assert_close(linear(first, "attn.Wqkv")(states), linear(origin, "attn.Wqkv")(states * scale))


@every_family
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_step_of_distillation_lowers_the_loss(name: str, precision: str) -> None:
    teacher = tiny_model(name)
    if precision == "bf16" and not family_of(teacher).autocast:
        with pytest.raises(UserError, match=r"precision is bf16, which models of the family 'deberta' cannot"):
            distil_once(teacher, precision)
        return
    before, step, after = distil_once(teacher, precision)
    assert step == pytest.approx(before, rel=1e-5 if precision == "fp32" else 0.1)
    assert after < before * 0.999


def test_auto_is_fp32_where_a_family_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    exact = {name for name in ("bert", "deberta") if np.isclose(*distil_once(tiny_model(name), "auto")[:2], rtol=1e-5)}
    assert exact == {"deberta"}


def distil_once(teacher: PreTrainedModel, precision: str) -> tuple[float, float, float]:
    """The loss of a student of two layers before, in and after its first step."""
    student, settings = make_student(teacher, StudentConfig(layers=2)), DistillationConfig()
    examples, batch = tiny_examples_for(teacher), padded_batch(teacher)
    answers = predict(teacher, examples, Ranks())
    losses = distillation_loss(CachedTeacher(answers), "classification", settings)

    def loss() -> float:
        return float(losses(predict(student, examples, Ranks()), batch).mean())

    training = tiny_training(epochs=1, batch_size=len(examples), precision=precision)
    before, course = loss(), Training(student, examples, losses, training, Ranks(), {})
    [step] = course.run_epoch()
    course.engine.close()
    return before, step, loss()


@every_family
def test_weight_decay_leaves_out_norms_and_biases_and_nothing_else(name: str) -> None:
    model = tiny_model(name)
    found = {parameter for parameter, weights in model.named_parameters() if not decays(parameter, weights)}
    norms = {
        f"{path}.{own}"
        for path, module in model.named_modules()
        if "Norm" in type(module).__name__
        for own, _ in module.named_parameters(recurse=False)
    }
    biases = {parameter for parameter, _ in model.named_parameters() if parameter.endswith("bias")}
    tables = {"mpnet.encoder.relative_attention_bias.weight"} if name == "mpnet" else set()
    assert found == norms | biases | tables
    assert len(norms) >= 2 * LAYERS
    assert len(found) < len(list(model.parameters()))


# --- lengths


@every_family
def test_the_longest_input_is_as_told_on_disk(name: str) -> None:
    model = tiny_model(name)
    limit = token_limit(told_on_disk(model))
    run(model, 60 if limit is None else limit)
    assert (limit is None) == (name in UNLIMITED)
    if limit is not None and not name.startswith("modernbert"):  # which takes more, beyond its training
        with pytest.raises((IndexError, RuntimeError)):
            run(model, limit + 1)


def run(model: PreTrainedModel, tokens: int) -> None:
    examples = EncodedExamples(
        np.full(tokens, 5, dtype=np.int32), None, np.asarray([0, tokens]), np.zeros(1, dtype=np.int64), pad_id=0
    )
    with torch.inference_mode():
        assert model(**examples.batch(np.arange(1), CPU).inputs).logits.isfinite().all()
