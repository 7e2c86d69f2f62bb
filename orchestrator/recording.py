"""Tells the tracker what happens: a run for the sweep and task, and under it one for each stage and each trial."""

from collections.abc import Mapping
from functools import partial
from math import isfinite

from typing_extensions import override

from stkd.orchestrator.account import Account
from stkd.orchestrator.events import Observer
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.heat_maps import Drawings, PictureError, draw_heat_maps
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.mlflow_view import NOTE, stage_note, sweep_note, trial_note, trial_tags
from stkd.orchestrator.records import flat
from stkd.orchestrator.report_data import TaskReport
from stkd.orchestrator.report_words import answer, how_sure
from stkd.orchestrator.results import Evidence, FinalScore, StageResult, StudentCost, TaskResults, TrialResult
from stkd.orchestrator.tracking import Tracker
from stkd.search_spaces.budgets import PERCENTILES
from stkd.search_spaces.schema import Space
from stkd.trainers.ranking import UnitScores
from stkd.trainers.sources import TaskData
from stkd.trainers.specs import SCORES
from stkd.trainers.stopwatch import PREFIX

OF_A_TRIAL = {"best_score", "epoch"}
"""Metrics that say nothing of a sweep."""


class Recorder(Observer):
    """Keeps the MLflow runs of one task. Keys are `<sweep>/<task>[/<stage or trial>]`, so that a resume finds them."""

    def __init__(self, tracker: Tracker, space: Space, sweep: SweepFolder, storage: Storage, task: str) -> None:
        self._tracker, self._space, self._storage = tracker, space, storage
        self._sweep, self._task, self._sweep_folder = sweep.sweep_id, task, sweep
        self._folder, self._budget = sweep.task(task), sweep.budget
        self._parent = f"{self._sweep}/{task}"
        self._pairs = False
        self._started: set[str] = set()
        self._drawings = Drawings()
        self._models: dict[str, set[str]] = {}
        """Runs by the artifact of the model that they made."""

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        self._pairs = data.train.pairs is not None
        params = {
            "task": self._task,
            "data.fingerprint": data.fingerprint,
            "task.kind": data.task.kind,
            "task.outputs": data.task.outputs,
            "examples.train": len(data.train),
            "examples.validation": len(data.validation),
            "examples.test": len(data.test),
            "examples.validation_in_train": data.validation.count_in(data.train),
            "examples.test_in_train": data.test.count_in(data.train),
            **flat(self._space.model_dump(exclude={"data", "tasks", "tracking", "storage", "search", "deepspeed"})),
            **flat({"data": self._space.data.model_dump(exclude_defaults=True) | {"source": self._space.data.source}}),
            **{f"search.{key}": str(value) for key, value in self._space.search.items()},
        }
        tags = {**self._tags("sweep"), NOTE: "No student is chosen yet: the sweep runs, or was stopped."}
        if self._budget.is_file():
            tags["stkd.budget"] = self._budget.read_text(encoding="utf-8")
        self._tracker.start_run(self._parent, f"{self._task} {self._sweep}", None, params, tags)

    @override
    def stage_started(self, stage: str) -> None:
        self._start_stage(stage)

    @override
    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        self._tracker.log_metrics(self._key(stage), report, epoch)

    @override
    def stage_finished(self, result: StageResult) -> None:
        tags = {
            "stkd.artifact": str(self._storage.artifacts / result.artifact),
            "stkd.taken_over": str(result.taken_over),
        }
        self._models.setdefault(result.artifact, set()).add(self._key(result.name))
        self._start_stage(result.name)
        self._tracker.set_tags(self._key(result.name), tags)
        final = result.metrics
        self._tracker.log_metrics(
            self._key(result.name), {**final, "seconds": result.seconds}, int(final.get("epoch", 0))
        )
        if result.name.partition("-")[0] == "scores":
            self._ask_for_heat_maps(result)
        self._tracker.end_run(self._key(result.name), "FINISHED")
        self._started.discard(result.name)

    def _ask_for_heat_maps(self, result: StageResult) -> None:
        """Have the scores drawn as this sweep's lambda mixes them, as soon as a trial runs: none waits for a core."""
        scores = UnitScores.load(self._storage.artifacts / result.artifact / SCORES)
        title = f"{self._task}, {result.name} of {self._sweep}"
        drawn = (scores, self._space.distillation.interpolation, title, self._folder.heat_maps(result.name))
        self._drawings.ask(self._key(result.name), partial(draw_heat_maps, *drawn))

    def _record_heat_maps(self) -> None:
        """Put what has been drawn with its stage; where that failed, the sweep goes on without."""
        for key, drawn in self._drawings.ready():
            if isinstance(drawn, PictureError):
                self._tracker.set_tags(key, {"stkd.heat_maps": f"none: {drawn}"})
            else:
                for path in drawn.values():
                    self._tracker.log_file(key, path, "heat-maps")

    @override
    def trial_started(self, trial: TrialResult) -> None:
        settings = self._space.with_values(trial.values)
        params = flat({"distillation": settings.distillation.model_dump(), "training": settings.training.model_dump()})
        self._drawings.begin()
        self._started.discard(trial.trial)
        self._start(trial.trial, trial.name, params, {**self._tags("trial"), **trial_tags(trial)})

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        self._record_heat_maps()
        self._tracker.log_metrics(self._key(trial.trial), report, int(report["epoch"]))

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        key = self._key(trial.trial)
        tags: dict[str, str] = {"stkd.status": trial.status}
        if trial.note:
            tags["stkd.note"] = trial.note
        if trial.reason:
            tags["stkd.failure"] = trial.reason
        if trial.student:
            student = self._storage.artifacts / trial.student
            tags["stkd.student"] = str(student)
            self._models.setdefault(trial.student, set()).add(key)
            self._tracker.log_student(key, student, self._pairs)
        self._tracker.set_tags(key, tags)
        self._tracker.end_run(key, "FAILED" if trial.status == "failed" else "FINISHED")
        self._started.discard(trial.trial)

    @override
    def task_ended(self, finished: bool) -> None:
        self._drawings.finish()
        self._record_heat_maps()
        for key in sorted(self._started):
            self._tracker.end_run(self._key(key), "KILLED")
        self._tracker.end_run(self._parent, "FINISHED" if finished else "KILLED")

    @override
    def tested(self, result: FinalScore) -> None:
        metrics = {f"test_{name}": value for name, value in result.metrics.items()}
        for key in sorted(self._models.get(result.model, ())):
            self._tracker.log_metrics(key, metrics, 0)

    @override
    def weighed(self, evidence: Evidence) -> None:
        self._tracker.set_tags(self._parent, {"stkd.verdict": evidence.verdict})
        found = evidence.difference
        if found and isfinite(found.low):
            metrics = {"sparse_minus_dense": found.mean, "sparse_minus_dense_low": found.low}
            self._tracker.log_metrics(self._parent, {**metrics, "sparse_minus_dense_high": found.high}, 0)

    @override
    def measured(self, cost: StudentCost) -> None:
        tags = {"stkd.latency": f"{cost.conditions}, on {cost.processor}", "stkd.over_budget": "; ".join(cost.over)}
        for key in sorted(self._models.get(cost.student, ())):
            self._tracker.log_metrics(key, _latency(cost), 0)
            self._tracker.set_tags(key, tags)

    def record_best(self, results: TaskResults) -> None:
        """Put the best student's figures on the parent run, and mark its trial."""
        best = chosen_trial(results)
        if best is None:
            return
        test = results.tests.get(best.student)
        tested = {f"test_{name}": value for name, value in test.metrics.items()} if test else {}
        cost = results.costs.get(best.student)
        if cost is not None:
            tested |= _latency(cost)
            self._tracker.set_tags(self._parent, {"stkd.latency": f"{cost.conditions}, on {cost.processor}"})
        found = {key: value for key, value in best.metrics.items() if not (key in OF_A_TRIAL or key.startswith(PREFIX))}
        self._tracker.log_metrics(self._parent, {**found, **tested}, 0)
        self._tracker.set_tags(self._parent, {"stkd.best_trial": best.trial, "stkd.best": best.name})
        self._tracker.set_tags(self._key(best.trial), {"stkd.best": "true"})
        report = TaskReport.of(self._storage, self._sweep_folder, self._space, results)
        assert report, "a student was chosen"
        said = (answer(report), how_sure(report), report.sweep.sweep_id, self._task, str(self._storage.root))
        self._tracker.set_tags(self._parent, {NOTE: sweep_note(*said)})
        self._tracker.set_tags(self._key(best.trial), {NOTE: f"**The student to take.** {trial_note(best)}"})

    def record_account(self, account: Account) -> None:
        """Put on the parent run what the devices were held for, in device-hours."""
        held = {"trials": account.trials, **account.stages, "lost": account.lost}
        saved = {"saved_by_stopping": account.saved_by_stopping, "saved_by_artifacts": account.saved_by_artifacts}
        hours = {f"{account.unit}_hours_{name}": seconds / 3600 for name, seconds in {**held, **saved}.items()}
        self._tracker.log_metrics(self._parent, {f"{account.unit}_hours": account.held / 3600, **hours}, 0)

    def _start_stage(self, stage: str) -> None:
        self._start(stage, stage.replace("_", " "), {}, {**self._tags(stage), NOTE: stage_note(stage)})

    def _start(self, key: str, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        if key not in self._started:
            self._started.add(key)
            self._tracker.start_run(self._key(key), f"{self._task} {name}", self._parent, params, tags)

    def _key(self, key: str) -> str:
        return f"{self._parent}/{key}"

    def _tags(self, kind: str) -> dict[str, str]:
        return {"stkd.sweep": self._sweep, "stkd.task": self._task, "stkd.kind": kind}


def _latency(cost: StudentCost) -> dict[str, float]:
    found = {f"latency_{name}_ms": cost.cost[name] for name in PERCENTILES}
    return {name: value for name, value in found.items() if value is not None}
