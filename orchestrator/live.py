"""What a terminal shows below the lines of a sweep: how far the task has come, in as many rows as fit."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from threading import RLock

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text
from typing_extensions import override

from stkd.orchestrator.progress import Progress, doing
from stkd.orchestrator.results import Phase, Session, TrialResult
from stkd.orchestrator.tables import clock, percent
from stkd.orchestrator.time_lines import held_line

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH, LEAST_CURVE = 16, 5
HEADINGS = ("student", "epoch", "time", "score")
LABEL_WIDTH = 10
GAP = 2
LEAST_ROWS = 4
MEASURES = {"teacher": "teacher", "trial_student": "student of the dense teacher"}
BAR_WIDTH = 24
SHARE_OF_HEIGHT = 0.6
"""So much of a screen the region takes at most; the lines above it have the rest."""
KEPT_LINES = 200
REFRESHES = 4
"""In a second."""
LATER: dict[Phase, str] = {"control": "controls", "confirm": "confirmations"}
PHASES: dict[Phase, str] = {"search": "search", "control": "controls", "confirm": "confirm"}


def sparkline(scores: Sequence[float], lowest: float, highest: float, width: int = CURVE_WIDTH) -> str:
    """The last so many scores as blocks, between these two; equal curves look equal in every row."""
    span = highest - lowest
    shares = [(score - lowest) / span if span > 0 else 0.5 for score in scores[-width:]]
    return "".join(BLOCKS[round(min(1.0, max(0.0, share)) * (len(BLOCKS) - 1))] for share in shares)


class View:
    """Rows of text about a task's progress, each of them one line at any width."""

    def __init__(self, progress: Progress, held: Callable[[], Session] | None) -> None:
        self._progress, self._held = progress, held

    def draw(self, width: int, height: int) -> RenderableType:
        """Everything, for a screen of this size."""
        with self._progress.lock:
            above = [self._header(width), *self._stage(), *self._bar(), *self._later(), *self._rungs()]
            below = [*self._best(), *self._failed(), *self._devices()]
            room = max(LEAST_ROWS, int(height * SHARE_OF_HEIGHT) - len(above) - len(below))
            rows = [*above, *self._running(width, room), *below]
        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
        return Group(*rows[: max(1, height - 1)])

    def _header(self, width: int) -> Text:
        progress, tasks = self._progress, self._progress.space.tasks
        name = progress.task
        if len(tasks) > 1 and name in tasks:
            name += f" (task {tasks.index(name) + 1} of {len(tasks)})"
        time, left = clock(progress.seconds()), progress.seconds_left()
        if progress.interruption:
            time += f", {progress.interruption}"
        elif left is not None:
            until = datetime.now().astimezone() + timedelta(seconds=left)
            time += f", about {clock(left)} left, until {until:%H:%M}"
        rule = "─" * max(2, width - len(name) - len(time) - 2)
        return Text.assemble((name, "bold"), (f" {rule} ", "dim"), (time, "yellow" if progress.interruption else ""))

    def _stage(self) -> Iterator[Text]:
        progress, stage = self._progress, self._progress.stage
        if stage is None:
            if progress.phase is None:
                yield _labelled("now", progress.doing)
            return
        row = _labelled("now", doing(stage.name))
        if stage.epoch:
            score = percent(stage.scores[-1])
            row.append(f": epoch {stage.epoch} of {stage.epochs}, score {score}, loss {stage.loss:.3f}  ")
            row.append(sparkline(stage.scores, min(stage.scores), max(stage.scores)), "cyan")
        yield row

    def _bar(self) -> Iterator[Text]:
        progress = self._progress
        if progress.phase is None:
            return
        ended = len(progress.ended())
        full = round(BAR_WIDTH * min(1.0, ended / max(1, progress.announced)))
        row = _labelled(PHASES[progress.phase], Text("━" * full, "green"))
        row.append("─" * (BAR_WIDTH - full), "dim").append(f" {ended} of {progress.announced}")
        yield row.append(f", {len(progress.running)} running")

    def _later(self) -> Iterator[Text]:
        counts = [f"{count} {LATER[phase]}" for phase, count in self._progress.later()]
        if counts:
            yield _labelled("then", ", ".join(counts))

    def _rungs(self) -> Iterator[Text]:
        found = [f"epoch {rung}: {stopped} of {came} stopped" for rung, came, stopped in self._progress.rungs()]
        if found and self._progress.phase == "search":
            yield _labelled("rungs", ", ".join(found))

    def _running(self, width: int, room: int) -> Iterator[Text]:
        """The running trials, best first: as many as there is room for, and how many more there are."""
        progress = self._progress
        ranked = sorted((progress.trials[trial] for trial in progress.running), key=lambda trial: -trial.score)
        if not ranked:
            return
        shown = ranked if len(ranked) < room else ranked[: room - 2]
        scores = [score for trial in shown for score in progress.curves.get(trial.trial, ())]
        lowest, highest = min(scores, default=0.0), max(scores, default=1.0)
        rows = [self._cells(trial) for trial in shown]
        names, *others = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
        names = min(
            names, max(len(HEADINGS[0]), width - LABEL_WIDTH - sum(others) - GAP * len(others) - GAP - LEAST_CURVE)
        )
        curve = width - LABEL_WIDTH - names - sum(others) - GAP * (len(others) + 1)
        yield _labelled("running", Text(_row(HEADINGS, names, others) + " " * GAP + "curve", "dim"))
        for trial, cells in zip(shown, rows, strict=True):
            curve_text = sparkline(
                progress.curves.get(trial.trial, []), lowest, highest, min(CURVE_WIDTH, max(1, curve))
            )
            yield _labelled("", _row(cells, names, others) + " " * GAP).append(curve_text, "cyan")
        if len(shown) < len(ranked):
            yield _labelled("", Text(f"and {len(ranked) - len(shown)} more", "dim"))

    def _cells(self, trial: TrialResult) -> Sequence[str]:
        progress = self._progress
        epochs, time = f"{trial.epochs}/{progress.epochs_of(trial)}", clock(progress.running_for(trial.trial))
        return trial.name, epochs, time, percent(trial.score) if trial.metrics else ""

    def _best(self) -> Iterator[Text]:
        best = self._progress.best()
        if best is not None:
            yield _labelled("best", Text(percent(best.score), "bold green")).append(f"  {best.name}")
        scores = [
            f"{name} {percent(stage.metrics['score'])}"
            for key, name in MEASURES.items()
            if (stage := self._progress.stages.get(key)) and "score" in stage.metrics
        ]
        if scores:
            yield _labelled("against", ", ".join(scores))

    def _failed(self) -> Iterator[Text]:
        last = self._progress.last_failure
        if last is not None:
            row = _labelled("failed", Text(str(self._progress.failed()), "bold red"))
            yield row.append(f", the last: {last.name}: {last.reason}")

    def _devices(self) -> Iterator[Text]:
        if self._held is not None:
            yield _labelled("devices", held_line(self._held(), self._progress.trials))


