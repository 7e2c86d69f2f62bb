"""One step of a sweep as it is done with scripts, each in a process of its own: what a whole sweep is measured against.

    python naive.py STEP FOLDER --model NAME ...    # STEP: teacher, trial-student, scores or trial, in this order

Everything is fp32, in random order and padded to 128 tokens; the teacher is in the loop, with zeros for units that a
sparse one lacks; scores come from gradients of masks, anew for each lambda. Results go from step to step by the folder.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from baselines import ReferenceLoop, mask_gradients, padded_batches
from transformers import PreTrainedModel
from workloads import LONGEST, STUDENT, TASK

from stkd.trainers.batches import encode
from stkd.trainers.config import DataConfig, DistillationConfig, ScoringConfig
from stkd.trainers.models import load_base, load_saved, load_tokenizer, save_model
from stkd.trainers.ranking import UnitScores
from stkd.trainers.sources import load_task
from stkd.trainers.students import make_student
from stkd.trainers.units import UnitMask, masked

TEACHER, TRIAL_STUDENT, SCORES = "teacher", "trial-student", "scores.safetensors"


class Script:
    """What every step begins with: its settings, and the task, tokenised anew."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked, self._folder = asked, Path(asked.folder)
        data = load_task(TASK.name, DataConfig(source="generated", train_examples=asked.train_examples))
        self._tokenizer = load_tokenizer(asked.model)
        self._train = encode(data.train, self._tokenizer, LONGEST)
        self._validation = encode(data.validation, self._tokenizer, LONGEST)

    def teacher(self) -> None:
        """Fine-tune the model."""
        self._fit(load_base(self._asked.model, TASK, self._asked.seed), None, TEACHER)

    def trial_student(self) -> None:
        """Distil the dense teacher."""
        teacher = load_saved(self._folder / TEACHER)
        self._fit(make_student(teacher, STUDENT), teacher, TRIAL_STUDENT)

    def scores(self) -> None:
        """Score the teacher's units, on as many examples as a sweep does."""
        sample = np.random.default_rng(self._asked.seed).permutation(len(self._train))[: self._asked.scored_examples]
        settings = ScoringConfig()
        batches = padded_batches(self._train.subset(sample), settings.batch_size, LONGEST)
        teacher, student = (load_saved(self._folder / name) for name in (TEACHER, TRIAL_STUDENT))
        heads, neurons, *friendliness = mask_gradients(teacher, student, batches, settings.temperature)
        unused = (torch.zeros_like(heads), torch.zeros_like(neurons))
        found = UnitScores(*(part.numpy() for part in (heads, neurons, *friendliness, *unused)))
        found.save(self._folder / SCORES)

    def trial(self) -> None:
        """Distil one sparse teacher."""
        teacher = load_saved(self._folder / TEACHER)
        settings = DistillationConfig(interpolation=self._asked.interpolation, sparsity=self._asked.sparsity)
        mask = UnitMask.of(UnitScores.load(self._folder / SCORES), settings)
        student = make_student(teacher, STUDENT)
        with masked(teacher, mask):
            self._fit(student, teacher, f"student-{mask.name}-{self._asked.temperature}")

    def _fit(self, model: PreTrainedModel, teacher: PreTrainedModel | None, name: str) -> None:
        """Train, look at the validation split after each epoch, and keep the best model."""
        asked, best = self._asked, -1.0
        steps = -(-len(self._train) // asked.batch_size) * asked.epochs
        loop = ReferenceLoop(model, teacher, steps, asked.temperature)
        for epoch in range(asked.epochs):
            loop.train(padded_batches(self._train, asked.batch_size, LONGEST, seed=asked.seed + epoch))
            score = self._accuracy(model)
            print(f"{name}: {100 * score:.1f} after epoch {epoch + 1}", flush=True)
            if score > best:
                best = score
                save_model(model, self._tokenizer, self._folder / name)

    def _accuracy(self, model: PreTrainedModel) -> float:
        model.eval()
        right = 0
        with torch.no_grad():
            for inputs, labels in padded_batches(self._validation, self._asked.batch_size, LONGEST):
                right += int((model(**inputs).logits.argmax(dim=-1) == labels).sum())
        return right / len(self._validation)


STEPS: Mapping[str, Callable[[Script], None]] = {
    "teacher": Script.teacher,
    "trial-student": Script.trial_student,
    "scores": Script.scores,
    "trial": Script.trial,
}


def main() -> None:
    """Read the command line and run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("folder")
    parser.add_argument("--model", required=True)
    parser.add_argument("--train-examples", type=int)
    parser.add_argument("--scored-examples", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=776)
    parser.add_argument("--interpolation", type=float, default=0.5)
    parser.add_argument("--sparsity", type=float, default=0.0)
    parser.add_argument("--temperature", type=float, default=2.0)
    asked = parser.parse_args()
    STEPS[asked.step](Script(asked))


if __name__ == "__main__":
    main()
