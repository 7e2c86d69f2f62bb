"""Scores of a teacher's units: from activations, against gradients of masks."""

from collections.abc import Iterator

from baselines import mask_gradients, padded_batches
from measuring import Goal, Row, Settings, in_turns, seconds
from transformers import PreTrainedModel
from workloads import LENGTHS, LONGEST, TASK, examples, student_of, teacher

from stkd.trainers.batches import EncodedExamples
from stkd.trainers.config import ScoringConfig
from stkd.trainers.loop import CachedTeacher, predict
from stkd.trainers.ranks import Ranks
from stkd.trainers.scores import score_units, scoring_batches

SCORING = ScoringConfig()


def rows(settings: Settings) -> Iterator[Row]:
    """A row for each task whose lengths are known."""
    for lengths in LENGTHS:
        yield _row(settings, lengths)


def _row(settings: Settings, lengths: str) -> Row:
    model = teacher(settings)
    student = student_of(model)
    data = examples(lengths, settings.size(512, 64), model.config.vocab_size)
    measured = in_turns(
        {
            "ours": lambda: seconds(lambda: _from_activations(model, student, data)),
            "theirs": lambda: seconds(lambda: _from_masks(model, student, data)),
        },
        settings.times(3),
    )
    what = f"scores of one teacher, {len(data)} examples, {lengths} lengths"
    against = "gradients of masks, all parameters trainable, two backward passes, padded to 128"
    return Row("scores", what, against, "s", measured["ours"], measured["theirs"], [Goal("faster", 4)])


def _from_activations(model: PreTrainedModel, student: PreTrainedModel, data: EncodedExamples) -> None:
    """As a sweep's stage does: the student's logits first, then one pass of the teacher, both sorted by length."""
    ranks = Ranks()
    followed = CachedTeacher(predict(student, data, ranks))
    batches = scoring_batches(data, SCORING, ranks.device)
    score_units(model, followed.logits, batches, TASK.kind, SCORING.temperature, SCORING.reduction)


def _from_masks(model: PreTrainedModel, student: PreTrainedModel, data: EncodedExamples) -> None:
    mask_gradients(model, student, padded_batches(data, SCORING.batch_size, LONGEST), SCORING.temperature)
