"""That what makes a training fast leaves its results alone: with each optimisation and without it, over several seeds.

Compared are the mean loss of the first steps and the best score after an epoch; they may differ as seeds differ.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from baselines import PlainLoop
from measuring import Goal, Row, Settings
from places import workplace
from torch import Tensor
from transformers import PreTrainedModel
from workloads import STUDENT, TASK, teacher_name

from stkd.trainers import batches
from stkd.trainers.batches import EncodedExamples, encode
from stkd.trainers.config import DataConfig, DistillationConfig, ScoringConfig, TrainingConfig
from stkd.trainers.engine import computes_in_bf16
from stkd.trainers.loop import CachedTeacher, LiveTeacher, Teacher, Training, distillation_loss, label_loss, predict
from stkd.trainers.metrics import evaluate
from stkd.trainers.models import load_base, load_saved, load_tokenizer, save_model
from stkd.trainers.ranks import Ranks
from stkd.trainers.scores import score_units, scoring_batches
from stkd.trainers.sources import load_task
from stkd.trainers.students import make_student
from stkd.trainers.units import UnitMask, masked, sliced

FIRST_STEPS = 50
SPARSE = DistillationConfig(scorer="expressiveness", sparsity=0.5)
LONGEST = 64


@dataclass(frozen=True)
class Course:
    """What one training came to: the mean loss of the first steps, and the best score in 0..100."""

    first_loss: float
    best_score: float


Variant = Callable[[int], Course]
"""Trains a student with a seed."""


class Case:
    """A fine-tuned teacher, its sparse version, and the generated task."""

    def __init__(self, settings: Settings, model: str, folder: Path) -> None:
        config = DataConfig(source="generated", train_examples=settings.size(2000, 64))
        data, tokenizer = load_task(TASK.name, config), load_tokenizer(model)
        self._train, self._validation = (encode(split, tokenizer, LONGEST) for split in (data.train, data.validation))
        self._training = TrainingConfig(epochs=2, learning_rate=1e-4, max_length=LONGEST)
        save_model(self._fine_tuned(load_base(model, TASK, seed=0)), tokenizer, folder)
        self._teacher = load_saved(folder)
        scored = scoring_batches(self._train, ScoringConfig(), self._teacher.device)
        self._mask = UnitMask.of(score_units(self._teacher, None, scored, TASK.kind, 2.0), SPARSE)
        self._sparse = sliced(self._teacher, self._mask)
        self._logits = predict(self._sparse, self._train, Ranks())
        self.bf16 = computes_in_bf16(self._training, self._teacher.device)

    def _fine_tuned(self, model: PreTrainedModel) -> PreTrainedModel:
        job = Training(model, self._train, label_loss(TASK.kind), self._training, Ranks(), {})
        for _ in range(self._training.epochs):
            job.run_epoch()
        job.engine.close()
        return model

    def without(self) -> Mapping[str, Variant]:
        """By the name of what is done instead of an optimisation."""
        variants: dict[str, Variant] = {
            "random batches instead of buckets": self._unbucketed,
            "teacher in the loop instead of cached": lambda seed: self._distilled(seed, LiveTeacher(self._sparse)),
            "masked teacher instead of sliced": lambda seed: self._distilled(
                seed, CachedTeacher(self._masked_logits())
            ),
            "plain PyTorch instead of the engine": self._plain,
        }
        return variants | ({"fp32 instead of bf16": self._in_fp32} if self.bf16 else {})

    def optimised(self, seed: int) -> Course:
        """As a sweep trains it."""
        return self._distilled(seed, CachedTeacher(self._logits))

    def _unbucketed(self, seed: int) -> Course:
        with unbucketed():
            return self.optimised(seed)

    def _in_fp32(self, seed: int) -> Course:
        return self._distilled(seed, CachedTeacher(self._logits), precision="fp32")

    def _masked_logits(self) -> Tensor:
        with masked(self._teacher, self._mask):
            return predict(self._teacher, self._train, Ranks())

    def _distilled(self, seed: int, teacher: Teacher, **changes: str) -> Course:
        training = self._training.model_copy(update={"seed": seed, **changes})
        loss = distillation_loss(teacher, TASK.kind, DistillationConfig())
        job = Training(make_student(self._teacher, STUDENT), self._train, loss, training, Ranks(), {})
        course = self._course(job.run_epoch, job.engine.model)
        job.engine.close()
        return course

    def _plain(self, seed: int) -> Course:
        training = self._training.model_copy(update={"seed": seed})
        losses = distillation_loss(CachedTeacher(self._logits), TASK.kind, DistillationConfig())
        student = make_student(self._teacher, STUDENT)
        return self._course(PlainLoop(student, self._train, training, self.bf16, losses).run_epoch, student)

    def _course(self, run_epoch: Callable[[], list[float]], model: PreTrainedModel) -> Course:
        losses: list[float] = []
        scores = []
        for _ in range(self._training.epochs):
            losses += run_epoch()
            scores.append(_score(model, self._validation))
        return Course(fmean(losses[:FIRST_STEPS]), 100 * max(scores))


def _score(model: PreTrainedModel, data: EncodedExamples) -> float:
    return evaluate(TASK, predict(model, data, Ranks()).numpy(), data.labels)["score"]


@contextmanager
def unbucketed() -> Iterator[None]:
    """Within the context, an epoch's batches are drawn at random, whatever the lengths of their examples."""
    before = batches.BUCKET_BATCHES
    batches.BUCKET_BATCHES = 1
    try:
        yield
    finally:
        batches.BUCKET_BATCHES = before


def rows(settings: Settings) -> Iterator[Row]:
    """For each optimisation a row for the loss and one for the score, each a number for every seed."""
    seeds = range(max(2, settings.times(5)))
    with workplace() as folder:
        case = Case(settings, teacher_name(settings, folder / "base"), folder / "teacher")
    variants = {"": case.optimised, **case.without()}
    found: dict[str, list[Course]] = {name: [] for name in variants}
    for seed in seeds:
        for name, variant in variants.items():
            found[name].append(variant(seed))
    ours = found.pop("")
    for name, theirs in found.items():
        yield _row(f"mean loss of the first {FIRST_STEPS} steps", name, "", ours, theirs, "first_loss")
        yield _row("best score", name, "points", ours, theirs, "best_score")


def _row(what: str, without: str, unit: str, ours: list[Course], theirs: list[Course], value: str) -> Row:
    numbers = [[float(vars(course)[value]) for course in side] for side in (ours, theirs)]
    return Row("equality", what, without, unit, numbers[0], numbers[1], [Goal("noise")])
