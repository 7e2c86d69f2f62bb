"""How long the parts of a task take: by what earlier sweeps of a storage took, or by trying a few steps."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from stkd.orchestrator.forecast import Span
from stkd.orchestrator.layout import Storage
from stkd.orchestrator.results import TaskResults, TrialResult, read_results
from stkd.search_spaces.reading import read_space
from stkd.search_spaces.schema import Space
from stkd.trainers.config import TrainingConfig
from stkd.trainers.costs import Untrained
from stkd.trainers.errors import UserError
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import TRAIN
from stkd.trainers.steps import Steps, Texts, Timed, time_steps

NEWEST = 30
"""So many sweeps are looked at, the newest first."""
SAME_TASK, OTHER_TASK, PROBED = 1.25, 1.6, 1.8
"""By what factors estimates are wrong, nine times in ten: by trials of the task, by those of others, by a few steps."""
TOKENS_PER_WORD = 1.35
RunSteps = Callable[[Sequence[Steps], float], list[Timed]]
"""Makes steps within so many seconds, see `stkd.trainers.steps.time_steps`."""
OVERHEAD = {"start", "teacher", "waiting"}
"""Phases of a trial that do not come again each epoch."""
PROBE_SECONDS, PROBE_LIMIT, PROBE_BATCHES = 3.0, 120.0, 4
TRIAL_START, EVALUATION = 2.0, 1.1
"""What a probe does not see: seconds until a trial's first step, and epochs with their evaluation and checkpoint."""
SCORING = 1.5
"""A pass for scores, in training steps of the teacher."""


@dataclass(frozen=True)
class Pace:
    """Seconds, on the devices that a stage or a trial has."""

    stages: Mapping[str, Span]
    """By the stage's name, without what tells kinds of students apart."""
    start: Span
    """Of a trial, before its first step; its teacher's logits are part."""
    epoch: Span
    """Of a trial."""
    source: str
    """Where this is known from."""
    student_megabytes: float | None
    teacher_megabytes: float | None

    def stage(self, name: str) -> Span:
        """A stage, by its whole name."""
        return self.stages.get(name.partition("-")[0], Span.sure(0.0))


def tokens(data: TaskData, longest: int) -> float:
    """How many tokens the training examples have, by their words."""
    pairs = data.train.pairs or [""] * len(data.train)
    words = (len(text.split()) + len(pair.split()) for text, pair in zip(data.train.texts, pairs, strict=True))
    return float(sum(min(longest, TOKENS_PER_WORD * count + 2) for count in words))


def earlier(space: Space, data: TaskData, data_artifact: Path, storage: Storage) -> Pace | None:
    """By the newest sweeps with the same models and devices; of the same task, if there are any."""
    runs = [run for run in _runs(storage) if _alike(run[0], space)]
    same = [run for run in runs if run[1].task == data.task.name]
    used = same or runs
    wanted = _stored_tokens(data_artifact) or tokens(data, space.training.max_length)
    scaled = [(results, wanted / stored) for _, results in used if (stored := _tokens_of(results, storage))]
    trials = [(trial, scale) for results, scale in scaled for trial in _trained(results)]
    if not trials:
        return None
    error = SAME_TASK if same else OTHER_TASK
    epochs = np.array([_epoch_seconds(trial) * scale for trial, scale in trials])
    starts = np.array([_start_seconds(trial, scale) for trial, scale in trials])
    names = {name.partition("-")[0] for results, _ in scaled for name in results.stages}
    tasks = ", ".join(dict.fromkeys(results.task for results, _ in scaled))
    return Pace(
        stages={name: _stage_span(name, scaled).within(error) for name in names},
        start=_mean_span(starts).within(error),
        epoch=_mean_span(epochs).within(error),
        source=f"{len(trials)} earlier trials of {tasks}",
        student_megabytes=_megabytes(trial.metrics for trial, _ in trials),
        teacher_megabytes=_megabytes(
            results.stages["teacher"].metrics for results, _ in scaled if "teacher" in results.stages
        ),
    )


def _runs(storage: Storage) -> Iterator[tuple[Space, TaskResults]]:
    for sweep in reversed(storage.all_sweeps()[-NEWEST:]):
        with suppress(UserError):  # another version of stkd wrote it
            space = read_space(sweep.space)
            yield from ((space, results) for results in read_results(sweep).values())


def _alike(one: Space, other: Space) -> bool:
    """Whether trials of both take equally long, for equally many tokens."""
    return _decisive(one) == _decisive(other)


