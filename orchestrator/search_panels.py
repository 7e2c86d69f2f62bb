"""Panels on the search: where in its space the good students lie, what mattered, and how they learned."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import nan

import numpy as np

from stkd.orchestrator import charts
from stkd.orchestrator.charts import Group, Line
from stkd.orchestrator.importance import importances
from stkd.orchestrator.panels import Numbers, Panel, heading, value_of
from stkd.orchestrator.phases import INTERPOLATION, SPARSITY
from stkd.orchestrator.report_data import TaskReport
from stkd.orchestrator.results import TrialResult
from stkd.orchestrator.tables import percent
from stkd.search_spaces.distributions import LogUniform
from stkd.search_spaces.schema import setting_of

MOST_LAMBDAS, MOST_SPARSITIES = 5, 10
"""Values above which they are put into so many bands."""
MAP_CAPTION = (
    "The best score on the selection split of the students in each cell, in brackets where that one was stopped early. "
    "Empty cells were not tried. At s = 0 nothing is removed, and lambda has no meaning."
)
SETTINGS_CAPTION = (
    "Every student of the search by its score on the selection split; those that were stopped early had less training."
)
IMPORTANCE_CAPTION = (
    "Optuna's importance (functional ANOVA): the share of what scores vary by that goes with each setting. It says what"
    " mattered within the ranges that were searched, not which way; with few trials it is rough."
)
LEARNING_CAPTION = (
    "The score on the selection split after each epoch: of the teacher, the students of the search, the controls, and"
    " the chosen one."
)

Band = tuple[float, float]
"""Values from the first to the second."""


def map_of_search(report: TaskReport) -> Panel | None:
    """The best score by interpolation and sparsity; None where these two were not searched."""
    trials = [trial for trial in report.results.of_phase("search") if trial.student]
    points = [
        (weight, sparsity, trial)
        for trial in trials
        if (weight := value_of(trial, INTERPOLATION)) is not None
        and (sparsity := value_of(trial, SPARSITY)) is not None
    ]
    lambdas = bands([weight for weight, _, _ in points], MOST_LAMBDAS)
    sparsities = bands([sparsity for _, sparsity, _ in points], MOST_SPARSITIES)
    if len(lambdas) < 2 or len(sparsities) < 2:
        return None
    cells: dict[tuple[int, int], list[TrialResult]] = {}
    for weight, sparsity, trial in points:
        cells.setdefault((band_of(weight, lambdas), band_of(sparsity, sparsities)), []).append(trial)
    best, finished = np.full((len(lambdas), len(sparsities)), nan), np.zeros((len(lambdas), len(sparsities)), np.bool_)
    for place, found in cells.items():
        highest = max(found, key=lambda trial: trial.score)
        best[place], finished[place] = 100 * highest.score, highest.status == "finished"
    names = [_band_name(band) for band in lambdas], [_band_name(band) for band in sparsities]
    rows = [
        (names[0][row], names[1][column], f"{best[row, column]:.1f}", str(len(found)))
        for (row, column), found in sorted(cells.items())
    ]
    title = f"{report.task}: the best score by interpolation and sparsity"
    chart = charts.grid_chart(best, finished, names, f"{report.task}-map", title)
    numbers = Numbers(("lambda", "s", "best score", "trials"), rows)
    return Panel("Interpolation and sparsity", MAP_CAPTION, chart, numbers)


def bands(values: Sequence[float], most: int) -> list[Band]:
    """Each value for itself where they are few; else bands of equal width, over 0 to 1 for shares."""
    distinct = sorted(set(values))
    if len(distinct) <= most:
        return [(value, value) for value in distinct]
    share = distinct[0] >= 0 and distinct[-1] <= 1
    low, high = (0.0, 1.0) if share else (distinct[0], distinct[-1])
    return list(pairwise(np.linspace(low, high, most + 1).tolist()))


def band_of(value: float, among: Sequence[Band]) -> int:
    """The place of the band that a value falls into."""
    return next((place for place, (_, high) in enumerate(among) if value <= high), len(among) - 1)


def _band_name(band: Band) -> str:
    low, high = band
    return f"{low:g}" if low == high else f"{low:.2g} to {high:.2g}"


def settings_searched(report: TaskReport) -> Panel | None:
    """The score over each searched setting that is a number."""
    ranked, keys = report.results.ranked(), list(report.space.search)
    panels = {
        heading(key): _groups(ranked, full)
        for key in keys
        for full in (".".join(setting_of(key)),)
        if len({value_of(trial, full) for trial in ranked} - {None}) > 1
    }
    if not panels:
        return None
    logarithmic = {heading(key) for key, found in report.space.search.items() if isinstance(found, LogUniform)}
    rows = [
        (
            trial.trial,
            *(_cell(trial.values.get(key)) for key in keys),
            percent(trial.score),
            str(trial.epochs),
            trial.status,
        )
        for trial in ranked
    ]
    columns = ("trial", *(heading(key) for key in keys), "score", "epochs", "status")
    title = f"{report.task}: score over {', '.join(panels)}"
    chart = charts.settings_chart(panels, logarithmic, f"{report.task}-settings", title)
    return Panel("Score over each setting", SETTINGS_CAPTION, chart, Numbers(columns, rows), wide=len(panels) > 1)


def _groups(trials: Sequence[TrialResult], key: str) -> list[Group]:
    groups = []
    for name, status in (("finished", "finished"), ("stopped early", "stopped")):
        found = {trial.trial: value_of(trial, key) for trial in trials if trial.status == status}
        known = [(value, trial) for trial in trials if (value := found.get(trial.trial)) is not None]
        groups.append(Group(name, [value for value, _ in known], [100 * trial.score for _, trial in known]))
    return groups


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def what_mattered(report: TaskReport) -> Panel | None:
    """Optuna's importance of each searched setting."""
    study = report.sweep.task(report.task).study
    found = importances(study, report.space.search, report.results.of_phase("search"), report.curves)
    if not found:
        return None
    groups = {
        f"{each.at} ({each.trials} trials)": {heading(key): 100 * share for key, share in each.shares.items()}
        for each in found
    }
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    rows = [(name, *(f"{group.get(name, 0.0):.0f} %" for group in groups.values())) for name in names]
    title = f"{report.task}: the share of the score's variance that each setting explains"
    label = "share of the variance, in %" if len(groups) > 1 else f"share of the variance {next(iter(groups))}, in %"
    chart = charts.bars_chart(groups, label, f"{report.task}-importance", title)
    return Panel("What each setting mattered", IMPORTANCE_CAPTION, chart, Numbers(("setting", *groups), rows))


