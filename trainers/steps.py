"""A few real training steps in a process of its own, with a time limit: whether they work here, and how fast they are.

Nothing heavy is imported here: whoever asks need not be able to train.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt

from stkd.trainers.config import Config, TrainingConfig
from stkd.trainers.costs import Untrained

PROCESS = [sys.executable, "-P", "-m", "stkd.trainers.step_process"]
"""`-P`: no folder of the user's own is where modules are looked for."""
SPARE_SECONDS = 2.0
"""Beyond its limit, for a process to say where it hangs, and to end."""
LONGEST_REASON = 300


class StepError(ValueError):
    """The steps could not be made; the message says why, in one line."""


class Texts(Config):
    """What is read: examples with the tokenizer that cuts them into tokens."""

    tokenizer: str
    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    pairs: tuple[str, ...] | None = None


class Steps(Config):
    """What is trained, and how."""

    training: TrainingConfig
    deepspeed: dict[str, JsonValue] = Field(default={})
    model: Untrained | None = None
    """null: a BERT so small that it shows only whether everything works."""
    read: Texts | None = None
    """null: tokens by chance."""
    threads: PositiveInt = 1
    seconds: PositiveFloat = 0.1
    """For how long steps are timed; there is at least one."""


class Timed(Config):
    """What the steps have shown. Seconds are of one example."""

    device: str
    """`cuda` or `cpu`."""
    training: tuple[PositiveFloat, ...]
    """A training step's, one number for each stretch that was timed."""
    reading: PositiveFloat
    """A forward pass's."""
    tokens: PositiveFloat
    """Of an example, in the mean."""
    megabytes: PositiveFloat
    """Of the model."""


def time_steps(wanted: Sequence[Steps], limit: float) -> list[Timed]:
    """Make the steps one after the other, all in one fresh process that has so many seconds.

    Raises:
        StepError: they do not work, or hang; where they hang is said.

    """
    with TemporaryDirectory(prefix="stkd-") as name:
        folder = Path(name)
        for number, steps in enumerate(wanted):
            (folder / f"{number}.json").write_text(steps.model_dump_json(), encoding="utf-8")
        _run(folder, limit)
        answers = [folder / f"{number}.timed" for number in range(len(wanted))]
        return [Timed.model_validate_json(answer.read_text(encoding="utf-8")) for answer in answers]


def _run(folder: Path, limit: float) -> None:
    words = folder / "words"
    with words.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*PROCESS, str(folder), str(limit)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        try:
            code = process.wait(limit + SPARE_SECONDS)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:  # whatever it has started, too: a compiler, for one
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise StepError(_reason(words.read_text(encoding="utf-8", errors="replace"), code, limit))


def _environment() -> dict[str, str]:
    """Ray hides the GPUs of a node from what did not ask for one; these steps take a moment of the first."""
    kept = {name: value for name, value in os.environ.items() if (name, value) != ("CUDA_VISIBLE_DEVICES", "")}
    return kept | {"TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}


def _reason(words: str, code: int, limit: float) -> str:
    hangs = re.search(
        r"^Timeout \(.*\n.*most recent call first\):\n  File \"([^\"]+)\", line (\d+)", words, re.MULTILINE
    )
    if hangs or code == -signal.SIGKILL:
        place = f", in {hangs[1]}, line {hangs[2]}" if hangs else ""
        return f"hangs: not done within {limit:.0f} s{place}"
    errors = re.findall(r"^(?:\[rank0\]: )?((?:\w+\.)*\w*(?:Error|Exception)\b.*)", words, re.MULTILINE)
    last = errors or words.strip().splitlines() or [f"it ended with {code}"]
    return last[-1].strip()[:LONGEST_REASON]
