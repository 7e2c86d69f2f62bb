"""The one loop: what must not change a student (ranks, accumulation, padding, a cache), and what must stop it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rank_processes import RankProcesses
from tiny import (
    REGRESSION,
    TASK,
    Case,
    Course,
    assert_same_course,
    cpu_only,
    tiny_case,
    tiny_training,
    train,
    weights_of,
)
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from stkd.trainers.batches import Batch
from stkd.trainers.config import DistillationConfig, StudentConfig, TrainingConfig
from stkd.trainers.engine import Engine, computes_in_bf16, deepspeed_settings
from stkd.trainers.errors import NonFiniteLossError
from stkd.trainers.loop import (
    CachedTeacher,
    LiveTeacher,
    LossFunction,
    Training,
    distillation_loss,
    label_loss,
    milliseconds_per_example,
    predict,
)
from stkd.trainers.losses import task_losses
from stkd.trainers.ranks import Ranks
from stkd.trainers.students import make_student

ONE = Ranks()
EXAMPLES = 49
"""Three batches of 16 and a last one of 1, in which all shares but one are empty."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return tiny_case(tmp_path_factory.mktemp("short"), train=EXAMPLES)


@pytest.fixture(scope="module")
def alone(case: Case) -> Course:
    return train(ONE, case, tiny_training())


@pytest.fixture(scope="module", autouse=True)
def two_ranks() -> Iterator[RankProcesses]:
    with RankProcesses(2) as processes:
        yield processes


# --- batches and their parts


def test_a_training_learns_its_examples(tmp_path: Path) -> None:
    case = tiny_case(tmp_path, train=EXAMPLES, layers=1)
    course = train(ONE, case, tiny_training(epochs=12, learning_rate=1e-2))
    assert len(course.losses) == 12 * 4
    assert course.logits.shape == (EXAMPLES, 2)
    assert (course.logits.argmax(axis=1) == case.train.labels).mean() > 0.9


def test_four_micro_batches_follow_the_course_of_one_batch(case: Case, alone: Course) -> None:
    assert_same_course(alone, train(ONE, case, tiny_training(accumulation=4)), 1e-4)


def test_clipping_is_of_the_whole_gradient_and_bites(case: Case) -> None:
    free, clipped, accumulated = (
        train(ONE, case, tiny_training(epochs=1, accumulation=accumulation, gradient_clipping=clipping))
        for accumulation, clipping in ((1, 1e9), (1, 0.05), (4, 0.05))
    )
    assert np.abs(np.subtract(free.losses, clipped.losses)).max() > 1e-3
    assert_same_course(clipped, accumulated, 1e-4)


def test_a_gradient_is_clipped_to_what_was_asked_and_no_further(case: Case) -> None:
    free, loosely, tightly = (norm_that_moves_weights(case, clipping) for clipping in (1e9, 30, 0.5))
    assert free > 100
    assert (loosely, tightly) == pytest.approx((30, 0.5), rel=1e-3)


def norm_that_moves_weights(case: Case, clipping: float) -> float:
    engine = Engine(case.load().to(ONE.device), tiny_training(gradient_clipping=clipping), 4, ONE, {})
    norms: list[Tensor] = []
    engine._optimizer.register_step_pre_hook(lambda *_: norms.append(get_total_norm(gradients_of(engine.model))))
    engine.backward(1e4 * engine.logits(case.train.batch(np.arange(4), ONE.device)).square().sum(), count=1)
    engine.step()
    engine.close()
    (norm,) = norms
    return float(norm)


def gradients_of(model: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in model.parameters() if weight.grad is not None]


# --- the same seed


@cpu_only
def test_the_same_seed_gives_the_same_student_to_the_bit(tmp_path: Path) -> None:
    case = tiny_case(tmp_path, train=EXAMPLES, dropout=0.2)
    first, again, other = (train(ONE, case, tiny_training(epochs=2, seed=seed)) for seed in (7, 7, 8))
    assert first.losses == again.losses
    assert all(np.array_equal(weight, again.weights[name]) for name, weight in first.weights.items())
    assert first.losses != other.losses
    assert not np.array_equal(first.logits, other.logits)