def learning(report: TaskReport) -> Panel | None:
    """Scores epoch by epoch."""
    lines, rows = [], []
    for name, kind, label in _kinds(report):
        curve = report.curves.get(name, {})
        epochs = [epoch for epoch in sorted(curve) if "score" in curve[epoch]]
        if epochs:
            scores = [100 * curve[epoch]["score"] for epoch in epochs]
            lines.append(Line(kind, epochs, scores))
            rows.append(
                (label, kind, ", ".join(f"{score:.1f}" for score in scores), f"{curve[epochs[-1]]['loss']:.3g}")
            )
    if not lines:
        return None
    chart = charts.curves_chart(lines, f"{report.task}-learning", f"{report.task}: score after each epoch")
    numbers = Numbers(("of", "kind", "score after each epoch", "last loss"), rows)
    return Panel("Learning curves", LEARNING_CAPTION, chart, numbers)


def _kinds(report: TaskReport) -> Iterable[tuple[str, str, str]]:
    """The curves to show: name, kind, and what it is of."""
    yield report.chosen.trial, "chosen", report.chosen.name
    yield "teacher", "teacher", "the teacher"
    kinds: Mapping[str, str] = {"finished": "finished", "stopped": "stopped early"}
    for trial in (*report.results.ranked("control"), *report.results.ranked()):
        if trial.trial != report.chosen.trial and trial.status in kinds:
            yield trial.trial, "control" if trial.phase == "control" else kinds[trial.status], trial.name
