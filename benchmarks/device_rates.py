"""What one device does with a BERT-base teacher and its 4-layer student, alone and side by side; see gpu.py.

The share of the peak is of the matrix product that this device is measured to do fastest; operations are those of the
encoder's layers on real tokens, so that padding counts as waste.
"""

import copy
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty
from statistics import median
from time import perf_counter

import numpy as np
import torch
from measuring import environment, file_table, in_turns, print_table, resident_megabytes
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel
from workloads import LONGEST, TASK, examples

from stkd.trainers.config import DistillationConfig, StudentConfig, TrainingConfig
from stkd.trainers.loop import (
    CachedTeacher,
    LiveTeacher,
    LossFunction,
    Teacher,
    Training,
    distillation_loss,
    label_loss,
    predict,
)
from stkd.trainers.ranks import Ranks
from stkd.trainers.students import make_student

STUDENT_LAYERS = 4
MOST_EPOCHS = 10_000
"""More than are ever run, so that the learning rate does not come to zero."""
STARTING_SECONDS = 300.0
CACHED, IN_LOOP = "student, cached teacher", "student, teacher in the loop"
LENGTHS = "MRPC"
HEADINGS = ("what", "batch", "side by side", "examples/s", "compared", "of peak", "memory")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    quick: bool
    batch_sizes: tuple[int, ...]
    side_by_side: tuple[int, ...]
    repeats: int
    seconds: float
    """For how long students run side by side."""

    @property
    def steps(self) -> int:
        """Of one epoch, which is what is timed."""
        return 4 if self.quick else 50

    def at_most_tiny(self) -> "Plan":
        """Less of everything."""
        return replace(self, batch_sizes=(4,), side_by_side=(1, 2), repeats=1, seconds=0.5)

    @property
    def config(self) -> BertConfig:
        """Of the teacher: BERT base, unless quick."""
        if not self.quick:
            return BertConfig(num_labels=TASK.outputs)
        return BertConfig(
            vocab_size=2000,
            hidden_size=32,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=64,
            num_labels=TASK.outputs,
        )


