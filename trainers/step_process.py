"""The process that makes a few training steps and times them: `python -m stkd.trainers.step_process FOLDER SECONDS`.

It makes what each `N.json` in the folder asks for, and writes `N.timed`. After SECONDS it says where it is and ends,
also where nobody waits for it any more. See `stkd.trainers.steps`.
"""

import faulthandler
import math
import sys
from pathlib import Path
from time import perf_counter

if __name__ == "__main__":  # before what takes long, and may hang
    faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from stkd.trainers.batches import EncodedExamples, encode
from stkd.trainers.cost_process import untrained
from stkd.trainers.examples import Examples
from stkd.trainers.loop import Training, label_loss, predict
from stkd.trainers.models import load_tokenizer
from stkd.trainers.ranks import Ranks
from stkd.trainers.steps import Steps, Texts, Timed

TINY = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TINY_EXAMPLES, TINY_TOKENS = 8, 8
STRETCHES = 3
WARM_STEPS = 2


def main(folder: Path) -> None:
    """Answer every question of the folder."""
    for question in sorted(folder.glob("*.json"), key=lambda path: int(path.stem)):
        found = timed(Steps.model_validate_json(question.read_text(encoding="utf-8")))
        question.with_suffix(".timed").write_text(found.model_dump_json(), encoding="utf-8")


def timed(steps: Steps) -> Timed:
    """Train and read for as long as was asked for."""
    torch.set_num_threads(steps.threads)
    torch.manual_seed(0)
    model: PreTrainedModel = BertForSequenceClassification(BertConfig(**TINY))
    if steps.model is not None:
        model = untrained(steps.model)
    megabytes = sum(weight.nbytes for weight in model.parameters()) / 1e6
    classes = int(model.config.num_labels)
    data = _by_chance() if steps.read is None else _encoded(steps.read, steps.training.max_length, classes)
    ranks = Ranks()
    training = Training(model, data, label_loss("classification"), steps.training, ranks, steps.deepspeed)
    training.time_steps(WARM_STEPS)
    count = math.ceil(len(data) / steps.training.batch_size)
    stretches = [_stretch(training, count, steps.seconds / STRETCHES) for _ in range(STRETCHES)]
    start = perf_counter()
    predict(training.engine.model, data, ranks)
    reading = (perf_counter() - start) / len(data)
    training.engine.close()
    return Timed(
        device=ranks.device.type,
        training=tuple(stretches),
        reading=reading,
        tokens=float(data.lengths.mean()),
        megabytes=megabytes,
    )


def _stretch(training: Training, steps: int, seconds: float) -> float:
    """Seconds of an example, over so many steps, again and again until they took so long together."""
    found: list[float] = []
    start = perf_counter()
    while not found or perf_counter() - start < seconds:
        found.append(1.0 / training.time_steps(steps))
    return float(np.mean(found))


def _by_chance() -> EncodedExamples:
    tokens = np.random.default_rng(0).integers(1, TINY["vocab_size"], TINY_EXAMPLES * TINY_TOKENS, dtype=np.int32)
    offsets = np.arange(0, len(tokens) + 1, TINY_TOKENS, dtype=np.int64)
    return EncodedExamples(tokens, None, offsets, np.arange(TINY_EXAMPLES) % 2, pad_id=0)


def _encoded(read: Texts, max_length: int, classes: int) -> EncodedExamples:
    pairs = None if read.pairs is None else list(read.pairs)
    labels = [number % classes for number in range(len(read.texts))]
    return encode(Examples(list(read.texts), pairs, labels), load_tokenizer(read.tokenizer), max_length)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
