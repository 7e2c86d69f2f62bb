"""Panels on the chosen student beside others: the controls, the teacher, and what a score costs."""

from collections.abc import Iterable, Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray

from stkd.orchestrator import charts
from stkd.orchestrator.charts import Group, Named
from stkd.orchestrator.panels import Numbers, Panel, short_name
from stkd.orchestrator.report_data import TaskReport
from stkd.orchestrator.results import Confirmed, TrialResult
from stkd.orchestrator.tables import CONTROL_NAMES, interval_text, percent, within_scores

SEEDS_CAPTION = (
    "Each was trained anew over fresh seeds. The intervals hold the chance of seeds and of test examples. The chosen"
    " one, a diamond, is the finalist whose score on the selection split is surely high: whose lower end is highest."
)
SINGLE_CAPTION = "One training each: they move by a point or two with their seed alone, and no interval is known."
FRONT_CAPTION = "Up and to the left is better; what lies on the dashed line is beaten by nothing."
NOISE_CAPTION = "Measured one example at a time as each training went on, beside others: a few milliseconds are noise."


def contest(report: TaskReport) -> Panel | None:
    """The chosen student against the controls, with intervals where there are several seeds."""
    evidence = report.results.evidence
    return _over_seeds(report, evidence.confirmed) if evidence else _single(report)


def _over_seeds(report: TaskReport, confirmed: Sequence[Confirmed]) -> Panel:
    rows = [
        Named(short_name(found.name), 100 * test.mean, 100 * test.low, 100 * test.high, found is report.winner)
        for found in confirmed
        for test in (within_scores(found.test),)
    ]
    if report.teacher_test is not None:
        rows.insert(0, Named("the teacher", 100 * report.teacher_test, nan, nan))
    columns = ("student of", "seeds", "selection", "at least", "test", "spread", "95 % interval")
    numbers = [_confirmed_row(found) for found in confirmed]
    title = f"{report.task}: scores on the test split, with 95 % intervals"
    chart = charts.intervals_chart(rows, "score on the test split", f"{report.task}-contest", title)
    return Panel("Against the controls", SEEDS_CAPTION, chart, Numbers(columns, numbers))


def _confirmed_row(found: Confirmed) -> tuple[str, ...]:
    scores = (found.selection.mean, found.selection.low, found.test.mean, found.spread)
    return short_name(found.name), str(found.seeds), *map(percent, scores), interval_text(found.test)


def _single(report: TaskReport) -> Panel | None:
    results = report.results
    trials = [(report.chosen.name, report.chosen)]
    trials += [(name, trial) for role, name in CONTROL_NAMES.items() if (trial := report.best_control(role))]
    known = [(name, trial.score, results.tests.get(trial.student)) for name, trial in trials]
    if report.teacher:
        teacher = report.teacher
        known.insert(0, ("the teacher", teacher.metrics["score"], results.tests.get(teacher.artifact)))
    rows = [Named(name, 100 * test.score, nan, nan, name == report.chosen.name) for name, _, test in known if test]
    if not rows:
        return None
    numbers = [(name, percent(score), percent(test.score) if test else "") for name, score, test in known]
    title = f"{report.task}: scores on the test split, of one training each"
    chart = charts.intervals_chart(rows, "score on the test split", f"{report.task}-contest", title)
    return Panel("Against the controls", SINGLE_CAPTION, chart, Numbers(("student of", "selection", "test"), numbers))


def trade_offs(report: TaskReport) -> list[Panel]:
    """The front of score against latency, and against size."""
    return [
        panel
        for metric, title, label, caption in (
            ("milliseconds_per_example", "Score and speed", "milliseconds for one example", NOISE_CAPTION),
            ("megabytes", "Score and size", "megabytes of weights", _sizes(report)),
        )
        if (panel := _trade_off(report, metric, title, label, f"{FRONT_CAPTION} {caption}"))
    ]


def _trade_off(report: TaskReport, metric: str, title: str, label: str, caption: str) -> Panel | None:
    groups = _groups(report, metric)
    points = np.array([point for group in groups for point in zip(group.x, group.y, strict=True)])
    if len(points) < 2:
        return None
    trials = sorted(_with_students(report.results.trials.values()), key=lambda trial: trial.metrics[metric])
    rows = [(trial.name, percent(trial.score), f"{trial.metrics[metric]:.3g}") for trial in trials]
    full = f"{report.task}: score on the selection split against {label}"
    labels = (label, "score on the selection split")
    chart = charts.scatter_chart(groups, front(points), labels, f"{report.task}-{metric}", full)
    return Panel(title, caption, chart, Numbers(("student of", "score", label), rows))


def _with_students(trials: Iterable[TrialResult]) -> list[TrialResult]:
    return [trial for trial in trials if trial.student]


def _groups(report: TaskReport, metric: str) -> list[Group]:
    candidates = [trial for trial in report.results.trials.values() if trial.role == "candidate"]
    kinds = {
        "finished": [trial for trial in candidates if trial.status == "finished"],
        "stopped early": [trial for trial in candidates if trial.status == "stopped"],
        "control": report.results.of_phase("control"),
        "chosen": [report.chosen],
    }
    groups = []
    if report.teacher and metric in report.teacher.metrics:
        metrics = report.teacher.metrics
        groups.append(Group("teacher", [metrics[metric]], [100 * metrics["score"]]))
    for name, trials in kinds.items():
        known = _with_students(trials)
        groups.append(Group(name, [trial.metrics[metric] for trial in known], [100 * trial.score for trial in known]))
    return groups


def front(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of points (N, 2) of cost and score, those that no other beats in both, by cost."""
    kept: list[list[float]] = []
    for cost, score in sorted(points.tolist(), key=lambda point: (point[0], -point[1])):
        if not kept or score > kept[-1][1]:
            kept.append([cost, score])
    return np.array(kept)


def _sizes(report: TaskReport) -> str:
    sizes = {round(trial.metrics["megabytes"], 1) for trial in _with_students(report.results.trials.values())}
    return f"All students of this sweep have {sizes.pop():g} MB." if len(sizes) == 1 else ""
