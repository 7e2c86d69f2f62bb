"""Tiny models, tokenizers and data made in code: real ones in every respect but size."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, PreTrainedModel

from stkd.trainers.batches import EncodedExamples
from stkd.trainers.config import TrainingConfig
from stkd.trainers.examples import Examples
from stkd.trainers.job import encode_task
from stkd.trainers.loop import LossFunction, Training, label_loss, predict
from stkd.trainers.models import load_saved
from stkd.trainers.ranks import Ranks
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import TRAIN
from stkd.trainers.tasks import Task

GOOD, BAD = ("fine", "good", "great", "lovely"), ("awful", "bad", "dull", "poor")
FILLERS = ("the", "a", "film", "plot", "was", "very", "and", "quite", "scene", "long", "short", "we", "saw")
TASK = Task(name="tiny", kind="classification", class_names=("negative", "positive"), metrics=("accuracy",))
REGRESSION = Task(name="tiny-regression", kind="regression", class_names=(), metrics=("pearson", "spearman"))
MULTILABEL = Task(
    name="tiny-multilabel", kind="multilabel", class_names=("praise", "long", "film"), metrics=("micro_f1", "macro_f1")
)


def tiny_examples(count: int, seed: int, regression: bool = False) -> Examples:
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        label = rng.randrange(2)
        words = [*rng.choices(FILLERS, k=rng.randint(2, 9)), rng.choice(GOOD if label else BAD)]
        rng.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return Examples(texts, None, [label * 4.0 + 0.5 for label in labels] if regression else labels)


def tiny_multilabel(count: int, seed: int) -> Examples:
    """Whether a text praises, has more than six words, and speaks of a film."""
    examples = tiny_examples(count, seed)
    words = [text.split() for text in examples.texts]
    applies = [(not {*GOOD}.isdisjoint(text), len(text) > 6, "film" in text) for text in words]
    return Examples(examples.texts, None, [[float(each) for each in flags] for flags in applies])


def tiny_data(train: int = 96, validation: int = 32, task: Task = TASK) -> TaskData:
    def split(count: int, seed: int) -> Examples:
        if task.kind == "multilabel":
            return tiny_multilabel(count, seed)
        return tiny_examples(count, seed, regression=task.kind == "regression")

    return TaskData(task, split(train, 1), split(validation, 2), split(validation, 3), f"tiny-{train}-{validation}")


def tiny_teacher(folder: Path, layers: int = 3, dropout: float = 0.0, outputs: int = 2) -> str:
    """A folder with a random BERT of 4 heads and 32 neurons a layer, and the tokenizer of the tiny vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLERS]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
        num_labels=outputs,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


@dataclass(frozen=True)
class Case:
    """A teacher and a tokenised task, ready to train."""

    model: Path
    data: Path

    @property
    def train(self) -> EncodedExamples:
        return EncodedExamples.load(self.data / TRAIN)

    def load(self) -> PreTrainedModel:
        return load_saved(self.model)


def tiny_case(folder: Path, train: int = 96, layers: int = 3, dropout: float = 0.0, task: Task = TASK) -> Case:
    torch.set_num_threads(1)  # ranks share the cores, and tiny tensors gain nothing from more
    case = Case(folder / "model", folder / "data")
    tiny_teacher(case.model, layers, dropout, task.outputs)
    case.data.mkdir(parents=True)
    encode_task(tiny_data(train, task=task), str(case.model), 16, case.data)
    return case


def tiny_training(**changes: Any) -> TrainingConfig:
    """Big steps for tiny models, in plain fp32."""
    settings: dict[str, Any] = {"epochs": 3, "learning_rate": 2e-3, "precision": "fp32", "max_length": 16}
    return TrainingConfig(**settings | changes)


@dataclass(frozen=True)
class Course:
    """What a training came to: the loss of every step, the weights, and the final logits on its own examples."""

    losses: list[float]
    weights: dict[str, NDArray[np.float32]]
    logits: NDArray[np.float32]


def weights_of(model: PreTrainedModel) -> dict[str, NDArray[np.float32]]:
    return {name: weight.detach().cpu().numpy().copy() for name, weight in model.named_parameters()}


def train(
    ranks: Ranks,
    case: Case,
    training: TrainingConfig,
    losses: LossFunction | None = None,
    deepspeed: Mapping[str, Any] | None = None,
) -> Course:
    """Train the case's model to the end, against the labels where no other loss is given."""
    course = Training(case.load(), case.train, losses or label_loss("classification"), training, ranks, deepspeed or {})
    steps = [loss for _ in range(training.epochs) for loss in course.run_epoch()]
    model = course.engine.model
    course.engine.close()
    return Course(steps, weights_of(model), predict(model, case.train, ranks).numpy())


def assert_same_course(left: Course, right: Course, tolerance: float) -> None:
    np.testing.assert_allclose(left.losses, right.losses, rtol=0, atol=tolerance)
    np.testing.assert_allclose(left.logits, right.logits, rtol=0, atol=10 * tolerance)
    assert left.weights.keys() == right.weights.keys()
    for name, weight in left.weights.items():
        # its true gradient is zero, softmax being blind to it: Adam turns rounding errors into steps of full length
        if not name.endswith("key.bias"):
            np.testing.assert_allclose(weight, right.weights[name], rtol=0, atol=tolerance, err_msg=name)


cpu_only = pytest.mark.skipif(
    torch.cuda.is_available(), reason="about the CPU: a GPU serves one rank, and sums in any order"
)
