"""A distillation step with cached logits: against training the student alone, and against the reference's way."""

from collections.abc import Iterator
from itertools import islice

import torch
from baselines import PlainLoop, ReferenceLoop, padded_batches
from measuring import Goal, Row, Settings, in_turns, seconds
from workloads import LENGTHS, LONGEST, TASK, examples, student_of, teacher

from stkd.trainers.config import DistillationConfig, TrainingConfig
from stkd.trainers.engine import computes_in_bf16
from stkd.trainers.loop import CachedTeacher, Training, distillation_loss
from stkd.trainers.ranks import Ranks

BATCH_SIZE = 16
REFERENCE_GOALS = {"MRPC": 4.0, "SST-2": 10.0}


def rows(settings: Settings) -> Iterator[Row]:
    """Two rows for each task whose lengths are known."""
    for lengths in LENGTHS:
        yield from _rows(settings, lengths)


def _rows(settings: Settings, lengths: str) -> Iterator[Row]:
    repeats, steps, few = settings.times(7), settings.size(50, 4), settings.size(10, 2)
    model = teacher(settings)
    data = examples(lengths, steps * BATCH_SIZE, model.config.vocab_size)
    training = TrainingConfig(epochs=repeats + 1, batch_size=BATCH_SIZE, max_length=LONGEST)
    bf16 = computes_in_bf16(training, torch.device("cpu"))

    logits = torch.randn(len(data), TASK.outputs, generator=torch.Generator().manual_seed(0))
    loss = distillation_loss(CachedTeacher(logits), TASK.kind, DistillationConfig())
    ours = Training(student_of(model), data, loss, training, Ranks(), {})
    plain = PlainLoop(student_of(model), data, training, bf16)
    reference = ReferenceLoop(student_of(model), model, few * training.epochs)

    measured = in_turns(
        {
            "ours": lambda: seconds(ours.run_epoch) / steps,
            "plain": lambda: seconds(plain.run_epoch) / steps,
            "reference": lambda: (
                seconds(lambda: reference.train(islice(padded_batches(data, BATCH_SIZE, LONGEST, seed=0), few))) / few
            ),
        },
        repeats,
    )
    ours.engine.close()
    what = f"distillation step, {lengths} lengths, {'bf16' if bf16 else 'fp32'}"
    alone, in_loop = "student alone on labels, plain PyTorch, same batches", "teacher in the loop, padded to 128, fp32"
    yield Row("steps", what, alone, "s", measured["ours"], measured["plain"], [Goal("faster", 0.95)])
    goal = Goal("faster", REFERENCE_GOALS[lengths])
    yield Row("steps", what, in_loop, "s", measured["ours"], measured["reference"], [goal])
