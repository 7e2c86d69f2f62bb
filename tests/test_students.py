"""Every kind of student of every encoder family: it starts as it should, learns, and is saved for everybody."""

import copy
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import TASK, Case, tiny_case, tiny_data
from tiny_families import HEADS, LAYERS, NEURONS, SETTINGS, tiny_examples_for, tiny_model
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from stkd.trainers.batches import EncodedExamples
from stkd.trainers.config import DistillationConfig, StudentConfig, TrainingConfig
from stkd.trainers.job import Job, encode_task
from stkd.trainers.loop import CachedTeacher, Training, distillation_loss
from stkd.trainers.models import load_saved, load_tokenizer, parameter_count, save_model
from stkd.trainers.ranking import UnitScores
from stkd.trainers.ranks import Ranks
from stkd.trainers.specs import LOGITS, SCORES, UNITS, Distillation, JobSpec
from stkd.trainers.students import Student, prune, start_student
from stkd.trainers.units import UnitMask, expanded, masked, sliced

INITS = get_args(StudentConfig.model_fields["init"].annotation)
ONE = Ranks()


def random_scores(layers: int = LAYERS) -> UnitScores:
    generator = np.random.default_rng(3)
    shapes = ((layers, HEADS), (layers, NEURONS)) * 3
    return UnitScores(*(generator.random(shape, dtype=np.float32) for shape in shapes))


def logits(model: PreTrainedModel, examples: EncodedExamples) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model.eval()(**examples.batch(np.arange(len(examples)), torch.device("cpu")).inputs).logits
    return found


def teacher_folder(name: str, folder: Path) -> Path:
    tiny_model(name).save_pretrained(folder)
    return folder


def student_of(name: str, init: str, folder: Path) -> Student:
    """The student of a family's tiny teacher, made from what stages leave on disk."""
    teacher, scores = teacher_folder(name, folder / "teacher"), folder / "importance"
    scores.mkdir()
    random_scores().save(scores / SCORES)
    settings: dict[str, dict[str, object]] = {
        "drop_layers": {"layers": 2},
        "prune_units": {"sparsity": 0.6},
        "pretrained": {"model": str(teacher_folder("bert", folder / "other"))},
    }
    student = StudentConfig.model_validate({"init": init, **settings[init]})
    distillation = Distillation(teacher, folder / "logits", student, DistillationConfig(), scores)
    return start_student(distillation, TASK, seed=0)


COMBINATIONS = list(product(SETTINGS, INITS))


def test_every_combination_is_here() -> None:
    assert len(COMBINATIONS) == 14 * 3


@pytest.mark.parametrize(("name", "init"), COMBINATIONS)
def test_a_student_learns_and_is_saved_for_everybody(tmp_path: Path, name: str, init: str) -> None:
    student = student_of(name, init, tmp_path)
    examples = tiny_examples_for(tiny_model(name))
    answers = logits(tiny_model(name), examples)
    losses = distillation_loss(CachedTeacher(answers), "classification", DistillationConfig())
    settings = TrainingConfig(epochs=6, batch_size=4, learning_rate=3e-3, precision="fp32", max_length=16)
    weights = parameter_count(student.model)
    course = Training(student.model, examples, losses, settings, ONE, {})
    epochs = [float(np.mean(course.run_epoch())) for _ in range(settings.epochs)]
    trained = course.engine.model
    course.engine.close()
    assert epochs[-1] < epochs[0]

    folder = tmp_path / "student"
    tokenizer = load_tokenizer(str(tiny_case(tmp_path / "case", train=8).model))
    save_model(trained, tokenizer, folder, student.mask)
    expected = logits(trained, examples)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(logits(plain, examples), expected, atol=1e-5, rtol=0)
    again = load_saved(folder)
    torch.testing.assert_close(logits(again, examples), expected, atol=1e-6, rtol=0)
    assert parameter_count(again) == weights
    assert (folder / UNITS).exists() == (init == "prune_units")


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("sparsity", [0.3, 0.9])
def test_a_pruned_student_is_the_teacher_without_its_least_expressive_units(name: str, sparsity: float) -> None:
    teacher, examples = tiny_model(name), tiny_examples_for(tiny_model(name))
    student = prune(copy.deepcopy(teacher), random_scores(), sparsity)
    assert student.mask is not None
    heads, neurons = random_scores().kept(DistillationConfig(scorer="expressiveness", sparsity=sparsity))
    assert np.array_equal(student.mask.heads.numpy(), heads)
    assert np.array_equal(student.mask.neurons.numpy(), neurons)
    with masked(teacher, student.mask):
        expected = logits(teacher, examples)
    torch.testing.assert_close(logits(student.model, examples), expected, atol=1e-5, rtol=0)
    whole = expanded(student.model, student.mask)
    torch.testing.assert_close(logits(whole, examples), expected, atol=1e-5, rtol=0)
    assert parameter_count(whole) == parameter_count(teacher) > parameter_count(student.model)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("lost", ["heads", "neurons", "both"])
def test_a_layer_without_units_is_expanded_too(name: str, lost: str) -> None:
    teacher, examples = tiny_model(name), tiny_examples_for(tiny_model(name))
    mask = UnitMask.dense(teacher)
    if lost in ("heads", "both"):
        mask.heads[1] = False
    if lost in ("neurons", "both"):
        mask.neurons[2] = False
    whole = expanded(sliced(teacher, mask), mask)
    with masked(teacher, mask):
        torch.testing.assert_close(logits(whole, examples), logits(teacher, examples), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return tiny_case(tmp_path_factory.mktemp("students"))


def test_a_student_may_read_other_tokens_than_its_teacher(case: Case, tmp_path: Path) -> None:
    """Cached logits are all that teacher and student share: the teacher's model and tokens are not looked at."""
    other = tiny_case(tmp_path / "other", train=96)
    data = tmp_path / "data"
    data.mkdir()
    encode_task(tiny_data(96), str(other.model), 8, data)
    cached = tmp_path / "logits"
    cached.mkdir()
    save_file({"logits": torch.randn(96, 2)}, cached / LOGITS)
    student = StudentConfig(init="pretrained", model=str(other.model))
    distillation = Distillation(tmp_path / "nowhere", cached, student, DistillationConfig())
    training = TrainingConfig(epochs=1, learning_rate=1e-3, precision="fp32", max_length=8)
    job = Job(JobSpec(TASK, data, training, distillation=distillation), ONE)
    report: dict[str, Any] = job.run_epoch()
    job.close()
    assert report["epoch"] == 1
    assert report["parameters"] == parameter_count(load_saved(other.model))
