"""What a card says of scores: the student's, its teacher's and the controls', and how sure they are. In percent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stkd.orchestrator.markdown import code, table
from stkd.orchestrator.results import Evidence, Interval
from stkd.orchestrator.runs import Run
from stkd.orchestrator.tables import OFFICIAL, interval_text, percent
from stkd.trainers.tasks import FITTING_METRICS

CHOSEN = "Students were chosen by the selection split, and nothing was by the test split."
INTERVALS = "Each score is of one training, and its interval of the chance of the test's examples alone."
ONE_TRAINING = (
    "The student is the best of many: its test score is what to believe. Another seed would move all of these scores."
)
CONTROLS = {
    "dense teacher": "control: the student of the dense teacher",
    "random teacher": "control: of a teacher that lost units by chance",
    "no teacher": "control: without a teacher",
}


@dataclass(frozen=True)
class _Row:
    name: str
    selection: float | None
    model: str
    """Its artifact."""


def scores(student: Run, intervals: Mapping[str, Interval], official: bool) -> Iterable[str]:
    """The section; `intervals` are those of test scores, by model."""
    results = student.results
    yield "## Scores"
    yield f"In percent; the score is {_metrics(student.trial.metrics)}. {f'Here {OFFICIAL}.' if official else CHOSEN}"
    shown = []
    for row in _rows(student):
        test, interval = results.tests.get(row.model), intervals.get(row.model)
        known = interval_text(interval) if interval else ""
        shown.append((row.name, percent(row.selection), percent(test.score if test else None), known))
    yield table(("", "selection", "test", "95 % interval"), shown)
    yield INTERVALS
    if results.evidence and any(found.role == "candidate" for found in results.evidence.confirmed):
        yield from _evidence(results.evidence)
    else:
        yield ONE_TRAINING


def _rows(student: Run) -> list[_Row]:
    results = student.results
    rows = [_Row("this student", student.trial.score, student.trial.student)]
    if "teacher" in results.stages:
        teacher = results.stages["teacher"]
        rows.append(_Row("its teacher", teacher.metrics.get("score"), teacher.artifact))
    controls = {trial.role: trial for trial in reversed(results.ranked("control"))}
    for role, name in CONTROLS.items():
        if found := next((trial for known, trial in controls.items() if known == role), None):
            rows.append(_Row(name, found.score, found.student))
    if "dense teacher" not in controls and "trial_student" in results.stages:
        stage = results.stages["trial_student"]
        rows.insert(2, _Row("the student of the dense teacher", stage.metrics.get("score"), stage.artifact))
    return rows


def _metrics(measured: Mapping[str, float]) -> str:
    """What the score is the mean of, with this student's values."""
    known = {name for names in FITTING_METRICS.values() for name in names}
    names = [name for name in measured if name in known]
    if len(names) == 1:
        return f"the {names[0]}"
    return f"the mean of {' and '.join(f'{name} (selection: {percent(measured[name])})' for name in names)}"


def _evidence(evidence: Evidence) -> Iterable[str]:
    yield "Means of finalists and controls over fresh seeds, with intervals that hold the chance of the seeds, too:"
    rows = [
        (
            code(found.name),
            str(found.seeds),
            percent(found.selection.mean),
            interval_text(found.selection),
            percent(found.test.mean),
            interval_text(found.test),
        )
        for found in evidence.confirmed
    ]
    yield table(("student of", "seeds", "selection", "95 % interval", "test", "95 % interval"), rows)
    yield f"Verdict: {evidence.verdict}."
