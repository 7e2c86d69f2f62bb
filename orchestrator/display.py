"""What a sweep tells people while it works."""

from collections.abc import Callable, Mapping
from time import monotonic

from rich.console import Console
from typing_extensions import override

from stkd.orchestrator.cost_book import in_words, interruptions
from stkd.orchestrator.events import Observer
from stkd.orchestrator.live import Region, print_plainly
from stkd.orchestrator.progress import Progress, doing
from stkd.orchestrator.results import Phase, StageResult, StudentCost, TrialResult
from stkd.orchestrator.tables import clock, percent
from stkd.orchestrator.time_left import seconds_per_epoch
from stkd.trainers.costs import Cost
from stkd.trainers.sources import TaskData

PHASES: dict[Phase, str] = {"search": "trial", "control": "control", "confirm": "confirmation"}
SUMMARY_SECONDS = 300.0
"""Between two lines in a log that nothing but time has led to."""


class Display(Observer):
    """One line for each thing that ends. On a terminal a region below the lines shows what goes on.

    `progress` hears of every event before this does. `region` makes the region, where there is one.
    """

    def __init__(self, console: Console, progress: Progress, region: Callable[[], Region] | None = None) -> None:
        self._console, self._progress, self._make_region = console, progress, region
        self._region: Region | None = None
        self._start = monotonic()
        self._notes: dict[str, str] = {}
        self._last_summary = float("-inf")

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        if self._make_region is not None:
            self._region = self._make_region()
            self._region.start()
        train, validation, test = (len(split) for split in (data.train, data.validation, data.test))
        verb = "goes on" if resumed else "begins"
        self._line(f"{data.task.name} {verb}: {train:,} training, {validation:,} validation, {test:,} test examples")
        for name, split in (("validation", data.validation), ("test", data.test)):
            if repeated := split.count_in(data.train):
                share = percent(repeated / len(split))
                self._line(f"note: {repeated:,} {name} examples ({share} %) are in the training data, word for word")

    @override
    def stage_started(self, stage: str) -> None:
        self._passing(doing(stage))

    @override
    def waiting(self, reason: str) -> None:
        self._line(reason)

    @override
    def warned(self, text: str) -> None:
        self._line(text)

    @override
    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        progress = f"epoch {epoch} of {epochs}, loss {report['loss']:.3f}, score {percent(report['score'])}"
        self._passing(f"{doing(stage)}: {progress}")

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
    def trial_started(self, trial: TrialResult) -> None:
        self._summarise()

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        if trial.note and trial.note != self._notes.get(trial.trial):
            self._notes[trial.trial] = trial.note
            self._line(f"{trial.name}: {trial.note}")
        self._summarise()

    @override
    def trial_retried(self, trial: TrialResult) -> None:
        self._line(f"{trial.name} failed after {_epochs(trial.epochs)}, and is tried again from there")

    @override
    def trial_paused(self, trial: TrialResult) -> None:
        score = f"score {percent(trial.score)} " if trial.metrics else ""
        self._line(f"{trial.name}: {score}after {_epochs(trial.epochs)}; a resume goes on from there")

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        outcome = {
            "finished": f"score {percent(trial.score)} after {_epochs(trial.epochs)}",
            "stopped": f"score {percent(trial.score)}, stopped early after {_epochs(trial.epochs)}",
            "failed": f"failed: {trial.reason}",
        }.get(trial.status, trial.status)
        progress = self._progress
        ended = f"{PHASES[trial.phase]} {len(progress.ended())} of {progress.announced}"
        self._line(f"{ended} ({trial.name}): {outcome}")
        self._summarise()

    @override
    def interrupted(self, running: int, at_once: bool) -> None:
        if at_once:
            self._line("stopping at once")
            return
        if not running:  # between two trials
            self._line("stopping")
            return
        pace = seconds_per_epoch(self._progress.trials.values())
        takes = f" (one takes about {clock(pace)})" if pace else ""
        whose = "1 trial finishes its epoch" if running == 1 else f"{running} trials finish their epochs"
        self._line(f"stopping: {whose}{takes}, so that a resume loses nothing; Ctrl-C again stops at once")

    @override
    def measuring_started(self) -> None:
        self._passing("measuring what the best student costs")

    @override
    def measured(self, cost: StudentCost) -> None:
        found = Cost.model_validate(cost.cost)
        verdict = f"is over the budget, since {' and '.join(cost.over)}" if cost.over else "keeps the budget"
        self._line(f"the best student {verdict}: {in_words(found)}{interruptions(found)}")

    @override
    def task_ended(self, finished: bool) -> None:
        if self._region is not None:
            self._region.stop()
            self._region = None

    def _summary(self) -> str:
        """Trials done and running, best so far, time left."""
        progress = self._progress
        name = f"{PHASES[progress.phase or 'search']}s"
        parts = [f"{name}: {len(progress.ended())} of {progress.announced} done, {len(progress.running)} running"]
        left = progress.seconds_left()
        if left is not None:
            parts.append(f"about {clock(left)} left")
        best = progress.best()
        if best is not None:
            parts.append(f"best {percent(best.score)} ({best.name})")
        return ", ".join(parts)

    def _summarise(self) -> None:
        """In a log, a line about the whole now and then."""
        if self._region is None and monotonic() - self._last_summary >= SUMMARY_SECONDS:
            self._last_summary = monotonic()
            self._line(self._summary())

    def _passing(self, text: str) -> None:
        """What a region shows anyway."""
        if self._region is None:
            self._line(text)

    def _line(self, text: str) -> None:
        line = f"[{clock(monotonic() - self._start)}] {text}"
        if self._region is None:
            print_plainly(self._console, line)
        else:
            self._region.print(line)


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
