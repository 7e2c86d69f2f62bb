"""From a trial's start to its first optimizer step, warm: against a trial that nests a TorchTrainer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from time import time
from typing import Any

import torch
from baselines import Losses, PlainLoop
from measuring import Goal, Row, Settings, in_turns
from places import workplace
from prepared import Prepared, prepared_task, run_grid
from ray import train, tune
from ray.train.torch import TorchTrainer, prepare_model
from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from typing_extensions import override
from workloads import STUDENT, TASK

from stkd.orchestrator.trial import Trial, TrialPlan
from stkd.search_spaces.schema import Space
from stkd.trainers.batches import EncodedExamples
from stkd.trainers.losses import distillation_losses
from stkd.trainers.models import load_saved
from stkd.trainers.specs import LOGITS
from stkd.trainers.students import make_student

FIRST_STEP = "first_step"


class FirstStep:
    """When an optimizer of this process first stepped, by the clock that all processes share."""

    def __init__(self) -> None:
        self.time: float | None = None
        register_optimizer_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        if self.time is None:
            self.time = time()


class TimedTrial(Trial):
    """A trial that also reports when it first stepped."""

    def setup(self, config: dict[str, Any], plan: TrialPlan) -> None:
        """Begin to watch."""
        self._first = FirstStep()
        super().setup(config, plan)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Watch for the next trial's."""
        self._first.time = None
        return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        """Train an epoch."""
        return super().step() | {FIRST_STEP: self._first.time}


class OurTrials:
    """Rounds of trials that reuse one process, no two of them with equal settings."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._round = 0
        self.with_logits_to_compute: list[float] = []

    def warm_start(self) -> float:
        """Seconds of a trial's start where the logits are there; keeps those of the one that has to compute them."""
        self._round += 1
        grid = {"temperature": [1.0, 3.0, 5.0], "sparsity": [0.0, self._round / 20]}
        watch = run_grid(replace(self._prepared, space=self._seeded()), grid, TimedTrial)
        computing, *warm = gaps(watch.ends, [report[FIRST_STEP] for report in watch.reports])
        self.with_logits_to_compute.append(computing)
        return median(warm)

    def _seeded(self) -> Space:
        """The space with a seed of the round's own: what was trained before would be taken over."""
        space = self._prepared.space
        return space.model_copy(update={"training": space.training.model_copy(update={"seed": self._round})})


def gaps(ends: Sequence[float], first_steps: Sequence[float]) -> list[float]:
    """Seconds from the end of each trial to the first step of the next, which could start then."""
    return [step - end for end, step in zip(ends, first_steps[1:], strict=False)]


class Ends(Callback):  # type: ignore[misc]
    """Keeps when each trial had ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @override
    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.times.append(time())


def train_nested(config: dict[str, Any]) -> None:
    """What a worker of a TorchTrainer does: the same student on the same data, by a plain loop."""
    first, shared, losses = FirstStep(), config["shared"], _imitate(load_file(config["folder"] / LOGITS)["logits"])
    data = EncodedExamples.load(shared.data / "train.safetensors")
    student = prepare_model(make_student(load_saved(shared.teacher), STUDENT))
    PlainLoop(student, data, config["training"], bf16=False, losses=losses).run_epoch()
    assert first.time is not None
    (config["folder"] / FIRST_STEP).write_text(str(first.time))


def _imitate(logits: Tensor) -> Losses:
    return lambda found, batch: distillation_losses(
        found, logits[batch.indices], batch.labels, "classification", temperature=2.0
    )


def nest(config: dict[str, Any], work: dict[str, Any]) -> None:
    """A trial that starts a TorchTrainer of one worker and waits for it."""
    folder: Path = work["folder"]
    TorchTrainer(
        train_nested,
        train_loop_config=work,
        scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=train.RunConfig(storage_path=str(folder), name=f"nested-{config['number']}-{time()}"),
    ).fit()
    tune.report({FIRST_STEP: float((folder / FIRST_STEP).read_text())})


def nested_start(work: dict[str, Any]) -> float:
    """Seconds of the start of the second of two such trials."""
    ends = Ends()
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(nest, work=work), {"CPU": 0.01}),  # it only waits
        param_space={"number": tune.grid_search([1, 2])},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(work["folder"]), name=f"tune-{time()}", callbacks=[ends], verbose=0),
    )
    found = tuner.fit()
    if found.errors:
        raise RuntimeError(f"nested trials failed: {found.errors}")
    return gaps(ends.times, [result.metrics[FIRST_STEP] for result in found])[0]


def rows(settings: Settings) -> Iterator[Row]:
    """A row where the teacher's logits are there, and one where they are computed first."""
    changes = ["training.epochs=1", "trials.concurrent=1", *(["data.train_examples=64"] if settings.quick else [])]
    with workplace() as folder, prepared_task(settings, folder, *changes) as prepared:
        ours = OurTrials(prepared)
        work = {"folder": folder, "shared": prepared.shared, "training": prepared.space.training}
        _save_logits(folder / LOGITS, len(prepared.data.train))
        theirs = partial(nested_start, work)
        measured = in_turns({"ours": ours.warm_start, "theirs": theirs}, settings.times(3), warm_up=False)
    what = "from a warm trial's start to its first optimizer step"
    against = "a trial that nests a TorchTrainer"
    goals = [Goal("under", 0.3), Goal("faster", 50)]
    yield Row("first_step", what, against, "s", measured["ours"], measured["theirs"], goals)
    computing = f"the same, the sparse teacher's logits of {len(prepared.data.train)} examples computed first"
    yield Row("first_step", computing, against, "s", ours.with_logits_to_compute, measured["theirs"], of_speed=True)


def _save_logits(path: Path, count: int) -> None:
    save_file({"logits": torch.randn(count, TASK.outputs)}, path)
