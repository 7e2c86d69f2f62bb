"""What the look at the validation split after each epoch costs of the epoch's training."""

from collections.abc import Iterator

import torch
from measuring import Goal, Row, Settings
from workloads import LENGTHS, LONGEST, TASK, examples, student_of, teacher

from stkd.trainers.config import DistillationConfig, TrainingConfig
from stkd.trainers.loop import CachedTeacher, Training, distillation_loss, predict
from stkd.trainers.metrics import evaluate
from stkd.trainers.ranks import Ranks

HELD_OUT = 10
"""Training examples for one that is held out to choose by, as stkd divides GLUE's."""


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each task whose lengths are known."""
    for lengths in LENGTHS:
        yield _row(settings, lengths)


def _row(settings: Settings, lengths: str) -> Row:
    model, count, repeats = teacher(settings), settings.size(2000, 80), settings.times(5)
    data = examples(lengths, count, model.config.vocab_size)
    validation = examples(lengths, count // HELD_OUT, model.config.vocab_size, seed=1)
    training = TrainingConfig(epochs=repeats + 1, max_length=LONGEST)
    losses = distillation_loss(CachedTeacher(torch.zeros(count, TASK.outputs)), TASK.kind, DistillationConfig())
    ours = Training(student_of(model), data, losses, training, Ranks(), {})
    looking, learning = [], []
    for _ in range(repeats + 1):
        ours.watch.read()
        ours.run_epoch()
        learning.append(sum(ours.watch.read().values()))
        evaluate(TASK, predict(ours.engine.model, validation, Ranks()).numpy(), validation.labels)
        looking.append(sum(ours.watch.read().values()))
    ours.engine.close()
    what, against = f"evaluation of {len(validation)} examples, {lengths} lengths", f"an epoch of {count} examples"
    return Row("evaluation", what, against, "s", looking[1:], learning[1:], [Goal("costs", 0.05)])
