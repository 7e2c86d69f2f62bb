"""A whole sweep as a good engineer writes it in a week, with PyTorch, transformers, Ray Tune and MLflow's callback.

    python engineered.py FOLDER --model NAME ...    # the best student's accuracy comes into FOLDER/best

What such an engineer knows is done: batches of similar length, padded to their longest; bf16 where the hardware has
it; the fused AdamW; processes that Tune uses again, a thread for each trial and as many trials at a time as there are
cores; E and F scored once, without gradients of weights; a sparse teacher's logits computed once and looked up.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time

import numpy as np
import ray
import torch
from baselines import Losses, PlainLoop, label_losses, mask_gradients
from numpy.typing import NDArray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from workloads import TASK

from stkd.trainers.batches import EncodedExamples, encode
from stkd.trainers.config import DataConfig, DistillationConfig, StudentConfig, TrainingConfig
from stkd.trainers.engine import computes_in_bf16
from stkd.trainers.losses import distillation_losses
from stkd.trainers.models import load_base, load_saved, load_tokenizer, save_model
from stkd.trainers.ranking import UnitScores
from stkd.trainers.sources import load_task
from stkd.trainers.students import make_student
from stkd.trainers.units import UnitMask, masked

TEACHER, TRIAL_STUDENT, SCORES = "teacher", "trial-student", "scores.safetensors"
WANTED = "wanted"
"""The teacher's logits."""
TEMPERATURE = 2.0
READ_AT_ONCE = 64
CPU = torch.device("cpu")
STUDENT = StudentConfig(layers=3, keep="even")


def no_report(_: float) -> None:
    """For trainings that are no trials."""


def imitation(wanted: Tensor, temperature: float) -> Losses:
    """The loss against the labels and a teacher's logits of the training examples."""
    return lambda found, batch: distillation_losses(
        found, wanted[batch.indices], batch.labels, TASK.kind, temperature=temperature
    )


class Script:
    """The sweep's settings and its task, tokenised once and sent to all trials."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked, self._folder = asked, Path(asked.folder)
        self._training = TrainingConfig(epochs=asked.epochs, batch_size=16, learning_rate=1e-4, max_length=64)
        self._bf16 = computes_in_bf16(self._training, CPU)
        self._tokenizer = load_tokenizer(asked.model)
        data = load_task(TASK.name, DataConfig(source="generated", train_examples=asked.train_examples))
        self._train, self._validation = (
            encode(split, self._tokenizer, self._training.max_length) for split in (data.train, data.validation)
        )

    def prepare(self) -> None:
        """Fine-tune the teacher, distil it to the trial student, and score its units."""
        base = load_base(self._asked.model, TASK, self._training.seed)
        self._fit(base, label_losses, TEACHER)
        teacher = load_saved(self._folder / TEACHER)
        wanted = self._read(teacher, self._train)
        self._fit(make_student(teacher, STUDENT), imitation(wanted, TEMPERATURE), TRIAL_STUDENT)
        self._score(teacher, load_saved(self._folder / TRIAL_STUDENT))

    def trial(self, config: Mapping[str, float]) -> None:
        """Distil one sparse teacher."""
        teacher = load_saved(self._folder / TEACHER)
        settings = DistillationConfig(interpolation=config["interpolation"], sparsity=config["sparsity"])
        wanted = self._wanted(teacher, UnitMask.of(UnitScores.load(self._folder / SCORES), settings))
        losses = imitation(wanted, config["temperature"])
        name = f"student-{tune.get_context().get_trial_id()}"
        self._fit(make_student(teacher, STUDENT), losses, name, lambda score: tune.report({"accuracy": score}))

    def _wanted(self, teacher: PreTrainedModel, mask: UnitMask) -> Tensor:
        """The logits of a sparse teacher, which trials of other temperatures need, too."""
        path = self._folder / f"logits-{mask.name}.safetensors"
        own = path.with_name(f"{path.name}.{tune.get_context().get_trial_id()}")
        if not path.exists():
            with masked(teacher, mask):
                save_file({WANTED: self._read(teacher, self._train)}, own)
            own.replace(path)  # two trials may compute the same at once
        return load_file(path)[WANTED]

    def _score(self, teacher: PreTrainedModel, student: PreTrainedModel) -> None:
        train = self._train
        sample = np.random.default_rng(self._training.seed).permutation(len(train))[: self._asked.scored_examples]
        found = [train.batch(sample[indices], CPU) for indices in _by_length(train.subset(sample))]
        batches = [(batch.inputs, batch.labels) for batch in found]
        heads, neurons, *friendliness = mask_gradients(teacher.requires_grad_(False), student, batches, TEMPERATURE)
        unused = (torch.zeros_like(heads), torch.zeros_like(neurons))
        scores = UnitScores(*(part.numpy() for part in (heads, neurons, *friendliness, *unused)))
        scores.save(self._folder / SCORES)

    def _fit(
        self, model: PreTrainedModel, losses: Losses, name: str, report: Callable[[float], object] = no_report
    ) -> None:
        """Train, look at the validation split after each epoch, and keep the best model."""
        loop, best = PlainLoop(model, self._train, self._training, self._bf16, losses), -1.0
        for _ in range(self._training.epochs):
            loop.run_epoch()
            found = self._read(model, self._validation).argmax(dim=-1).numpy()
            score = 100 * float((found == self._validation.labels).mean())
            if score > best:
                best = score
                save_model(model, self._tokenizer, self._folder / name)
            report(score)

    def _read(self, model: PreTrainedModel, examples: EncodedExamples) -> Tensor:
        """A model's logits, one row an example."""
        logits = torch.zeros(len(examples), TASK.outputs)
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            for indices in _by_length(examples):
                logits[torch.from_numpy(indices)] = model(**examples.batch(indices, CPU).inputs).logits.float()
        return logits


def _by_length(examples: EncodedExamples) -> list[NDArray[np.int64]]:
    """Every example once, in batches of similar length."""
    return np.array_split(np.argsort(examples.lengths), -(-len(examples) // READ_AT_ONCE))


def search(asked: argparse.Namespace, script: Script) -> float:
    """Run every point of the grid, with MLflow; returns the best student's accuracy, in 0..100."""
    grid = {key: tune.grid_search(vars(asked)[key]) for key in ("interpolation", "sparsity", "temperature")}
    tracking = MLflowLoggerCallback(tracking_uri=f"sqlite:///{asked.folder}/mlflow.db", experiment_name="engineered")
    with ray.init(include_dashboard=False):
        trainable = tune.with_parameters(lambda config, script: script.trial(config), script=script)
        found = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 1}),
            param_space=grid,
            tune_config=tune.TuneConfig(metric="accuracy", mode="max", reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=asked.folder, name=f"tune-{time()}", callbacks=[tracking], verbose=0
            ),
        ).fit()
    if found.errors:
        raise RuntimeError(f"trials failed: {found.errors}")
    return max(float(result.metrics_dataframe["accuracy"].max()) for result in found)


def main() -> None:
    """Read the command line and run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--model", required=True)
    parser.add_argument("--train-examples", type=int)
    parser.add_argument("--scored-examples", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2)
    for key in ("interpolation", "sparsity", "temperature"):
        parser.add_argument(f"--{key}", type=float, nargs="+", required=True)
    asked = parser.parse_args()
    script = Script(asked)
    script.prepare()
    (Path(asked.folder) / "best").write_text(str(search(asked, script)))


if __name__ == "__main__":
    main()
