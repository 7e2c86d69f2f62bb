"""One training job from start to finish: what a stage or a trial runs, with no idea of who asked."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from stkd.trainers.batches import EncodedExamples, encode
from stkd.trainers.config import ScoringConfig
from stkd.trainers.loop import (
    CachedTeacher,
    LossFunction,
    Training,
    distillation_loss,
    label_loss,
    milliseconds_per_example,
    predict,
)
from stkd.trainers.metrics import evaluate
from stkd.trainers.models import load_base, load_saved, load_tokenizer, parameter_count, save_model
from stkd.trainers.patience import patiently
from stkd.trainers.pulse import PULSE
from stkd.trainers.ranking import UnitScores
from stkd.trainers.ranks import Ranks
from stkd.trainers.scores import score_units, scoring_batches
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import LABELS, LOGITS, TEST, TRAIN, VALIDATION, Distillation, JobSpec, unmark
from stkd.trainers.stopwatch import Phase
from stkd.trainers.students import start_student
from stkd.trainers.tasks import Task
from stkd.trainers.units import UnitMask, cut

REPORT = "report.json"
NEURONS_AT_ONCE = 128
"""Sparse teachers keep multiples of it. Kernels are made, and kept, for every width that comes along: these are few."""


@dataclass
class Progress:
    """How far a job has come; saved with its checkpoints."""

    epoch: int = 0
    best_score: float = float("-inf")
    best_epoch: int = 0
    done: bool = False


class Job:
    """Trains one model, an epoch a call, and measures it after each."""

    def __init__(self, spec: JobSpec, ranks: Ranks) -> None:
        self._spec, self._ranks = spec, ranks
        self.progress = Progress()
        self.seconds: dict[Phase, float] = {}
        self._mask: UnitMask | None = None
        self._validation = EncodedExamples.load(spec.data / VALIDATION)
        model, losses = self._fine_tuning() if spec.distillation is None else self._distillation(spec.distillation)
        data = EncodedExamples.load(spec.data / TRAIN)
        self._size = {"parameters": float(parameter_count(model)), "megabytes": _megabytes(model)}
        self._training = Training(model, data, losses, spec.training, ranks, spec.deepspeed)
        self._latency: float | None = None

    def _fine_tuning(self) -> tuple[PreTrainedModel, LossFunction]:
        model = load_base(self._spec.model, self._spec.task, self._spec.training.seed)
        return model, label_loss(self._spec.task.kind)

    def _distillation(self, distillation: Distillation) -> tuple[PreTrainedModel, LossFunction]:
        student = start_student(distillation, self._spec.task, self._spec.training.seed)
        self._mask = student.mask
        teacher = CachedTeacher(load_file(distillation.logits / LOGITS)["logits"])
        return student.model, distillation_loss(teacher, self._spec.task.kind, distillation.settings)

    def run_epoch(self) -> dict[str, float]:
        """Train an epoch and evaluate; returns the epoch's loss, the task's metrics, `score`, and sizes.

        Afterwards `improved` and `progress.done` say whether the model is the best so far, and whether the job is over,
        and `seconds` where the epoch's time went.
        """
        watch = self._training.watch
        watch.read()
        losses = self._training.run_epoch()
        watch.enter("evaluation")
        metrics, latency = self._evaluate(), self._milliseconds()
        watch.enter("waiting")
        self.seconds = watch.read()
        self._advance(metrics["score"])
        return {
            "epoch": float(self.progress.epoch),
            "loss": float(np.mean(losses)),
            **metrics,
            "best_score": self.progress.best_score,
            **self._size,
            "milliseconds_per_example": latency,
        }

    def time_steps(self, count: int) -> float:
        """Examples per second over so many optimizer steps."""
        return self._training.time_steps(count)

    @property
    def improved(self) -> bool:
        """Whether the last epoch gave the best score so far."""
        return self.progress.epoch == self.progress.best_epoch

    def _advance(self, score: float) -> None:
        progress, training = self.progress, self._spec.training
        progress.epoch += 1
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, progress.epoch
        stale = progress.epoch - progress.best_epoch
        out_of_patience = training.patience is not None and stale >= training.patience
        progress.done = progress.epoch >= training.epochs or out_of_patience

    def _evaluate(self) -> dict[str, float]:
        logits = predict(self._training.engine.model, self._validation, self._ranks)
        return evaluate(self._spec.task, logits.numpy(), self._validation.labels)

    def _milliseconds(self) -> float:
        if self._latency is None:
            self._latency = milliseconds_per_example(self._training.engine.model, self._validation, self._ranks.device)
        return self._latency

    def save_model(self, folder: Path) -> None:
        """Write the model as it stands as a `transformers` folder; only the first rank writes."""
        if self._ranks.is_first:
            model, tokenizer = self._training.engine.model, load_tokenizer(str(self._spec.data))
            patiently(lambda: save_model(model, tokenizer, folder, self._mask), folder)

    def save(self, folder: Path) -> None:
        """Have all that `load` needs to go on written, while the training goes on. Every rank calls it."""
        if self._ranks.is_first:
            patiently(lambda: self._save_progress(folder), folder)
        self._ranks.barrier()
        self._training.engine.save(folder)

    def _save_progress(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        unmark(folder)  # an earlier attempt may have come as far as this one
        (folder / REPORT).write_text(json.dumps(vars(self.progress)))

    def load(self, folder: Path) -> None:
        """Go on from where `save` was called. Every rank calls it."""
        self._training.engine.load(folder)
        self.progress = Progress(**json.loads((folder / REPORT).read_text()))
        self._training.epoch = self.progress.epoch

    def close(self) -> None:
        """Release the engine."""
        self._training.engine.close()


def _megabytes(model: PreTrainedModel) -> float:
    return float(sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 1e6)


def encode_task(data: TaskData, model: str, max_length: int, folder: Path) -> None:
    """Tokenise the three splits with the model's tokenizer into `folder`, and put the tokenizer beside them.

    It keeps the length: whoever is handed a student cuts texts as its training did.
    """
    tokenizer = load_tokenizer(model)
    tokenizer.model_max_length = max_length
    for split, name in ((data.train, TRAIN), (data.validation, VALIDATION), (data.test, TEST)):
        encoded = encode(split, tokenizer, max_length)
        patiently(partial(encoded.save, folder / name), folder)
        PULSE.step()
    patiently(lambda: tokenizer.save_pretrained(folder), folder)


def evaluate_model(folder: Path, task: Task, data: Path, ranks: Ranks) -> dict[str, float]:
    """The task's metrics of a saved model on the validation split."""
    validation = EncodedExamples.load(data / VALIDATION)
    logits = predict(load_saved(folder).to(ranks.device), validation, ranks)
    return evaluate(task, logits.numpy(), validation.labels)