def test_dropout_is_on_in_training_and_off_in_prediction(tmp_path: Path, alone: Course) -> None:
    case = tiny_case(tmp_path, train=EXAMPLES, dropout=0.2)
    training = Training(case.load(), case.train, label_loss("classification"), tiny_training(), ONE, {})
    model = training.engine.model
    before = predict(model, case.train, ONE)
    assert torch.equal(before, predict(model, case.train, ONE))
    assert training.run_epoch()[0] != pytest.approx(alone.losses[0], abs=1e-4)
    assert model.training
    training.engine.close()


def test_dropout_draws_anew_in_every_epoch(tmp_path: Path) -> None:
    case = tiny_case(tmp_path, train=EXAMPLES, dropout=0.2)
    one_example = case.train.subset(np.asarray([0]))
    still = tiny_training(learning_rate=1e-12, batch_size=1)
    training = Training(case.load(), one_example, label_loss("classification"), still, ONE, {})
    assert len({loss for _ in range(3) for loss in training.run_epoch()}) == 3
    training.engine.close()


# --- the teacher


@pytest.mark.parametrize("task", [TASK, REGRESSION], ids=["classification", "regression"])
def test_cached_logits_equal_the_teacher_in_the_loop(tmp_path: Path, task: Any) -> None:
    case = tiny_case(tmp_path, train=EXAMPLES, task=task)
    training = tiny_training(epochs=2, accumulation=2)
    settings = DistillationConfig(temperature=3.0, hard_weight=0.3)
    teacher = case.load().to(ONE.device)
    live, cached = LiveTeacher(teacher), CachedTeacher(predict(teacher, case.train, ONE))
    forwards: list[int] = []
    teacher.register_forward_hook(lambda *_: forwards.append(1))

    with_live = distil(case, training, distillation_loss(live, task.kind, settings))
    assert live.forwards == len(forwards) == 2 * 4 * 2  # epochs, steps, micro-batches
    forwards.clear()
    with_cache = distil(case, training, distillation_loss(cached, task.kind, settings))
    assert forwards == []
    assert_same_course(with_live, with_cache, 1e-6)


def distil(case: Case, training: TrainingConfig, losses: LossFunction) -> Course:
    student = make_student(case.load(), StudentConfig(layers=1))
    course = Training(student, case.train, losses, training, ONE, {})
    steps = [loss for _ in range(training.epochs) for loss in course.run_epoch()]
    course.engine.close()
    return Course(steps, weights_of(student), predict(student, case.train, ONE).numpy())


def test_a_step_of_distillation_lowers_the_loss_of_its_batch(case: Case) -> None:
    teacher = CachedTeacher(predict(case.load().to(ONE.device), case.train, ONE))
    training = tiny_training(epochs=2, batch_size=EXAMPLES, learning_rate=1e-4, warmup=0.0)
    before, after = distil(case, training, distillation_loss(teacher, "classification", DistillationConfig())).losses
    assert after < before


def test_the_hard_weight_chooses_between_teacher_and_labels(case: Case) -> None:
    training = tiny_training(epochs=1)
    teacher = CachedTeacher(torch.randn(EXAMPLES, 2, generator=torch.Generator().manual_seed(0)))
    hard = distil(case, training, distillation_loss(teacher, "classification", DistillationConfig(hard_weight=1.0)))
    labels = distil(case, training, label_loss("classification"))
    soft = distil(case, training, distillation_loss(teacher, "classification", DistillationConfig(hard_weight=0.0)))
    assert hard.losses == labels.losses
    assert soft.losses != labels.losses


# --- losses that are no numbers


def test_a_learning_rate_that_explodes_is_told_with_step_and_epoch(case: Case) -> None:
    with pytest.raises(NonFiniteLossError, match=r"^the loss is (nan|inf) at step 2 of epoch 1$"):
        train(ONE, case, tiny_training(learning_rate=1e30, warmup=0.0))


