"""Tiny models, tokenizers and data made in code: real ones in every respect but size."""

import random
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from stkd.trainers.examples import Examples
from stkd.trainers.sources import TaskData
from stkd.trainers.tasks import Task

GOOD, BAD = ("fine", "good", "great", "lovely"), ("awful", "bad", "dull", "poor")
FILLERS = ("the", "a", "film", "plot", "was", "very", "and", "quite", "scene", "long", "short", "we", "saw")
TASK = Task(name="tiny", kind="classification", class_names=("negative", "positive"), metrics=("accuracy",))
REGRESSION = Task(name="tiny-regression", kind="regression", class_names=(), metrics=("pearson", "spearman"))


def tiny_examples(count: int, seed: int, regression: bool = False) -> Examples:
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        label = rng.randrange(2)
        words = rng.choices(FILLERS, k=rng.randint(2, 9)) + [rng.choice(GOOD if label else BAD)]
        rng.shuffle(words)
        texts.append(" ".join(words))
        labels.append(label)
    return Examples(texts, None, [label * 4.0 + 0.5 for label in labels] if regression else labels)


def tiny_data(train: int = 96, validation: int = 32, task: Task = TASK) -> TaskData:
    regression = task.kind == "regression"
    return TaskData(
        task, tiny_examples(train, 1, regression), tiny_examples(validation, 2, regression), f"tiny-{train}-{validation}"
    )


def tiny_teacher(folder: Path, layers: int = 3, dropout: float = 0.0) -> str:
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
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)
