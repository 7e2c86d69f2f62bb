"""What a sweep shows while it works, and what it ends with."""

from collections.abc import Mapping
from time import monotonic

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from typing_extensions import override

from stkd.orchestrator.events import Observer
from stkd.orchestrator.results import SHORT_NAMES, StageResult, TaskResults, TrialResult
from stkd.trainers.metrics import METRICS
from stkd.trainers.sources import TaskData

STAGES = {
    "data": "tokenising the data",
    "teacher": "fine-tuning the teacher",
    "trial_student": "distilling the trial student from the dense teacher",
    "scores": "scoring the teacher's heads and neurons",
}
SHOWN_TRIALS = 10
SUMMARY_SECONDS = 15.0


class Display(Observer):
    """One line for each thing that ends; on a terminal, a last line that says what goes on. Plain lines elsewhere."""

    def __init__(self, console: Console, trials: int) -> None:
        self._console, self._trials = console, trials
        self._start = monotonic()
        self._live: Progress | None = None
        self._trials_start: float | None = None
        self._running: dict[str, TrialResult] = {}
        self._ended: dict[str, TrialResult] = {}
        self._epochs_now = 0
        self._last_summary = float("-inf")

    @override
    def task_started(self, data: TaskData, resumed: bool) -> None:
        train, validation = len(data.train.texts), len(data.validation.texts)
        verb = "goes on" if resumed else "begins"
        self._line(f"{data.task.name} {verb}: {train:,} training and {validation:,} validation examples")
        if self._console.is_terminal:
            one_line = Column(no_wrap=True, overflow="ellipsis")
            text = TextColumn("{task.description}", markup=False, table_column=one_line)
            columns = (SpinnerColumn(), TimeElapsedColumn(), text)
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.add_task("starting", total=None)
            self._live.start()

    @override
    def stage_started(self, stage: str) -> None:
        self._show(STAGES[stage])

    @override
    def stage_epoch(self, stage: str, epoch: int, epochs: int, report: Mapping[str, float]) -> None:
        text = (
            f"{STAGES[stage]}: epoch {epoch} of {epochs}, loss {report['loss']:.3f}, score {_percent(report['score'])}"
        )
        self._show(text)

    @override
    def stage_finished(self, result: StageResult) -> None:
        name = result.name.replace("_", " ")
        score = f"score {_percent(result.metrics['score'])}" if "score" in result.metrics else "ready"
        origin = "taken over from an earlier sweep" if result.taken_over else f"took {_clock(result.seconds)}"
        self._line(f"{name}: {score}, {origin}")

    @override
    def trial_started(self, trial: TrialResult) -> None:
        if self._trials_start is None:
            self._trials_start = monotonic()
        self._running[trial.trial] = trial
        self._show_trials()

    @override
    def trial_epoch(self, trial: TrialResult, report: Mapping[str, float]) -> None:
        self._running[trial.trial] = trial
        self._epochs_now += 1
        self._show_trials()

    @override
    def trial_ended(self, trial: TrialResult) -> None:
        self._running.pop(trial.trial, None)
        self._ended[trial.trial] = trial
        outcome = {
            "finished": f"score {_percent(trial.score)} after {_epochs(trial.epochs)}",
            "stopped": f"score {_percent(trial.score)}, stopped early after {_epochs(trial.epochs)}",
            "failed": f"failed: {trial.reason}",
        }.get(trial.status, trial.status)
        self._line(f"trial {len(self._ended)} of {self._trials} ({trial.name}): {outcome}")
        self._show_trials()

    @override
    def task_ended(self, finished: bool) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _summary(self) -> str:
        """Trials done and running, best so far, time left."""
        parts = [f"trials: {len(self._ended)} of {self._trials} done, {len(self._running)} running"]
        left = self._seconds_left()
        if left is not None:
            parts.append(f"about {_clock(left)} left")
        known = [trial for trial in (*self._ended.values(), *self._running.values()) if trial.student]
        if known:
            best = max(known, key=lambda trial: trial.score)
            parts.append(f"best {_percent(best.score)} ({best.name})")
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
        return _clock(monotonic() - self._start)


def results_table(results: TaskResults) -> Table:
    """The best trials, with the teacher and the dense teacher's student above them. Scores are percentages."""
    ranked = results.ranked()
    keys = list(ranked[0].values) if ranked else []
    measures = _measures(ranked[0].metrics) if ranked else []
    table = Table(title=f"{results.task}: the best students of {len(results.trials)} trials", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in (*(_heading(key) for key in keys), "score", *measures, "epoch", "trial"):
        table.add_column(heading, justify="right", overflow="fold")
    for stage, label in (("teacher", "teacher"), ("trial_student", "dense teacher's student")):
        if stage in results.stages:
            _add_row(table, label, [""] * len(keys), results.stages[stage].metrics, measures, "")
    table.add_section()
    for place, trial in enumerate(ranked[:SHOWN_TRIALS], start=1):
        values = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial.values.values()]
        _add_row(table, f"student {place}", values, trial.metrics, measures, trial.status)
    return table


def size_line(results: TaskResults) -> str:
    """What the best student weighs and how fast it answers, beside the teacher."""
    ranked = results.ranked()
    parts = []
    for label, metrics in (
        ("student", ranked[0].metrics if ranked else {}),
        ("teacher", results.stages["teacher"].metrics if "teacher" in results.stages else {}),
    ):
        if "megabytes" in metrics:
            size = f"{metrics['parameters'] / 1e6:.1f}M parameters, {metrics['megabytes']:.0f} MB"
            parts.append(f"{label}: {size}, {metrics['milliseconds_per_example']:.1f} ms for one example")
    return "; ".join(parts)


def _heading(key: str) -> str:
    setting = key.rpartition(".")[2]
    return SHORT_NAMES.get(setting, setting)


def _measures(metrics: Mapping[str, float]) -> list[str]:
    """The task's metrics, where they are not the score itself."""
    names = [name for name in METRICS if name in metrics]
    return names if len(names) > 1 else []


def _add_row(
    table: Table, label: str, values: list[str], metrics: Mapping[str, float], measures: list[str], status: str
) -> None:
    table.add_row(
        label,
        *values,
        _percent(metrics["score"]),
        *(_percent(metrics[measure]) for measure in measures),
        f"{metrics['epoch']:.0f}" if "epoch" in metrics else "",
        status,
    )


def _percent(score: float) -> str:
    return f"{100 * score:.1f}"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
