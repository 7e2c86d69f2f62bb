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
LAST_WORDS_SECONDS = 2.0
"""So long before its end, a process that hangs says where."""
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
            [*PROCESS, str(folder), str(max(1.0, limit - LAST_WORDS_SECONDS))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise StepError(f"hangs: not done within {limit:.0f} s{_place(_text(words))}") from None
        finally:  # whatever it has started, too: a compiler, for one
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise StepError(_reason(_text(words), code))


def _environment() -> dict[str, str]:
    """Ray hides the GPUs of a node from what did not ask for one; these steps take a moment of the first."""
    kept = {name: value for name, value in os.environ.items() if (name, value) != ("CUDA_VISIBLE_DEVICES", "")}
    return kept | {"TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}


def _text(words: Path) -> str:
    return words.read_text(encoding="utf-8", errors="replace")


def _place(words: str) -> str:
    """Where a process that was about to be ended stood, by what `faulthandler` wrote."""
    found = re.search(r'most recent call first\):\n  File "([^"]+)", line (\d+)', words)
    return f", in {found[1]}, line {found[2]}" if found else ""


def _reason(words: str, code: int) -> str:
    lines = [line.strip() for line in words.splitlines() if re.match(r"(\[rank0\]: )?[\w.]+(Error|Exception)\b", line)]
    last = lines[-1] if lines else (words.strip().splitlines() or [f"it ended with {code}"])[-1].strip()
    return last.removeprefix("[rank0]: ")[:LONGEST_REASON]
