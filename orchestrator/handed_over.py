"""A student as it is handed over, with all that its card tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stkd.orchestrator.results import Interval
from stkd.orchestrator.runs import Run
from stkd.search_spaces.schema import Space
from stkd.trainers.costs import Conditions, Cost
from stkd.trainers.form_names import Form
from stkd.trainers.tasks import find_task


@dataclass(frozen=True)
class ModelFile:
    """One form in which a student is handed over."""

    form: Form
    name: str
    megabytes: float
    score: float
    """On the selection split, in 0..1."""
    cost: Cost
    largest_difference: float | None = None
    """How far its logits there lie from the student's in PyTorch at most; None for PyTorch's own."""


@dataclass(frozen=True)
class HandedOver:
    """A student in all its forms."""

    student: Run
    space: Space
    """As the sweep was run."""
    config: Mapping[str, Any]
    """The student's config.json."""
    pruned: bool
    files: Sequence[ModelFile]
    teacher: Cost
    """Of the teacher in PyTorch."""
    conditions: Conditions
    """Under which latencies were measured, but for the form."""
    processor: str
    data: str
    """The fingerprint of the data that it learned from."""
    versions: Mapping[str, str]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Of scores on the test split, by model."""
    lacking: str = ""
    """Why it is not here as ONNX, though it was to be."""

    @property
    def settled(self) -> Space:
        """The space with the values of the student's trial."""
        return self.space.with_values(self.student.trial.values)

    def file(self, form: Form) -> ModelFile | None:
        """The form, if it is there."""
        return next((file for file in self.files if file.form == form), None)


def reads_pairs(space: Space, task: str) -> bool:
    """Whether an example of the task is two texts."""
    if space.data.source == "files":
        return space.data.text_pair is not None
    known = find_task(task)
    layout = known.tsv or known.hub
    return layout is not None and len(layout.texts) > 1
