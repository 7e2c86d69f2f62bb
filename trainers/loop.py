"""The one training loop, and the one way to run a model over a split."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from stkd.trainers.batches import PREDICT_TOKENS, Batch, EncodedExamples, epoch_order, micro_batches, sorted_batches
from stkd.trainers.config import DistillationConfig, TrainingConfig
from stkd.trainers.engine import Engine
from stkd.trainers.errors import NonFiniteLossError
from stkd.trainers.losses import distillation_losses, task_losses
from stkd.trainers.pulse import PULSE
from stkd.trainers.ranks import Ranks
from stkd.trainers.stopwatch import Phase, Stopwatch, wall_clock
from stkd.trainers.tasks import Kind
from stkd.trainers.vocabulary import train_rows

LossFunction = Callable[[Tensor, Batch], Tensor]
"""From raw logits (B, C) and their batch to one loss an example, (B,)."""

FINITE_CHECK_STEPS = 50
"""Steps between two looks at whether the loss is finite; looking makes a GPU wait for its queue."""


class Teacher(Protocol):
    """Whatever knows the teacher's raw logits for a batch, (B, C)."""

    def logits(self, batch: Batch) -> Tensor:
        """Raw logits of the batch, (B, C), without gradient."""
        ...


class CachedTeacher:
    """A teacher that was run once: its logits of a whole split, (examples, C)."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def logits(self, batch: Batch) -> Tensor:
        """Raw logits of the batch, looked up."""
        return self._logits[torch.from_numpy(batch.indices)].to(batch.labels.device)


class LiveTeacher:
    """A teacher in the loop: it computes every batch again, and counts how often."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval()
        self.forwards = 0

    def logits(self, batch: Batch) -> Tensor:
        """Raw logits of the batch, computed."""
        self.forwards += 1
        with torch.no_grad():
            logits: Tensor = self._model(**batch.inputs).logits
        return logits


def label_loss(kind: Kind) -> LossFunction:
    """The loss of fine-tuning: against the labels alone."""
    return lambda logits, batch: task_losses(logits, batch.labels, kind)


def distillation_loss(teacher: Teacher, kind: Kind, settings: DistillationConfig) -> LossFunction:
    """The loss of distillation: against the teacher and the labels."""
    return lambda logits, batch: distillation_losses(
        logits, teacher.logits(batch), batch.labels, kind, settings.temperature, settings.hard_weight
    )


class Training:
    """Trains a model on a split with a loss, an epoch at a time.

    Fine-tuning and distillation, one rank and many, CPU and GPU differ only in what is passed in. A loss is carried as
    a sum to one division by the examples of the global batch: neither accumulation nor ranks change the gradient.
    Random numbers are seeded by epoch: an epoch after a resume is the epoch that would have been.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        data: EncodedExamples,
        losses: LossFunction,
        training: TrainingConfig,
        ranks: Ranks,
        deepspeed: Mapping[str, Any],
    ) -> None:
        self.epoch = 0
        self.watch = device_watch(ranks.device, "waiting")
        self._data, self._losses, self._training, self._ranks = data, losses, training, ranks
        steps = math.ceil(len(data) / training.batch_size) * training.epochs
        model.to(ranks.device)
        if deepspeed.get("zero_optimization", {}).get("stage") != 3:  # which divides every weight among the ranks
            train_rows(model, data.input_ids, data.pad_id)
        self.engine = Engine(model, training, steps, ranks, deepspeed)

    def run_epoch(self) -> list[float]:
        """Train on every example once; returns the mean loss of each step. Raises NonFiniteLossError."""
        self.watch.enter("data")
        self.engine.train()
        torch.manual_seed(self._training.seed * 1_000_003 + self.epoch * 1009 + self._ranks.rank)
        order = epoch_order(self._data.lengths, self._training.batch_size, self._training.seed, self.epoch)
        losses: list[float] = []
        waiting: list[Tensor] = []
        for number, indices in enumerate(order, start=1):
            waiting.append(self._step(indices))
            if number % FINITE_CHECK_STEPS == 0 or number == len(order):
                losses += self._finite(torch.stack(waiting), len(losses))
                waiting.clear()
        self.epoch += 1
        return losses

    def time_steps(self, count: int) -> float:
        """Train so many steps, on the longest batch first, for what it needs; returns examples per second."""
        self.engine.train()
        order = epoch_order(self._data.lengths, self._training.batch_size, self._training.seed, 0)
        order.sort(key=lambda indices: -self._data.lengths[indices].max())
        chosen = [order[place * len(order) // count] for place in range(count)]
        self.watch.read()
        for indices in chosen:
            self._step(indices)
        return sum(map(len, chosen)) / sum(self.watch.read().values())

    def _step(self, indices: NDArray[np.int64]) -> Tensor:
        """One optimizer step on a global batch; returns this rank's part of its mean loss."""
        total = torch.zeros((), device=self._ranks.device)
        shares = micro_batches(indices, self._training.accumulation, self._ranks.rank, self._ranks.size)
        for share, weights in shares:
            batch = self._data.batch(share, self._ranks.device, weights)
            self.watch.enter("forward")
            loss_sum = (self._losses(self.engine.logits(batch), batch) * batch.weights).sum()
            self.watch.enter("backward")
            self.engine.backward(loss_sum, len(indices))
            self.watch.enter("step")
            self.engine.step()
            self.watch.enter("data")
            total += loss_sum.detach()
        PULSE.step()
        return total / len(indices)

    def _finite(self, parts: Tensor, seen: int) -> list[float]:
        losses: list[float] = self._ranks.sum(parts).tolist()
        for step, loss in enumerate(losses, start=seen + 1):
            if not math.isfinite(loss):
                raise NonFiniteLossError(f"the loss is {loss} at step {step} of epoch {self.epoch + 1}")
        return losses


def predict(model: PreTrainedModel, data: EncodedExamples, ranks: Ranks, tokens: int | None = None) -> Tensor:
    """Raw logits of a whole split in its own order, (examples, C) in fp32 on the CPU, on every rank.

    Batches of so many `tokens` are sorted by length and divided among the ranks. The model is left in eval mode.
    """
    model.eval()
    device = ranks.device
    logits = torch.zeros(len(data), int(model.config.num_labels), device=device)
    with torch.inference_mode():
        batches = sorted_batches(data.lengths, tokens or PREDICT_TOKENS[device.type])
        for indices in batches[ranks.rank :: ranks.size]:
            found = model(**data.batch(indices, device).inputs).logits
            logits[torch.from_numpy(indices).to(device)] = found.float()
            PULSE.step()
    return ranks.sum(logits.cpu())


def device_watch(device: torch.device, phase: Phase) -> Stopwatch[Any]:
    """A stopwatch of what a device works on: by the clock for a CPU, in the queue of a GPU."""
    if device.type != "cuda":
        return wall_clock(phase)
    return Stopwatch(partial(_queued_event, device), _seconds_between, phase)


def _queued_event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds_between(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def milliseconds_per_example(model: PreTrainedModel, data: EncodedExamples, device: torch.device) -> float:
    """Median milliseconds for one example at a time, over the first 20 examples after 3 that warm up."""
    model.eval()
    seconds = []
    with torch.inference_mode():
        for position in range(min(23, len(data))):
            batch = data.batch(np.asarray([position]), device)
            start = perf_counter()
            model(**batch.inputs).logits.cpu()
            seconds.append(perf_counter() - start)
    return float(np.median(seconds[3:] or seconds)) * 1000