def test_weights_that_turn_bad_later_are_told_with_their_epoch(case: Case) -> None:
    training = Training(case.load(), case.train, label_loss("classification"), tiny_training(), ONE, {})
    training.run_epoch()
    with torch.no_grad():
        training.engine.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"^the loss is nan at step 1 of epoch 2$"):
        training.run_epoch()
    training.engine.close()


@pytest.mark.parametrize("bad_step", [1, 3, 4, 6, 7])
def test_the_step_is_right_although_only_some_steps_look(
    case: Case, monkeypatch: pytest.MonkeyPatch, bad_step: int
) -> None:
    monkeypatch.setattr("stkd.trainers.loop.FINITE_CHECK_STEPS", 3)
    steps = 0

    def losses(logits: Tensor, batch: Batch) -> Tensor:
        nonlocal steps
        steps += 1
        return task_losses(logits, batch.labels, "classification") / (0.0 if steps == bad_step else 1.0)

    training = Training(case.load(), case.train, losses, tiny_training(batch_size=7), ONE, {})
    with pytest.raises(NonFiniteLossError, match=rf"^the loss is inf at step {bad_step} of epoch 1$"):
        training.run_epoch()
    assert steps == {1: 3, 3: 3, 4: 6, 6: 6, 7: 7}[bad_step]
    training.engine.close()


# --- DeepSpeed


def test_training_goes_through_deepspeed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[dict[str, Any]] = []
    initialize = deepspeed.initialize

    def watched(**arguments: Any) -> Any:
        configs.append(arguments["config"])
        return initialize(**arguments)

    monkeypatch.setattr(deepspeed, "initialize", watched)
    train(ONE, case, tiny_training(epochs=1), deepspeed={"wall_clock_breakdown": False})
    assert len(configs) == 1
    assert configs[0]["wall_clock_breakdown"] is False


def test_deepspeed_settings_follow_the_training() -> None:
    training = tiny_training(batch_size=16, accumulation=2, gradient_clipping=0.7)
    settings = deepspeed_settings(training, Ranks(0, 4), {})
    assert settings["train_micro_batch_size_per_gpu"] == 2
    assert settings["gradient_accumulation_steps"] == 2
    assert settings["gradient_clipping"] == 0.7
    assert settings["torch_autocast"] == {"enabled": False, "dtype": "bfloat16"}
    assert settings["zero_optimization"] == {"stage": 1}
    assert deepspeed_settings(training, ONE, {})["zero_optimization"] == {"stage": 0}


def test_a_batch_smaller_than_ranks_times_accumulation_is_no_mistake() -> None:
    training = tiny_training(batch_size=3, accumulation=4)
    assert deepspeed_settings(training, Ranks(0, 2), {})["train_micro_batch_size_per_gpu"] == 1


def test_every_key_of_the_users_section_reaches_deepspeed(case: Case) -> None:
    overrides = {
        "zero_optimization": {"stage": 2, "overlap_comm": False},
        "gradient_clipping": 0.3,
        "prescale_gradients": True,
    }
    settings = deepspeed_settings(tiny_training(), ONE, overrides)
    assert overrides.items() <= settings.items()
    assert "gradient_accumulation_steps" in settings
    engine = Engine(
        case.load().to(ONE.device), tiny_training(), 4, ONE, {"gradient_clipping": 0.3, "steps_per_print": 7}
    )
    assert (engine._clipping, engine._engine.steps_per_print()) == (0.3, 7)
    engine.close()


def test_no_weight_decay_on_biases_and_norms(case: Case) -> None:
    model = case.load().to(ONE.device)
    engine = Engine(model, tiny_training(weight_decay=0.2), 4, ONE, {})
    decay = {
        id(weight): group["weight_decay"]
        for group in engine._engine.optimizer.param_groups
        for weight in group["params"]
    }
    plain = {name for name, weight in model.named_parameters() if decay[id(weight)] == 0.0}
    assert plain == {name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name}
    assert set(decay.values()) == {0.0, 0.2}
    engine.close()


# --- precision


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
def test_auto_is_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    processor = torch.device("cpu")
    assert computes_in_bf16(TrainingConfig(), processor) is (avx512 or amx)
    assert computes_in_bf16(TrainingConfig(precision="bf16"), processor) is True
    assert computes_in_bf16(TrainingConfig(precision="fp32"), processor) is False