@dataclass(frozen=True)
class Found:
    """A line of the table."""

    what: str
    batch_size: int
    side_by_side: int
    examples_per_second: Sequence[float]
    """Of all processes together, one number for each repeat."""
    compared: str
    share_of_peak: float
    megabytes: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as it is printed, one text for each of HEADINGS."""
        return (
            self.what,
            str(self.batch_size),
            str(self.side_by_side),
            f"{median(self.examples_per_second):,.0f}",
            self.compared,
            f"{100 * self.share_of_peak:.1f} %",
            f"{self.megabytes:,.0f} MB",
        )


class Device:
    """The device that `stkd` trains on, as far as measuring needs it."""

    def __init__(self) -> None:
        self.device = Ranks().device

    @property
    def name(self) -> str:
        """What the device is called."""
        return torch.cuda.get_device_name() if self.is_gpu else "the CPU"

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def seconds(self, action: Callable[[], object]) -> float:
        """How long an action takes, until the device has done everything."""
        self._wait()
        start = perf_counter()
        action()
        self._wait()
        return perf_counter() - start

    def _wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Give memory that nothing holds back to other processes."""
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()

    @contextmanager
    def memory(self) -> Iterator[Callable[[], float]]:
        """Gives a function that tells, in MB, the most memory that tensors took at a time within the context.

        What others held before does not count. On a CPU it is by how much the process has grown.
        """
        self.forget()
        before = torch.cuda.memory_allocated() / 1e6 if self.is_gpu else resident_megabytes(os.getpid())
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats()
        most = before
        yield lambda: most - before
        most = torch.cuda.max_memory_allocated() / 1e6 if self.is_gpu else resident_megabytes(os.getpid())

    def peak(self, size: int, repeats: int) -> float:
        """Operations a second of the fastest of some bf16 products of two square matrices of random numbers."""
        left, right = (torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        products = 10
        times = [self.seconds(lambda: [left @ right for _ in range(products)]) for _ in range(repeats + 1)]
        return 2 * size**3 * products / min(times)


class Workload:
    """A teacher with random weights, its student, and examples, at one batch size."""

    def __init__(self, plan: Plan, batch_size: int) -> None:
        self._config = plan.config
        self.data = examples(LENGTHS, plan.steps * batch_size, self._config.vocab_size)
        self._training = TrainingConfig(epochs=MOST_EPOCHS, batch_size=batch_size, max_length=LONGEST)
        torch.manual_seed(0)
        self._model = BertForSequenceClassification(self._config).eval()

    @property
    def teacher(self) -> PreTrainedModel:
        """A copy of the teacher, on the device."""
        return copy.deepcopy(self._model).to(Ranks().device)

    def answering(self) -> Callable[[], object]:
        """The dense teacher's logits of all examples, as they are cached."""
        model = self.teacher
        return lambda: predict(model, self.data, Ranks())

    def fine_tuning(self) -> Callable[[], object]:
        """An epoch of the teacher on labels."""
        return self._epoch(self.teacher, label_loss(TASK.kind))

    def with_cached_teacher(self) -> Callable[[], object]:
        """An epoch of the student that looks the teacher's logits up."""
        logits = torch.randn(len(self.data), TASK.outputs, generator=torch.Generator().manual_seed(0))
        return self._distillation(CachedTeacher(logits))

    def with_live_teacher(self) -> Callable[[], object]:
        """An epoch of the student that asks the teacher at each step."""
        return self._distillation(LiveTeacher(self.teacher))

    def _distillation(self, teacher: Teacher) -> Callable[[], object]:
        student = make_student(self._model, StudentConfig(layers=STUDENT_LAYERS))
        return self._epoch(student, distillation_loss(teacher, TASK.kind, DistillationConfig()))

    def _epoch(self, model: PreTrainedModel, loss: LossFunction) -> Callable[[], object]:
        return Training(model, self.data, loss, self._training, Ranks(), {}).run_epoch

    @property
    def layer_operations(self) -> float:
        """Multiplications and additions of one encoder layer, forward: its matrix products on all real tokens."""
        width, inner = self._config.hidden_size, self._config.intermediate_size
        lengths = self.data.lengths.astype(np.float64)
        return float(2 * (4 * width**2 + 2 * width * inner) * lengths.sum() + 4 * width * (lengths**2).sum())

    def sides(self) -> dict[str, tuple[Callable[[], Callable[[], object]], float]]:
        """What is measured in turns: how to begin it, and the operations of one epoch, backward counting twice."""
        layer, layers = self.layer_operations, self._config.num_hidden_layers
        return {
            "teacher's logits": (self.answering, layers * layer),
            "teacher, fine-tuning": (self.fine_tuning, 3 * layers * layer),
            IN_LOOP: (self.with_live_teacher, (layers + 3 * STUDENT_LAYERS) * layer),
            CACHED: (self.with_cached_teacher, 3 * STUDENT_LAYERS * layer),
        }


def one_by_one(plan: Plan, batch_size: int, device: Device, peak: float) -> list[Found]:
    """One process: the teacher's own training and answering, and the student's with either kind of teacher."""
    load = Workload(plan, batch_size)
    sides, epochs, memory = load.sides(), {}, {}
    for name, (begin, _) in sides.items():
        with device.memory() as used:
            epochs[name] = begin()
            epochs[name]()  # warms up, too
        memory[name] = used()
    timed = {name: partial(device.seconds, epoch) for name, epoch in epochs.items()}
    measured = in_turns(timed, plan.repeats, warm_up=False)
    found = []
    for name, (_, operations) in sides.items():
        rates = [len(load.data) / seconds for seconds in measured[name]]
        share = operations / median(measured[name]) / peak
        ratios = [theirs / ours for ours, theirs in zip(measured[name], measured[IN_LOOP], strict=True)]
        compared = f"{median(ratios):.2f}x of teacher in the loop" if name == CACHED else ""
        found.append(Found(name, batch_size, 1, rates, compared, share, memory[name]))
    return found


def student_beside_others(
    plan: Plan, batch_size: int, processes: int, start: Barrier, answers: "Queue[tuple[float, float]]"
) -> None:
    """One of several processes: trains a student for `plan.seconds` from when all are warm, and tells its speed."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    device, load = Device(), Workload(plan, batch_size)
    with device.memory() as used:
        epoch = load.with_cached_teacher()
        epoch()
    start.wait(timeout=STARTING_SECONDS)
    begun, epochs = perf_counter(), 0
    while perf_counter() - begun < plan.seconds:
        device.seconds(epoch)
        epochs += 1
    answers.put((epochs * len(load.data) / (perf_counter() - begun), used()))


def side_by_side(plan: Plan, batch_size: int, peak: float) -> Iterator[Found]:
    """K students at a time on the one device, each a process as trials are."""
    load, context = Workload(plan, batch_size), get_context("spawn")
    alone = 0.0
    for count in plan.side_by_side:
        start, answers = context.Barrier(count), context.Queue()
        arguments = (plan, batch_size, count, start, answers)
        processes = [context.Process(target=student_beside_others, args=arguments) for _ in range(count)]
        for process in processes:
            process.start()
        told = _collected(processes, answers)
        total = sum(rate for rate, _ in told)
        alone = alone or total / count
        operations = 3 * STUDENT_LAYERS * load.layer_operations / len(load.data)
        memory = sum(megabytes for _, megabytes in told)
        compared = f"{total / alone:.2f}x of one, each {total / alone / count:.2f}x"
        yield Found(CACHED, batch_size, count, [total], compared, operations * total / peak, memory)


def _collected(processes: Sequence[BaseProcess], answers: "Queue[tuple[float, float]]") -> list[tuple[float, float]]:
    """What every process tells; where one fails, which has said why on the screen, all are ended."""
    told: list[tuple[float, float]] = []
    while len(told) < len(processes):
        with suppress(Empty):
            told.append(answers.get(timeout=1.0))
        if any(process.exitcode for process in processes):
            for process in processes:
                process.terminate()
            raise RuntimeError(f"one of {len(processes)} processes side by side failed")
    for process in processes:
        process.join()
    return told


def run(plan: Plan, folder: Path | None) -> None:
    """Measure, print, and file where a folder is given."""
    device = Device()
    peak = device.peak(256 if plan.quick else 8192, plan.repeats)
    around = environment() | {"peak": f"{peak / 1e12:.4g} TFLOP/s in bf16", "device": device.name}
    found: list[Found] = []
    for batch_size in plan.batch_sizes:
        found += one_by_one(plan, batch_size, device, peak)
        device.forget()
        found += side_by_side(plan, batch_size, peak)
        if folder is not None:
            content = {"environment": around, "quick": plan.quick, "rows": [asdict(line) for line in found]}
            file_table(folder, "gpu", HEADINGS, [line.cells for line in found], content)
    print_table(HEADINGS, [line.cells for line in found])
    print(f"{around['device']}: {around['peak']}")
