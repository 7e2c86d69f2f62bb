"""What a classifier costs to serve: its size, and how fast it answers in a process that does nothing else.

Nothing heavy is imported here: whoever asks for a cost need not be able to run a model.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Annotated

from pydantic import Field, PositiveInt, TypeAdapter

from stkd.trainers.config import Config, StudentConfig
from stkd.trainers.errors import UserError
from stkd.trainers.form_names import IN_WORDS, Device, Form

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
        return f"{self.without_form}, {IN_WORDS[self.form]}"

    @property
    def without_form(self) -> str:
        """In words, but for how it is run."""
        examples = "one example" if self.batch == 1 else f"{self.batch} examples"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        place = f"{threads} of the processor" if self.device == "cpu" else "the GPU"
        return f"{examples} of {self.length} tokens on {place}"


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
    interrupted: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """Share of runs from which other work took the processor for a while, which is not counted; None where that is not
    known, as of several threads."""


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
    with TemporaryFile("w+") as output, _process(output) as (questions, answers):
        for measurement in wanted:
            with suppress(BrokenPipeError):  # it has died: what it said last is told below
                questions.write(measurement.model_dump_json() + "\n")
                questions.flush()
            line = answers.readline()
            if not line:
                output.seek(0)
                last = (output.read().strip() or "it said nothing").splitlines()[-1]
                raise RuntimeError(f"the process that measures has ended without an answer: {last}")
            yield _cost(line)


@contextmanager
def _process(output: IO[str]) -> Iterator[tuple[IO[str], IO[str]]]:
    """The process, by what it is asked and what it answers; it is gone when the context ends.

    Answers come through a pipe of their own: what libraries print goes to `output`.
    """
    read, write = os.pipe()
    with os.fdopen(read) as answers:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*PROCESS, str(write)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(write,),
        )
        os.close(write)
        with process:
            assert process.stdin is not None, "it was asked for"
            try:
                yield process.stdin, answers
            finally:
                process.kill()
                with suppress(BrokenPipeError):
                    process.stdin.close()


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
