"""What a sweep ends with: its best students, what they are measured against, and what several seeds say. In percent."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table

from stkd.orchestrator.account import Account
from stkd.orchestrator.cost_book import in_words
from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.results import SHORT_NAMES, Evidence, Interval, Role, TaskResults
from stkd.orchestrator.time_lines import time_lines
from stkd.search_spaces.schema import Space
from stkd.trainers.costs import Cost

SHOWN_TRIALS = 10
WIDEST = 1000
OFFICIAL = "students were chosen and tested on the same official split, as in the paper: their scores are optimistic"
CONTROL_NAMES: Mapping[Role, str] = {
    "no teacher": "no teacher",
    "dense teacher": "dense teacher",
    "random teacher": "random units",
}


def print_results(console: Console, space: Space, results: TaskResults) -> None:
    """Print what is known of a task; nothing where no student is there."""
    if not results.ranked():
        return
    console.print()
    print_whole(console, results_table(results))
    console.print(size_line(results), highlight=False, soft_wrap=True)
    if results.evidence:
        console.print()
        print_whole(console, confirmed_table(results.evidence))
        console.print(results.evidence.verdict, highlight=False, soft_wrap=True)
    account = Account.of(space, results)
    if account is not None:
        console.print()
        for line in time_lines(account):
            console.print(line, highlight=False, soft_wrap=True)
    if space.data.selection == "official":
        console.print(OFFICIAL, highlight=False, soft_wrap=True)


def print_whole(console: Console, table: Table) -> None:
    """Print a table at its own width: where the screen is narrower, whole lines are better than folded cells."""
    wide = console.options.update(max_width=WIDEST)
    whole = wide.update(max_width=max(console.width, Measurement.get(console, wide, table).maximum))
    console.print(Segments(console.render(table, whole)), crop=False)  # given a width, print takes the screen's if less


def results_table(results: TaskResults) -> Table:
    """The best trials, with the teacher and the controls above them. `score` is what students were chosen by."""
    ranked = results.ranked()
    keys = list(ranked[0].values)
    title = f"{results.task}: the best students of {len(results.of_phase('search'))} trials"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("student of", no_wrap=True)
    for heading in (*(_heading(key) for key in keys), "score", "test", "epoch", "trial"):
        table.add_column(heading, justify="right", no_wrap=True)
    row = _Row(table, results, keys)
    teacher = results.stages.get("teacher")
    if teacher is not None:
        row.add("(the teacher)", {}, teacher.metrics, teacher.artifact, "")
    best_controls = {trial.role: trial for trial in reversed(results.ranked("control"))}
    for role, name in CONTROL_NAMES.items():
        if role in best_controls:
            trial = best_controls[role]
            row.add(name, trial.values, trial.metrics, trial.student, trial.status)
    if "dense teacher" not in best_controls and "trial_student" in results.stages:
        stage = results.stages["trial_student"]
        row.add(CONTROL_NAMES["dense teacher"], {}, stage.metrics, stage.artifact, "")
    table.add_section()
    for place, trial in enumerate(ranked[:SHOWN_TRIALS], start=1):
        row.add(f"search {place}", trial.values, trial.metrics, trial.student, trial.status)
    return table


class _Row:
    """Adds rows of one table."""

    def __init__(self, table: Table, results: TaskResults, keys: list[str]) -> None:
        self._table, self._results, self._keys = table, results, keys

    def add(
        self, label: str, values: Mapping[str, object], metrics: Mapping[str, float], model: str, status: str
    ) -> None:
        by_setting = {key.rpartition(".")[2]: value for key, value in values.items()}
        shown = [by_setting.get(key.rpartition(".")[2], "") for key in self._keys]
        test = self._results.tests.get(model)
        self._table.add_row(
            label,
            *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in shown),
            percent(metrics["score"]),
            "" if test is None else percent(test.score),
            f"{metrics['epoch']:.0f}" if "epoch" in metrics else "",
            status,
        )


def size_line(results: TaskResults) -> str:
    """What the chosen student weighs and how fast it answers, beside the teacher."""
    chosen, teacher = chosen_trial(results), results.stages.get("teacher")
    parts = []
    for label, metrics in (
        ("student", chosen.metrics if chosen else {}),
        ("teacher", teacher.metrics if teacher else {}),
    ):
        if chosen is not None and metrics is chosen.metrics and chosen.student in results.costs:
            cost = results.costs[chosen.student]
            parts.append(f"{label}: {in_words(Cost.model_validate(cost.cost))} for {cost.conditions}")
        elif "megabytes" in metrics:
            size = f"{metrics['parameters'] / 1e6:.1f}M parameters, {metrics['megabytes']:.0f} MB"
            parts.append(f"{label}: {size}, {metrics['milliseconds_per_example']:.1f} ms for one example")
    return "; ".join(parts)


def confirmed_table(evidence: Evidence) -> Table:
    """The finalists and controls over their seeds, the winner first."""
    table = Table(title="finalists and controls over fresh seeds", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("student of", no_wrap=True)
    for heading in ("seeds", "score", "at least", "test", "spread", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in evidence.confirmed:
        table.add_row(
            found.name,
            str(found.seeds),
            percent(found.selection.mean),
            percent(found.selection.low),
            percent(found.test.mean),
            percent(found.spread),
            interval_text(found.test),
        )
    return table


def _heading(key: str) -> str:
    setting = key.rpartition(".")[2]
    return SHORT_NAMES.get(setting, setting)


def interval_text(found: Interval) -> str:
    """A score's interval in percent."""
    shown = within_scores(found)
    return f"{percent(shown.low)} to {percent(shown.high)}"


def within_scores(found: Interval) -> Interval:
    """An interval as far as there are scores: none is below -1 or above 1."""
    return Interval(found.mean, max(found.low, -1.0), min(found.high, 1.0))


def percent(score: float | None) -> str:
    """A score in 0..1 as a percentage."""
    return "not known" if score is None else f"{100 * score:.1f}"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
