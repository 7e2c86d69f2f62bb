"""What a classifier costs to serve: its size, and how fast it answers in a process that does nothing else.

Nothing heavy is imported here: whoever asks for a cost need not be able to run a model.
"""

import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Annotated, Literal

from pydantic import Field, PositiveInt, TypeAdapter

from stkd.trainers.config import Config, StudentConfig
from stkd.trainers.errors import UserError

Form = Literal["pytorch", "pytorch-bf16", "onnx", "onnx-int8"]
"""How a classifier is run: by PyTorch in fp32 or with all weights in bf16, by onnxruntime in fp32 or in int8."""
IN_WORDS: dict[Form, str] = {
    "pytorch": "PyTorch in fp32",
    "pytorch-bf16": "PyTorch in bf16",
    "onnx": "onnxruntime in fp32",
    "onnx-int8": "onnxruntime in int8",
}
Device = Literal["cpu", "cuda"]
PROCESS = [sys.executable, "-P", "-m", "stkd.trainers.cost_process"]
"""`-P`: no folder of the user's own is where modules are looked for."""


class Conditions(Config):
    """Under which a latency is measured; without them it says nothing."""

    form: Form = "pytorch"
    batch: PositiveInt = 1
    """Examples at a time."""
    length: PositiveInt = 128
    """Tokens of each."""
    device: Device = "cpu"
    threads: PositiveInt = 1
    """Of the processor."""

    def __str__(self) -> str:
        examples = "one example" if self.batch == 1 else f"{self.batch} examples"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        place = f"{threads} of the processor" if self.device == "cpu" else "the GPU"
        return f"{examples} of {self.length} tokens on {place}, {IN_WORDS[self.form]}"


class Untrained(Config):
    """A student as it starts, with any weights: what it costs does not depend on them.

    Which units a pruned one lacks is not known before its teacher is trained; so many are taken by chance.
    """

    teacher: str
    student: StudentConfig
    outputs: PositiveInt


class Saved(Config):
    """A classifier that was saved in this folder."""

    folder: Path


class Measurement(Config):
    """What is to be measured, and how."""

    subject: Saved | Untrained
    conditions: Conditions


class Cost(Config):
    """What was measured. Milliseconds are of the model alone, from tokens to logits, over warm runs."""

    parameters: PositiveInt
    megabytes: Annotated[float, Field(gt=0.0)]
    """Of the weights in PyTorch, or of the ONNX file."""
    p50: Annotated[float, Field(gt=0.0)]
    p95: Annotated[float, Field(gt=0.0)]
    p99: Annotated[float, Field(gt=0.0)]
    runs: PositiveInt
    """Those that count."""
    interrupted: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """Share of runs that do not count, since other work took the processor from them; None where that is not known, as
    of several threads."""


class Failure(Config):
    """Why there is no cost: something that a user can mend."""

    error: str


_ANSWER: TypeAdapter[Cost | Failure] = TypeAdapter(Cost | Failure)


def measure_afresh(wanted: Sequence[Measurement]) -> Iterator[Cost]:
    """Measure one after the other in a fresh process, and give each cost as it comes.

    Raises:
        UserError: something cannot be run in this way, or on this machine.

    """
    if not wanted:
        return
    with TemporaryFile("w+") as complaints, _process(complaints) as process:
        assert process.stdin is not None, "it was asked for"
        assert process.stdout is not None, "it was asked for"
        for measurement in wanted:
            process.stdin.write(measurement.model_dump_json() + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                process.wait()
                complaints.seek(0)
                last = (complaints.read().strip() or "it said nothing").splitlines()[-1]
                raise RuntimeError(f"the process that measures has ended with {process.returncode}: {last}")
            yield _cost(line)


@contextmanager
def _process(complaints: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, which is gone when the context ends."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        PROCESS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _cost(line: str) -> Cost:
    answer = _ANSWER.validate_json(line)
    if isinstance(answer, Failure):
        raise UserError(answer.error)
    return answer


def processor_name(device: Device) -> str:
    """What is computed on, as a person calls it; latencies on another one are others."""
    if device == "cuda":
        cards = [_named("Model", path) for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
        return cards[0] if cards else "a GPU"
    return _named("model name", Path("/proc/cpuinfo"))


def _named(field: str, path: Path) -> str:
    """What a file of lines `field : value` says first."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    values = (value for name, _, value in (line.partition(":") for line in lines) if name.strip() == field)
    return " ".join(next(values, platform.machine()).split())