def _decisive(space: Space) -> Sequence[object]:
    training, resources = space.training, space.resources
    return (
        Path(space.teacher.model).name,
        space.student.model_dump(),
        (training.max_length, training.batch_size, training.precision),
        (resources.ranks, resources.gpus_per_rank, resources.cpus_per_rank),
        space.deepspeed,
    )


def _trained(results: TaskResults) -> list[TrialResult]:
    return [trial for trial in results.trials.values() if trial.epochs and trial.phases and trial.status != "failed"]


def _epoch_seconds(trial: TrialResult) -> float:
    return sum(seconds for phase, seconds in trial.phases.items() if phase not in OVERHEAD) / trial.epochs


def _start_seconds(trial: TrialResult, scale: float) -> float:
    return trial.phases.get("start", 0.0) + scale * trial.phases.get("teacher", 0.0)


def _mean_span(numbers: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Span:
    """Of many trials together, whose mean counts."""
    return Span.sure(float(numbers.mean()))


def _stage_span(name: str, scaled: Sequence[tuple[TaskResults, float]]) -> Span:
    seconds = [
        scale * (stage.saved if stage.taken_over else stage.seconds)
        for results, scale in scaled
        for full, stage in results.stages.items()
        if full.partition("-")[0] == name
    ]
    return Span.sure(fmean(seconds))


def _tokens_of(results: TaskResults, storage: Storage) -> float | None:
    return _stored_tokens(storage.artifacts / results.stages["data"].artifact) if "data" in results.stages else None


def _stored_tokens(artifact: Path) -> float | None:
    """How many tokens an artifact's training examples have, by the head of its file; None where it is not there."""
    file = artifact / TRAIN
    if not file.is_file():
        return None
    with file.open("rb") as content:
        header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
    return float(header["input_ids"]["shape"][0])


def _megabytes(metrics: Iterator[Mapping[str, float]]) -> float | None:
    return max((found["megabytes"] for found in metrics if "megabytes" in found), default=None)


def probed(space: Space, data: TaskData, cores: int, run: RunSteps = time_steps, place: str = "this machine") -> Pace:
    """By a few steps of teacher and student, which `run` makes at a place. A stage would have so many cores.

    Raises:
        StepError: they cannot be made.

    """
    teacher, student = run(_probe(space, data, cores), PROBE_LIMIT)
    longest, count = space.training.max_length, len(data.train)
    weight = tokens(data, longest) / count / teacher.tokens  # of an example, in examples that were tried
    step = {"teacher": fmean(teacher.training) * weight, "student": fmean(student.training) * weight}
    ranks = space.resources.ranks
    finetune = space.teacher.finetune.epochs if space.teacher.finetune else 0
    scored = min(count, space.scoring.examples or count)
    reading = teacher.reading * weight * count / ranks
    epoch = EVALUATION * step["student"] * count / ranks
    seconds = {
        "data": 0.0005 * count + 1.0,
        "teacher": EVALUATION * finetune * step["teacher"] * count / ranks,
        "logits": reading,
        "trial_student": epoch * space.training.epochs,
        "scores": SCORING * step["teacher"] * scored,
        "importance": SCORING * step["teacher"] * scored,
    }
    return Pace(
        stages={name: Span.sure(found).within(PROBED) for name, found in seconds.items()},
        start=Span.sure(TRIAL_START + reading).within(PROBED),
        epoch=Span.sure(epoch).within(PROBED),
        source=f"a probe on {place} ({student.device}: {1 / fmean(student.training):.0f} examples a second)",
        student_megabytes=student.megabytes,
        teacher_megabytes=teacher.megabytes,
    )


def _probe(space: Space, data: TaskData, cores: int) -> list[Steps]:
    """The steps of teacher and student."""
    tried = min(PROBE_BATCHES * space.training.batch_size, len(data.train))
    places = np.linspace(0, len(data.train) - 1, tried).astype(int)
    pairs = data.train.pairs
    read = Texts(
        tokenizer=space.student.model or space.teacher.model,
        texts=tuple(data.train.texts[place] for place in places),
        pairs=None if pairs is None else tuple(pairs[place] for place in places),
    )
    whole = space.student.model_copy(update={"init": "pretrained", "model": space.teacher.model})
    outputs = max(1, data.task.outputs)

    def steps(training: TrainingConfig, model: Untrained, threads: int) -> Steps:
        return Steps(
            training=training, deepspeed=space.deepspeed, model=model, read=read, threads=threads, seconds=PROBE_SECONDS
        )

    teacher = Untrained(teacher=space.teacher.model, student=whole, outputs=outputs)
    student = Untrained(teacher=space.teacher.model, student=space.student, outputs=outputs)
    return [
        steps(space.teacher.finetune or space.training, teacher, cores),
        steps(space.training, student, space.resources.cpus_per_rank),
    ]