def save_logits(teacher: Path, mask: UnitMask | None, data: Path, ranks: Ranks, folder: Path) -> int:
    """Write the logits of the sliced teacher (None: the dense one) on the training split; returns how many they are."""
    model = load_saved(teacher)
    model = (model if mask is None else cut(model, mask, NEURONS_AT_ONCE)).to(ranks.device)
    train = EncodedExamples.load(data / TRAIN)
    logits = predict(model, train, ranks)
    if ranks.is_first:
        patiently(lambda: save_file({"logits": logits}, folder / LOGITS), folder)
    return len(train)


def save_test_logits(model: Path, data: Path, ranks: Ranks, folder: Path) -> None:
    """Write a saved model's logits on the test split as `logits`, and the labels as `labels`."""
    test = EncodedExamples.load(data / TEST)
    logits = predict(load_saved(model).to(ranks.device), test, ranks)
    if ranks.is_first:
        tensors = {"logits": logits, LABELS: torch.from_numpy(test.labels)}
        patiently(lambda: save_file(tensors, folder / LOGITS), folder)


def score_teacher(
    teacher: Path,
    trial_student: Path | None,
    task: Task,
    data: Path,
    student_data: Path | None,
    settings: ScoringConfig,
    seed: int,
    ranks: Ranks,
) -> UnitScores:
    """Score the teacher's units on a seeded sample of the training split.

    `student_data` is the training split in the trial student's own tokens; without a student, friendliness is zero.
    """
    train = EncodedExamples.load(data / TRAIN)
    sample = np.random.default_rng(seed).permutation(len(train))[: settings.examples]
    scored = train.subset(sample)
    student_logits = None
    if trial_student is not None:
        read = EncodedExamples.load((student_data or data) / TRAIN).subset(sample)
        student_logits = CachedTeacher(predict(load_saved(trial_student).to(ranks.device), read, ranks)).logits
    return score_units(
        load_saved(teacher).to(ranks.device),
        student_logits,
        scoring_batches(scored, settings, ranks.device),
        task.kind,
        settings.temperature,
        settings.reduction,
    )
