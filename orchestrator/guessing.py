"""Whether students have learned anything: a ranking of those that have not says nothing."""

from collections.abc import Mapping
from functools import cached_property
from math import sqrt

import numpy as np

from stkd.orchestrator.results import TaskResults
from stkd.search_spaces.schema import Space
from stkd.trainers.metrics import guessing_score
from stkd.trainers.sources import TaskData

MANY = 0.5
"""Share of the search's students without whom its ranking is worth little."""


class Guessing:
    """Knows what a task's validation examples give to whoever answers them all alike, and who is no better than that.

    A student counts as better when it is so by more than the standard error of such a score.
    """

    def __init__(self, space: Space, data: TaskData) -> None:
        self._space, self._data = space, data

    @cached_property
    def _score(self) -> float:
        return guessing_score(self._data.task, np.asarray(self._data.validation.labels))

    def _only_guesses(self, metrics: Mapping[str, float]) -> bool:
        """Whether a model of these metrics, the best score among them, only guesses."""
        error = sqrt(max(0.0, self._score * (1 - self._score)) / len(self._data.validation))
        return max(metrics["score"], metrics.get("best_score", 0.0)) <= self._score + error

    def of_trial_student(self, results: TaskResults) -> str | None:
        """What there is to say of the trial student, before a search is paid for."""
        stage = results.stages.get("trial_student")
        if stage is None or not self._only_guesses(stage.metrics):
            return None
        return f"the trial student (score {100 * stage.metrics['score']:.1f}) {self._advice()}"

    def of_search(self, results: TaskResults) -> str | None:
        """What there is to say of the search's students, if it is so of many."""
        ranked = results.ranked()
        guess = [trial for trial in ranked if self._only_guesses(trial.metrics)]
        if not ranked or len(guess) < MANY * len(ranked):
            return None
        return (
            f"{len(guess)} of {len(ranked)} students, whose ranking therefore says little, {self._advice(len(guess))}"
        )

    def _advice(self, students: int = 1) -> str:
        verb = "is" if students == 1 else "are"
        student, training = self._space.student, self._space.training
        other_layers = student.init == "drop_layers" and student.keep != "even"
        change = [
            *(["--set student.keep=even"] if other_layers else []),
            f"more than {training.epochs} training.epochs",
            f"a training.learning_rate above {training.learning_rate:g}",
        ]
        return (
            f"{verb} no better than the same answer to every example ({100 * self._score:.1f}): "
            f"try {', '.join(change[:-1])} or {change[-1]}"
        )
