"""Tasks in which any number of classes applies: losses, metrics, models, and every stage of a job."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import MULTILABEL, Case, tiny_case, tiny_data, tiny_multilabel, tiny_teacher, tiny_training
from torch import Tensor
from transformers import AutoModelForSequenceClassification, pipeline

from stkd.trainers.batches import EncodedExamples, encode
from stkd.trainers.config import DistillationConfig, ScoringConfig, StudentConfig
from stkd.trainers.job import Job, encode_task, evaluate_model, save_logits, score_teacher
from stkd.trainers.losses import distillation_losses, imitation_losses, task_losses
from stkd.trainers.metrics import evaluate
from stkd.trainers.models import load_classifier, load_tokenizer
from stkd.trainers.ranking import UnitScores
from stkd.trainers.ranks import Ranks
from stkd.trainers.scores import score_units
from stkd.trainers.specs import LOGITS, SCORES, Distillation, JobSpec
from stkd.trainers.units import UnitMask, masked

ONE = Ranks()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return tiny_case(tmp_path_factory.mktemp("several"), train=48, task=MULTILABEL)


def random_logits(seed: int, examples: int = 5, classes: int = 3) -> Tensor:
    return torch.randn(examples, classes, generator=torch.Generator().manual_seed(seed)) * 2


def as_choices(logits: Tensor) -> Tensor:
    """Every class as a choice of its own between yes and no: logits (B * C, 2) whose softmax is the sigmoid."""
    return torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(0, 1)


# Losses


def test_the_task_loss_is_the_mean_of_a_choice_for_every_class() -> None:
    logits, labels = random_logits(0), (random_logits(1) > 0).float()
    choices = task_losses(as_choices(logits), labels.flatten(), "classification").reshape(5, 3).mean(1)
    torch.testing.assert_close(task_losses(logits, labels, "multilabel"), choices)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.5])
def test_the_imitation_loss_is_the_mean_of_a_choice_for_every_class(temperature: float) -> None:
    student, teacher = random_logits(0), random_logits(1)
    choices = imitation_losses(as_choices(student), as_choices(teacher), "classification", temperature)
    found = imitation_losses(student, teacher, "multilabel", temperature)
    torch.testing.assert_close(found, choices.reshape(5, 3).mean(1))


def test_losses_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    hard = (np.log(2) + np.log1p(np.exp(2.0))) / 2
    assert float(task_losses(logits, labels, "multilabel")) == pytest.approx(hard)
    half = 1 / (1 + np.exp(-1.0))  # sigmoid(2 / T) at T = 2
    soft = 4 * (np.log(2) - half * np.log(half) - (1 - half) * np.log(1 - half)) / 2
    assert float(imitation_losses(logits, logits, "multilabel", 2.0)) == pytest.approx(soft)
    mixed = distillation_losses(logits, logits, labels, "multilabel", 2.0, hard_weight=0.25)
    assert float(mixed) == pytest.approx(0.75 * soft + 0.25 * hard)


def test_gradients_flow_to_student_and_teacher() -> None:
    student, teacher = random_logits(0).requires_grad_(), random_logits(1).requires_grad_()
    ours = torch.autograd.grad(imitation_losses(student, teacher, "multilabel", 2.0).sum(), (student, teacher))
    choices = imitation_losses(as_choices(student), as_choices(teacher), "classification", 2.0)
    theirs = torch.autograd.grad(choices.sum() / 3, (student, teacher))
    for left, right in zip(ours, theirs, strict=True):
        assert left.abs().sum() > 0
        torch.testing.assert_close(left, right)


def test_a_student_that_equals_its_teacher_has_nothing_left_to_learn() -> None:
    student = random_logits(0).requires_grad_()
    (slope,) = torch.autograd.grad(imitation_losses(student, student.detach(), "multilabel", 3.0).sum(), student)
    torch.testing.assert_close(slope, torch.zeros(5, 3), atol=1e-6, rtol=0)


def test_losses_stay_finite_at_large_logits() -> None:
    extreme = torch.tensor([[1e4, -1e4]])
    assert torch.isfinite(task_losses(extreme, torch.tensor([[0.0, 1.0]]), "multilabel")).all()
    assert torch.isfinite(imitation_losses(extreme, -extreme, "multilabel", 1.0)).all()


# Metrics


def test_metrics_of_decisions_above_zero() -> None:
    task = replace(MULTILABEL, metrics=("micro_f1", "macro_f1", "exact_match"))
    labels = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=np.float32)
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, -0.1, 0.0], [0.1, 4.0, 1.0], [-1.0, -1.0, -1.0]])
    # By class: two of two right; one found, one missed; one found, one wrong.
    expected = {"micro_f1": 2 * 4 / (2 * 4 + 1 + 1), "macro_f1": (1 + 2 / 3 + 2 / 3) / 3, "exact_match": 2 / 4}
    assert evaluate(task, logits, labels) == pytest.approx(expected | {"score": sum(expected.values()) / 3})


def test_a_class_that_is_neither_there_nor_found_counts_nothing() -> None:
    labels = np.array([[1.0, 0.0, 1.0]], dtype=np.float32)
    assert evaluate(MULTILABEL, np.array([[1.0, -1.0, 1.0]]), labels)["macro_f1"] == pytest.approx(2 / 3)


def test_labels_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="labels of tiny-multilabel have shape"):
        evaluate(MULTILABEL, np.zeros((2, 3)), np.zeros(2))


# Data and models


def test_labels_keep_their_shape_through_every_way(case: Case, tmp_path: Path) -> None:
    examples = tiny_multilabel(12, seed=3)
    encoded = encode(examples, load_tokenizer(str(case.model)), 16)
    assert encoded.labels.shape == (12, 3)
    assert encoded.labels.dtype == np.float32
    encoded.save(tmp_path / "split.safetensors")
    loaded = EncodedExamples.load(tmp_path / "split.safetensors")
    assert (loaded.labels == np.asarray(examples.labels)).all()
    chosen = np.asarray([7, 0, 3])
    batch = loaded.subset(chosen).batch(np.asarray([2, 0]), CPU)
    assert batch.labels.tolist() == [examples.labels[3], examples.labels[7]]
    loaded.subset(chosen).save(tmp_path / "part.safetensors")
    assert EncodedExamples.load(tmp_path / "part.safetensors").labels.tolist() == [examples.labels[i] for i in chosen]


def test_a_model_knows_its_classes_and_answers_for_each(case: Case, tmp_path: Path) -> None:
    classifier = load_classifier(str(case.model), MULTILABEL, seed=0)
    assert classifier.config.problem_type == "multi_label_classification"
    assert classifier.config.id2label == {0: "praise", 1: "long", 2: "film"}
    classifier.save_pretrained(tmp_path)
    load_tokenizer(str(case.model)).save_pretrained(tmp_path)
    answers = pipeline("text-classification", model=str(tmp_path), device="cpu")("a good film", top_k=None)
    assert {answer["label"] for answer in answers} == {"praise", "long", "film"}
    inputs = load_tokenizer(str(tmp_path))("a good film", return_tensors="pt")
    with torch.inference_mode():
        likely = torch.sigmoid(classifier(**inputs).logits)[0]
    assert sorted(answer["score"] for answer in answers) == pytest.approx(sorted(likely.tolist()), abs=1e-5)


def test_scores_are_the_slopes_of_both_losses_along_a_mask(case: Case) -> None:
    teacher = load_classifier(str(case.model), MULTILABEL, seed=0).double()
    student = load_classifier(str(case.model), MULTILABEL, seed=1).double()
    batch = case.train.batch(np.arange(8), CPU)
    with torch.no_grad():
        student_logits = student(**batch.inputs).logits
    scores = score_units(teacher, lambda _: student_logits, [batch], "multilabel", 2.0, "batch")

    def losses(shift: float) -> tuple[float, float]:
        heads = torch.ones(3, 4, dtype=torch.float64)
        heads[1, 2] += shift
        with masked(teacher, UnitMask(heads, torch.ones(3, 32))), torch.no_grad():
            logits = teacher(**batch.inputs).logits
        own = task_losses(logits, batch.labels, "multilabel").mean()
        return float(own), float(imitation_losses(student_logits, logits, "multilabel", 2.0).mean() / 2)

    above, below = losses(1e-2), losses(-1e-2)
    for found, high, low in zip((scores.head_expressiveness, scores.head_friendliness), above, below, strict=True):
        assert float(found[1, 2]) == pytest.approx(abs(high - low) / 2e-2, rel=2e-2)


# Jobs


def test_every_stage_from_teacher_to_student(tmp_path: Path) -> None:
    case = tiny_case(tmp_path, train=160, task=MULTILABEL)
    training = tiny_training(epochs=8, learning_rate=4e-3)
    folders = {name: tmp_path / name for name in ("teacher", "logits", "trial", "scores", "student")}
    for folder in folders.values():
        folder.mkdir()

    teacher = Job(JobSpec(MULTILABEL, case.data, training, model=str(case.model)), ONE)
    reports = [teacher.run_epoch() for _ in range(training.epochs)]
    teacher.save_model(folders["teacher"])
    teacher.close()
    assert reports[-1]["loss"] < reports[0]["loss"] * 0.8
    assert reports[-1]["micro_f1"] > 0.75
    assert reports[-1]["score"] == (reports[-1]["micro_f1"] + reports[-1]["macro_f1"]) / 2

    assert save_logits(folders["teacher"], None, case.data, ONE, folders["logits"]) == 160
    settings = Distillation(folders["teacher"], folders["logits"], StudentConfig(layers=2), DistillationConfig())
    student = Job(JobSpec(MULTILABEL, case.data, training, distillation=settings), ONE)
    report = [student.run_epoch() for _ in range(training.epochs)][-1]
    student.save_model(folders["student"])
    student.close()
    assert report["micro_f1"] > 0.7
    measured = evaluate_model(folders["student"], MULTILABEL, case.data, ONE)
    assert measured == pytest.approx({name: report[name] for name in ("micro_f1", "macro_f1", "score")})
    config = AutoModelForSequenceClassification.from_pretrained(folders["student"]).config
    assert (config.problem_type, config.label2id["film"]) == ("multi_label_classification", 2)

    scored = ScoringConfig(examples=40)
    scores = score_teacher(folders["teacher"], folders["student"], MULTILABEL, case.data, None, scored, 0, ONE)
    scores.save(folders["scores"] / SCORES)
    mask = UnitMask.of(UnitScores.load(folders["scores"] / SCORES), DistillationConfig(sparsity=0.5))
    assert mask.heads.sum() == 6
    assert save_logits(folders["teacher"], mask, case.data, ONE, folders["trial"]) == 160
    assert (folders["trial"] / LOGITS).is_file()


def test_a_task_without_any_class_of_an_example_is_tokenised(tmp_path: Path) -> None:
    model = tiny_teacher(tmp_path / "model")
    data = tiny_data(task=MULTILABEL)
    assert [0.0, 0.0, 0.0] in data.train.labels
    encode_task(data, model, 16, tmp_path)
    assert EncodedExamples.load(tmp_path / "train.safetensors").labels.shape == (96, 3)
