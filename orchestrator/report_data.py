"""What a report tells of one task of a sweep, gathered from what lies in the storage."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stkd.orchestrator.account import Account
from stkd.orchestrator.curves import Curve, read_curves, read_parameters
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.results import (
    Confirmed,
    FinalScore,
    Interval,
    StageResult,
    StudentCost,
    TaskResults,
    TrialResult,
)
from stkd.orchestrator.runs import Run
from stkd.search_spaces.schema import Space
from stkd.trainers.ranking import Mask, Scores, UnitScores
from stkd.trainers.specs import SCORES


@dataclass(frozen=True)
class Ranked:
    """What units (L, U) were ranked by, and which of them the chosen student's teacher has kept."""

    scores: Scores
    kept: Mask


@dataclass(frozen=True)
class TaskReport:
    """One task that has a student."""

    storage: Storage
    sweep: SweepFolder
    space: Space
    results: TaskResults
    chosen: TrialResult

    @classmethod
    def of(cls, storage: Storage, sweep: SweepFolder, space: Space, results: TaskResults) -> "TaskReport | None":
        """None where no student was found yet."""
        chosen = chosen_trial(results)
        return cls(storage, sweep, space, results, chosen) if chosen else None

    @property
    def task(self) -> str:
        """Its name."""
        return self.results.task

    @property
    def run(self) -> Run:
        """The chosen trial."""
        return Run(self.storage, self.sweep, self.results, self.chosen)

    @property
    def teacher(self) -> StageResult | None:
        """The dense teacher."""
        return self.results.stages.get("teacher")

    @property
    def winner(self) -> Confirmed | None:
        """The chosen student's settings over their seeds."""
        evidence = self.results.evidence
        found = evidence.confirmed if evidence else ()
        return next((confirmed for confirmed in found if confirmed.role == "candidate"), None)

    @property
    def difference(self) -> Interval | None:
        """Sparse less dense, on the test split."""
        return self.results.evidence.difference if self.results.evidence else None

    def test(self, model: str) -> FinalScore | None:
        """A model on the test split."""
        return self.results.tests.get(model)

    @property
    def teacher_test(self) -> float | None:
        """The teacher's score on the test split."""
        found = self.test(self.teacher.artifact) if self.teacher else None
        return found.score if found else None

    @property
    def student_test(self) -> float | None:
        """The chosen student's score on the test split: over its seeds where it has several."""
        if self.winner:
            return self.winner.test.mean
        found = self.test(self.chosen.student)
        return found.score if found else None

    @property
    def cost(self) -> StudentCost | None:
        """What the chosen student costs to serve, where the sweep has a budget and so has measured it."""
        return self.results.costs.get(self.chosen.student)

    def best_control(self, role: str) -> TrialResult | None:
        """The best control of a role."""
        return next((trial for trial in self.results.ranked("control") if trial.role == role), None)

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """By trial and stage."""
        return read_curves(self.sweep, self.task)

    @cached_property
    def parameters(self) -> Mapping[str, str]:
        """What was told of the data as the task began."""
        return read_parameters(self.sweep, self.task)

    @cached_property
    def account(self) -> Account | None:
        """Where the time went."""
        return Account.of(self.space, self.results)

    @cached_property
    def made_with(self) -> Mapping[str, Any]:
        """What the chosen student was computed with."""
        found: Mapping[str, Any] = self.run.record(self.chosen.student).get("made_with", {})
        return found

    @cached_property
    def units(self) -> tuple[Ranked, Ranked] | None:
        """Heads and neurons of the teacher that the chosen student learned from; None where the scores are gone."""
        path = self.storage.artifacts / self.run.stage("scores") / SCORES
        if not path.is_file():
            return None
        space = self.space.with_values(self.chosen.values)
        scores = UnitScores.load(path)
        heads, neurons = scores.ranked_by(space.distillation, space.training.seed)
        kept = scores.kept(space.distillation, space.training.seed)
        return Ranked(heads, kept[0]), Ranked(neurons, kept[1])
