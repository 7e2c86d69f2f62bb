"""Texts to answers: a classifier in any form, with its tokenizer, and what its logits mean. N examples, C outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from transformers import AutoConfig

from stkd.trainers.batches import encode
from stkd.trainers.examples import Examples
from stkd.trainers.form_names import Device, Form
from stkd.trainers.forms import load_form, logits_of
from stkd.trainers.model_files import token_limit
from stkd.trainers.models import load_tokenizer, saved_task
from stkd.trainers.tasks import Task

USUAL_LIMIT, MOST_TOKENS = 512, 1_000_000
"""Tokens after which a text is cut where nobody says; a tokenizer that names more than a million does not say."""


@dataclass(frozen=True)
class Answers:
    """What a window of examples got."""

    labels: list[str] | list[list[str]] | None
    """A class for each, or those that apply; None for scores."""
    scores: NDArray[np.float32]
    """(N, C): how likely each class is, in 0..1; (N, 1) where the task is a score."""

    @classmethod
    def of(cls, task: Task, logits: NDArray[np.float32]) -> "Answers":
        """What raw logits (N, C) mean; a class of several applies if it is likelier than not."""
        match task.kind:
            case "classification":
                labels = [task.class_names[place] for place in logits.argmax(axis=1)]
                return cls(labels, softmax(logits, axis=1))
            case "multilabel":
                several = [
                    [name for name, logit in zip(task.class_names, row, strict=True) if logit > 0] for row in logits
                ]
                return cls(several, expit(logits))
            case "regression":
                return cls(None, logits)


class Predictor:
    """Answers texts, or pairs of texts, cut as in the student's training."""

    def __init__(
        self, folder: Path, form: Form = "pytorch", device: Device = "cpu", threads: int | None = None
    ) -> None:
        self.task = saved_task(folder, folder.name)
        self._classifier = load_form(folder, form, device, threads)
        self._tokenizer, self._device = load_tokenizer(str(folder)), device
        told = int(self._tokenizer.model_max_length)
        limit = token_limit(AutoConfig.from_pretrained(folder).to_dict())
        self.longest = min(told if told < MOST_TOKENS else limit or USUAL_LIMIT, limit or told)

    def columns(self) -> list[str]:
        """What `table` names."""
        if self.task.kind == "regression":
            return ["score"]
        return ["label", *(f"score_{name}" for name in self.task.class_names)]

    def table(self, texts: Sequence[list[str]]) -> dict[str, list[Any]]:
        """A value for each example in their order, by column; `texts` is a list of them, or two of one length."""
        examples = Examples(texts[0], texts[1] if len(texts) == 2 else None, [0] * len(texts[0]))
        encoded = encode(examples, self._tokenizer, self.longest)
        answers = Answers.of(self.task, logits_of(self._classifier, encoded, self._device))
        labels = [] if answers.labels is None else [answers.labels]
        return dict(zip(self.columns(), [*labels, *answers.scores.T.tolist()], strict=True))