def _labelled(label: str, text: str | Text) -> Text:
    return Text.assemble((f"{label:<{LABEL_WIDTH}}", "dim"), text)


def _row(cells: Sequence[str], first: int, others: Sequence[int]) -> str:
    """Cells side by side, the first one cut to its width, the others right-aligned."""
    name = Text(cells[0])
    name.truncate(first, overflow="ellipsis", pad=True)
    return (" " * GAP).join([name.plain, *(f"{cell:>{width}}" for cell, width in zip(cells[1:], others, strict=True))])


class Region(Live):
    """Shows a view below the lines of a console. When the terminal changes its size, both are drawn anew."""

    def __init__(self, console: Console, view: View) -> None:
        self._size = console.size
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._printing = RLock()
        super().__init__(
            console=console,
            get_renderable=lambda: view.draw(*console.size),
            transient=True,
            refresh_per_second=REFRESHES,
            redirect_stdout=False,
        )

    def print(self, line: str) -> None:
        """Print a line above the region."""
        with self._printing:
            self._lines.append(line)
            print_plainly(self.console, line)

    @override
    def refresh(self) -> None:
        """Draw the region; what a changed width has folded cannot be erased line by line, so that all is cleared."""
        if self.console.size != self._size:
            with self._printing:
                self._size = self.console.size
                self.console.clear()
                for line in list(self._lines)[-self._size.height :]:
                    print_plainly(self.console, line)
        super().refresh()


def print_plainly(console: Console, line: str) -> None:
    """A line of text as it is, folded by the terminal alone."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