def test_bf16_stays_close_to_fp32(case: Case, alone: Course) -> None:
    kinds: list[torch.dtype] = []

    def losses(logits: Tensor, batch: Batch) -> Tensor:
        kinds.append(logits.dtype)
        return task_losses(logits, batch.labels, "classification")

    course = train(ONE, case, tiny_training(precision="bf16"), losses)
    assert set(kinds) == {torch.bfloat16}
    assert course.losses != alone.losses
    np.testing.assert_allclose(course.losses, alone.losses, atol=0.03, rtol=0)
    assert {weight.dtype for weight in course.weights.values()} == {np.dtype(np.float32)}


# --- running a model


@pytest.mark.parametrize("tokens", [1, 70, 1024])
def test_predictions_come_in_the_splits_own_order(case: Case, tokens: int) -> None:
    model = case.load().to(ONE.device)
    with torch.inference_mode():
        singles = [model(**case.train.batch(np.asarray([i]), ONE.device).inputs).logits.cpu() for i in range(EXAMPLES)]
    found = predict(model, case.train, ONE, tokens)
    torch.testing.assert_close(found, torch.cat(singles), atol=1e-5, rtol=0)
    assert not found.is_inference()  # or no loss could be built on cached logits
    assert not model.training


@pytest.mark.parametrize("examples", [1, 3, 5])
def test_latency_is_measured_on_however_few_examples(case: Case, examples: int) -> None:
    few = case.train.subset(np.arange(examples))
    assert 0 < milliseconds_per_example(case.load().to(ONE.device), few, ONE.device) < 1000


# --- two ranks, last, when their processes have started


@cpu_only
@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_ranks_follow_the_course_of_one(
    case: Case, alone: Course, two_ranks: RankProcesses, accumulation: int
) -> None:
    first, second = two_ranks.call(train, case, tiny_training(accumulation=accumulation))
    assert_same_course(alone, first, 1e-4)
    assert first.losses == second.losses
    assert np.array_equal(first.logits, second.logits)
    assert all(np.array_equal(weight, second.weights[name]) for name, weight in first.weights.items())


@cpu_only
def test_clipping_on_two_ranks(case: Case, two_ranks: RankProcesses) -> None:
    training = tiny_training(epochs=1, gradient_clipping=0.05)
    assert_same_course(train(ONE, case, training), two_ranks.call(train, case, training)[0], 1e-4)


@cpu_only
def test_stage_two_on_two_ranks(case: Case, two_ranks: RankProcesses) -> None:
    training = tiny_training(epochs=1)
    stage_two = {"zero_optimization": {"stage": 2}}
    course = two_ranks.call(train, case, training, None, stage_two)[0]
    assert_same_course(train(ONE, case, training), course, 1e-4)


@cpu_only
def test_every_rank_hears_of_a_loss_that_only_one_saw(case: Case, two_ranks: RankProcesses) -> None:
    messages = two_ranks.call(message_of_a_loss_gone_bad_on_the_second_rank, case)
    assert messages == ["the loss is nan at step 1 of epoch 1"] * 2


def message_of_a_loss_gone_bad_on_the_second_rank(ranks: Ranks, case: Case) -> str:
    def losses(logits: Tensor, batch: Batch) -> Tensor:
        return task_losses(logits, batch.labels, "classification") * (1.0 if ranks.is_first else float("nan"))

    with pytest.raises(NonFiniteLossError) as failure:
        train(ranks, case, tiny_training(epochs=1), losses)
    return str(failure.value)


@cpu_only
def test_two_ranks_predict_what_one_does(case: Case, two_ranks: RankProcesses) -> None:
    expected = predict(case.load(), case.train, ONE, 128).numpy()
    for logits in two_ranks.call(predict_on_rank, case):
        np.testing.assert_allclose(logits, expected, atol=1e-6, rtol=0)


def predict_on_rank(ranks: Ranks, case: Case) -> NDArray[np.float32]:
    return predict(case.load(), case.train, ranks, 128).numpy()
