"""What a sweep shows while it works."""

from collections.abc import Mapping
from time import monotonic

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from typing_extensions import override

from stkd.orchestrator.cost_book import in_words, interruptions
from stkd.orchestrator.events import Observer
from stkd.orchestrator.results import Phase, StageResult, StudentCost, TrialResult
from stkd.orchestrator.tables import clock, percent
from stkd.trainers.costs import Cost
from stkd.trainers.sources import TaskData

STAGES = {
    "data": "tokenising the data",
    "student_data": "tokenising the data for the student",
    "teacher": "fine-tuning the teacher",
    "logits": "running the dense teacher over the training data",
    "trial_student": "distilling the trial student from the dense teacher",
    "importance": "scoring the teacher's heads and neurons for the student's cut",
    "scores": "scoring the teacher's heads and neurons",
    "packing": "trying how many trials to run side by side",
}
PHASES = {"search": "trial", "control": "control", "confirm": "confirmation"}
SUMMARY_SECONDS = 15.0


def doing(stage: str) -> str:
    """What a stage does, and for which student where there are several: `scores-layers=4`."""
    name, _, student = stage.partition("-")
    return f"{STAGES[name]} ({student})" if student else STAGES[name]


class Display(Observer):
    """One line for each thing that ends; on a terminal, a last line that says what goes on. Plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = monotonic()
        self._live: Progress | None = None
        self._phase, self._trials = "trial", 0
        self._trials_start: float | None = None
        self._running: dict[str, TrialResult] = {}
        self._ended: dict[str, TrialResult] = {}
        self._epochs_now = 0
        self._last_summary = float("-inf")

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        train, validation, test = (len(split) for split in (data.train, data.validation, data.test))
        verb = "goes on" if resumed else "begins"
        self._line(f"{data.task.name} {verb}: {train:,} training, {validation:,} validation, {test:,} test examples")
        for name, split in (("validation", data.validation), ("test", data.test)):
            if repeated := split.count_in(data.train):
                share = percent(repeated / len(split))
                self._line(f"note: {repeated:,} {name} examples ({share} %) are in the training data, word for word")
        if self._console.is_terminal:
            one_line = Column(no_wrap=True, overflow="ellipsis")
            text = TextColumn("{task.description}", markup=False, table_column=one_line)
            columns = (SpinnerColumn(), TimeElapsedColumn(), text)
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.add_task("starting", total=None)
            self._live.start()

    @override
    def stage_started(self, stage: str) -> None:
        self._show(doing(stage))

    @override
    def waiting(self, reason: str) -> None:
        self._line(reason)

    def warned(self, text: str) -> None:
        """Something is wrong, and is being seen to; called from any thread."""
        self._line(text)

    @override
    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        text = f"{doing(stage)}: epoch {epoch} of {epochs}, loss {report['loss']:.3f}, score {percent(report['score'])}"
        self._show(text)

    @override
    def stage_lost(self, stage: str, reason: str) -> None:
        self._line(f"stage {stage.replace('_', ' ')}: {reason}; it begins anew")

    @override
    def stage_finished(self, result: StageResult) -> None:
        name = result.name.replace("_", " ")
        score = f"score {percent(result.metrics['score'])}" if "score" in result.metrics else "ready"
        if name == "packing":
            score = f"{result.metrics['jobs']:.0f} trials side by side are fastest"
        origin = "taken over from an earlier sweep" if result.taken_over else f"took {clock(result.seconds)}"
        self._line(f"{name}: {score}, {origin}")

    @override
    def phase_started(self, phase: Phase, trials: int) -> None:
        self._phase, self._trials = PHASES[phase], trials
        self._trials_start = None
        self._running, self._ended = {}, {}
        self._epochs_now = 0

    @override
    def trial_started(self, trial: TrialResult) -> None:
        if self._trials_start is None:
            self._trials_start = monotonic()
        self._running[trial.trial] = trial
        self._show_trials()

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        if trial.note and trial.note != self._running.get(trial.trial, trial).note:
            self._line(f"{trial.name}: {trial.note}")
        self._running[trial.trial] = trial
        self._epochs_now += 1
        self._show_trials()

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        self._running.pop(trial.trial, None)
        self._ended[trial.trial] = trial
        outcome = {
            "finished": f"score {percent(trial.score)} after {_epochs(trial.epochs)}",
            "stopped": f"score {percent(trial.score)}, stopped early after {_epochs(trial.epochs)}",
            "failed": f"failed: {trial.reason}",
        }.get(trial.status, trial.status)
        self._line(f"{self._phase} {len(self._ended)} of {self._trials} ({trial.name}): {outcome}")
        self._show_trials()

    @override
    def measuring_started(self) -> None:
        self._show("measuring what the best student costs")

    @override
    def measured(self, cost: StudentCost) -> None:
        found = Cost.model_validate(cost.cost)
        verdict = f"is over the budget, since {' and '.join(cost.over)}" if cost.over else "keeps the budget"
        self._line(f"the best student {verdict}: {in_words(found)}{interruptions(found)}")

    @override
    def task_ended(self, finished: bool) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _summary(self) -> str:
        """Trials done and running, best so far, time left."""
        parts = [f"{self._phase}s: {len(self._ended)} of {self._trials} done, {len(self._running)} running"]
        left = self._seconds_left()
        if left is not None:
            parts.append(f"about {clock(left)} left")
        known = [trial for trial in (*self._ended.values(), *self._running.values()) if trial.student]
        if known:
            best = max(known, key=lambda trial: trial.score)
            parts.append(f"best {percent(best.score)} ({best.name})")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """The mean cost of a trial so far times those to come; None before the first one has ended in this session."""
        if self._trials_start is None or not self._ended or not self._epochs_now:
            return None
        ended_epochs = sum(trial.epochs for trial in self._ended.values())
        per_epoch = (monotonic() - self._trials_start) / self._epochs_now
        per_trial = ended_epochs / len(self._ended)
        begun = sum(trial.epochs for trial in self._running.values())
        expected = (self._trials - len(self._ended)) * per_trial - begun
        return max(0.5 * len(self._running), expected) * per_epoch

    def _show_trials(self) -> None:
        """The summary; where each one is a line of its own, at most one in a while."""
        if self._live is None and monotonic() - self._last_summary < SUMMARY_SECONDS:
            return
        self._last_summary = monotonic()
        self._show(self._summary())

    def _show(self, text: str) -> None:
        if self._live is not None:
            self._live.update(self._live.task_ids[0], description=text)
        else:
            self._line(text)

    def _line(self, text: str) -> None:
        self._console.print(f"[{self._clock()}] {text}", markup=False, highlight=False, soft_wrap=True)

    def _clock(self) -> str:
        return clock(monotonic() - self._start)


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
