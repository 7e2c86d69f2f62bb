"""The method against the reference implementation's numbers, and the properties that hold for any numbers."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from golden_numbers import KINDS, Golden, golden
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stkd.trainers.batches import Batch
from stkd.trainers.config import DistillationConfig, Scorer
from stkd.trainers.losses import distillation_losses
from stkd.trainers.ranking import UnitScores, normalised
from stkd.trainers.scores import StudentLogits, magnitudes, score_units
from stkd.trainers.tasks import Kind
from stkd.trainers.units import UnitMask, masked, sliced

pytestmark = pytest.mark.parametrize("kind", KINDS)
SCORES = ("head_expressiveness", "neuron_expressiveness", "head_friendliness", "neuron_friendliness")


def reference_scores(kind: Kind) -> UnitScores:
    pair = golden(kind)
    tensors = [*(pair.tensors[f"{name}_raw"] for name in SCORES), *magnitudes(pair.teacher)]
    return UnitScores(*(tensor.numpy() for tensor in tensors))


def settings_of(interpolation: float = 0.5, sparsity: float = 0.0, **others: Any) -> DistillationConfig:
    return DistillationConfig(interpolation=interpolation, sparsity=sparsity, **others)


def student_of(pair: Golden) -> StudentLogits:
    def student_logits(batch: Batch) -> Tensor:
        with torch.no_grad():
            found: Tensor = pair.student(**batch.inputs).logits
        return found

    return student_logits


def logits(kind: Kind, who: Literal["teacher", "student"] = "teacher") -> Tensor:
    pair = golden(kind)
    model = pair.teacher if who == "teacher" else pair.student
    with torch.inference_mode():
        return torch.stack([model(**batch.inputs).logits for batch in pair.batches()])


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_logits(kind: Kind, who: Literal["teacher", "student"]) -> None:
    torch.testing.assert_close(logits(kind, who), golden(kind).tensors[f"{who}_logits"], atol=1e-5, rtol=0)


def test_scores_raw_and_normalised(kind: Kind) -> None:
    pair = golden(kind)
    scores = score_units(pair.teacher, student_of(pair), pair.batches(), kind, temperature=2.0, reduction="batch")
    for name in SCORES:
        raw = getattr(scores, name) * 5  # the reference sums over its five batches
        np.testing.assert_allclose(raw, pair.tensors[f"{name}_raw"], rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(normalised(raw), pair.tensors[name], rtol=2e-5, atol=2e-6)


def test_scores_of_examples_equal_scores_of_batches_of_one(kind: Kind) -> None:
    pair = golden(kind)
    batch = pair.batches()[0]
    singles = [
        type(batch)(
            batch.indices[i : i + 1],
            {k: v[i : i + 1] for k, v in batch.inputs.items()},
            batch.labels[i : i + 1],
            batch.weights[:1],
        )
        for i in range(8)
    ]
    together = score_units(pair.teacher, student_of(pair), [batch], kind, 2.0, "example")
    apart = score_units(pair.teacher, student_of(pair), singles, kind, 2.0, "batch")
    for name in SCORES:
        torch.testing.assert_close(getattr(together, name), getattr(apart, name), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("reduction", ["example", "batch"])
def test_one_backward_pass_says_what_two_say(
    kind: Kind, reduction: Literal["example", "batch"], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = golden(kind)
    teacher, batches = deepcopy(pair.teacher), pair.batches()
    outputs = 1 if kind == "regression" else 2
    teacher.classifier.weight.data = teacher.classifier.weight.data[:outputs]
    teacher.classifier.bias.data = teacher.classifier.bias.data[:outputs]
    if kind == "classification":
        batches = [replace(batch, labels=batch.labels.clamp(max=1)) for batch in batches]
    passes: list[int] = []
    backward = torch.autograd.grad

    def counted(of: Any, by: Any, *arguments: Any, **options: Any) -> Any:
        passes.extend([1] if isinstance(by, list) else [])
        return backward(of, by, *arguments, **options)

    def scored() -> UnitScores:
        passes.clear()
        return score_units(teacher, lambda batch: student_of(pair)(batch)[:, :outputs], batches, kind, 2.0, reduction)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    once = scored()
    assert len(passes) == len(batches)
    monkeypatch.setattr("stkd.trainers.scores._shared_direction", lambda logits, kind: None)
    twice = scored()
    assert len(passes) == 2 * len(batches)
    for name in SCORES:
        np.testing.assert_allclose(getattr(once, name), getattr(twice, name), rtol=1e-4, atol=1e-8)


def test_scores_equal_the_slope_of_the_loss_along_a_mask(kind: Kind) -> None:
    pair = golden(kind)
    batch = pair.batches()[0]
    scores = score_units(pair.teacher, student_of(pair), [batch], kind, 2.0, "batch")
    teacher = sliced(pair.teacher, UnitMask.dense(pair.teacher)).double()
    student_logits = pair.student(**batch.inputs).logits.detach().double()

    def loss(shift: float) -> Tensor:
        heads = torch.ones(3, 4, dtype=torch.float64)
        heads[1, 2] += shift
        with masked(teacher, UnitMask(heads, torch.ones(3, 48))), torch.no_grad():
            return distillation_losses(
                student_logits, teacher(**batch.inputs).logits.double(), batch.labels, kind, 2.0
            ).mean()

    slope = (loss(1e-3) - loss(-1e-3)) / 2e-3
    assert float(scores.head_friendliness[1, 2]) == pytest.approx(abs(float(slope)), rel=2e-2)


def test_removed_units_for_every_interpolation_and_sparsity(kind: Kind) -> None:
    scores = reference_scores(kind)
    seen = 0
    for key, removed in golden(kind).reference["removed"].items():
        interpolation, sparsity = (float(part.split("=")[1]) for part in key.split(","))
        mask = UnitMask.of(scores, settings_of(interpolation, sparsity))
        assert (~mask.heads.flatten()).nonzero().flatten().tolist() == removed["heads"], key
        assert (~mask.neurons.flatten()).nonzero().flatten().tolist() == removed["neurons"], key
        seen += 1
    assert seen == 40


@pytest.mark.parametrize("percent", [30, 50, 70])
def test_masked_and_sliced_logits(kind: Kind, percent: int) -> None:
    pair = golden(kind)
    mask = UnitMask.of(reference_scores(kind), settings_of(0.5, percent / 100))
    smaller = sliced(pair.teacher, mask)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in pair.teacher.parameters())
    with torch.inference_mode():
        cut = torch.stack([smaller(**batch.inputs).logits for batch in pair.batches()])
    with masked(pair.teacher, mask):
        zeroed = logits(kind)
    torch.testing.assert_close(zeroed, pair.tensors[f"masked_logits_{percent}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(cut, zeroed, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lost", ["heads", "neurons", "both"])
def test_a_layer_can_lose_all_its_units(kind: Kind, lost: str) -> None:
    pair = golden(kind)
    mask = UnitMask.dense(pair.teacher)
    if lost in ("heads", "both"):
        mask.heads[1] = False
    if lost in ("neurons", "both"):
        mask.neurons[2] = False
    with torch.inference_mode():
        cut = torch.stack([sliced(pair.teacher, mask)(**batch.inputs).logits for batch in pair.batches()])
    with masked(pair.teacher, mask):
        torch.testing.assert_close(cut, logits(kind), atol=1e-5, rtol=0)


def test_distillation_loss_at_three_temperatures(kind: Kind) -> None:
    pair = golden(kind)
    seen = 0
    for temperature, losses in pair.reference["distillation_loss_per_batch"].items():
        found = [
            distillation_losses(student, teacher, labels, kind, float(temperature)).mean()
            for student, teacher, labels in zip(
                pair.tensors["student_logits"], pair.tensors["teacher_logits"], pair.tensors["labels"], strict=True
            )
        ]
        torch.testing.assert_close(torch.stack(found), torch.tensor(losses), rtol=1e-5, atol=1e-6)
        seen += 1
    assert seen == 3


def test_interpolation_one_ranks_by_expressiveness_alone_and_zero_by_friendliness(kind: Kind) -> None:
    scores = reference_scores(kind)
    heads, neurons = scores.knowledge(1.0)
    assert np.array_equal(heads, normalised(scores.head_expressiveness))
    assert np.array_equal(neurons, normalised(scores.neuron_expressiveness))
    heads, neurons = scores.knowledge(0.0)
    assert np.array_equal(heads, normalised(scores.head_friendliness))
    assert np.array_equal(neurons, normalised(scores.neuron_friendliness))


def test_sparsity_zero_is_the_dense_teacher_to_the_bit(kind: Kind) -> None:
    pair = golden(kind)
    mask = UnitMask.of(reference_scores(kind), settings_of(0.3, 0.0))
    assert mask.is_dense
    assert mask.name == UnitMask.dense(pair.teacher).name
    weights = sliced(pair.teacher, mask).state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in pair.teacher.state_dict().items())
    batch = pair.batches()[0]
    assert torch.equal(sliced(pair.teacher, mask)(**batch.inputs).logits, pair.teacher(**batch.inputs).logits)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    interpolation=st.floats(0, 1),
    sparsities=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted),
)
def test_more_sparsity_removes_a_superset(kind: Kind, seed: int, interpolation: float, sparsities: list[float]) -> None:
    rng = np.random.default_rng(seed)
    shapes = ((3, 4), (3, 48)) * 3
    # few distinct values, so that ties are common
    scores = UnitScores(*(rng.integers(0, 5, shape).astype(np.float32) for shape in shapes))
    fewer, more = (UnitMask.of(scores, settings_of(interpolation, sparsity)) for sparsity in sparsities)
    assert not (more.heads & ~fewer.heads).any()
    assert not (more.neurons & ~fewer.neurons).any()
    assert int((~more.neurons).sum()) == round(sparsities[1] * 144)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3), sparsity=st.floats(0, 0.99))
def test_the_scale_of_a_score_does_not_change_what_is_removed(
    kind: Kind, seed: int, scale: float, sparsity: float
) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(0.1, 1, shape).astype(np.float32) for shape in ((3, 4), (3, 48)) * 3]
    scaled = UnitScores(parts[0] * scale, parts[1] * scale, *parts[2:]).knowledge(0.4)
    plain = UnitScores(*parts).knowledge(0.4)
    for left, right in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


def test_every_scorer_ranks_by_what_it_says(kind: Kind) -> None:
    scores = reference_scores(kind)
    expected = {
        "knowledge": scores.knowledge(0.3),
        "expressiveness": scores.knowledge(1.0),
        "friendliness": scores.knowledge(0.0),
        "magnitude": (normalised(scores.head_magnitude), normalised(scores.neuron_magnitude)),
    }
    assert {*expected, "random"} == set(get_args(Scorer))
    for scorer, ranked in expected.items():
        heads, neurons = scores.ranked_by(settings_of(0.3, scorer=scorer), seed=7)
        assert np.array_equal(heads, ranked[0])
        assert np.array_equal(neurons, ranked[1])


def test_random_units_depend_on_the_seed_alone(kind: Kind) -> None:
    scores = reference_scores(kind)
    first, again, other = (UnitMask.of(scores, settings_of(0.3, 0.5, scorer="random"), seed) for seed in (1, 1, 2))
    assert first.name == again.name != other.name
    assert UnitMask.of(scores, settings_of(0.9, 0.5, scorer="random"), 1).name == first.name
    assert int((~first.neurons).sum()) == round(0.5 * first.neurons.numel())


def test_heads_and_neurons_have_their_own_sparsity_when_asked(kind: Kind) -> None:
    mask = UnitMask.of(reference_scores(kind), settings_of(0.5, 0.5, head_sparsity=0.25, neuron_sparsity=0.75))
    assert float((~mask.heads).float().mean()) == 0.25
    assert float((~mask.neurons).float().mean()) == 0.75


@pytest.mark.parametrize("multiple", [4, 8])
def test_removed_neurons_come_in_multiples_and_are_each_layers_lowest(kind: Kind, multiple: int) -> None:
    scores = reference_scores(kind)
    free, rounded = (UnitMask.of(scores, settings_of(0.5, 0.4, neuron_multiple=number)) for number in (1, multiple))
    assert torch.equal(free.heads, rounded.heads)
    knowledge = scores.knowledge(0.5)[1]
    for layer in range(len(free.neurons)):
        lost, wanted = int((~rounded.neurons[layer]).sum()), int((~free.neurons[layer]).sum())
        assert lost % multiple == 0
        assert abs(lost - wanted) <= multiple / 2
        if 0 < lost < len(knowledge[layer]):
            assert knowledge[layer][~rounded.neurons[layer]].max() <= knowledge[layer][rounded.neurons[layer]].min()


def test_magnitudes_are_norms_of_a_units_weights(kind: Kind) -> None:
    teacher = golden(kind).teacher
    heads, neurons = magnitudes(teacher)
    layer = teacher.bert.encoder.layer[1]
    width = layer.attention.output.dense.in_features // heads.shape[1]
    rows = slice(2 * width, 3 * width)
    weights = [getattr(layer.attention.self, name).weight[rows] for name in ("query", "key", "value")]
    weights.append(layer.attention.output.dense.weight[:, rows])
    head = torch.cat([weight.detach().flatten() for weight in weights])
    assert float(heads[1, 2]) == pytest.approx(float(head.norm()))
    neuron = torch.cat([layer.intermediate.dense.weight[5], layer.output.dense.weight[:, 5]])
    assert float(neurons[1, 5]) == pytest.approx(float(neuron.detach().norm()))
