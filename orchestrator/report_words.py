"""The answer of a report: sentences, big numbers, and tables over tasks. Scores are in percent."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from stkd.orchestrator.panels import Numbers, Section, short_name
from stkd.orchestrator.report_data import TaskReport
from stkd.orchestrator.results import Interval
from stkd.orchestrator.tables import CONTROL_NAMES, interval_text, percent


@dataclass(frozen=True)
class Fact:
    """A big number."""

    name: str
    value: str
    remark: str


def answer(report: TaskReport) -> str:
    """The best student in one sentence."""
    test, teacher = report.student_test, report.teacher_test
    where = "on the test split" if test is not None else "on the selection split (it was not tested)"
    if report.winner:
        where += f" as the mean of {report.winner.seeds} seeds"
    score = report.chosen.score if test is None else test
    against = (
        f", {_apart(score, teacher)} its teacher's {percent(teacher)}"
        if test is not None and teacher is not None
        else ""
    )
    costs = ""
    if report.teacher and "megabytes" in report.teacher.metrics:
        costs = f", with {_share(report, 'megabytes')} of the weights"
    return f"The best student of {report.task} scores {percent(score)} {where}{against}{costs}."


def _apart(score: float, other: float) -> str:
    points = 100 * (score - other)
    if abs(points) < 0.05:
        return "the same as"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def _share(report: TaskReport, metric: str) -> str:
    assert report.teacher, "there is a teacher to compare with"
    return f"{100 * report.chosen.metrics[metric] / report.teacher.metrics[metric]:.0f} %"


def how_sure(report: TaskReport) -> str:
    """What is known of chance."""
    evidence, winner = report.results.evidence, report.winner
    if evidence is None or winner is None:
        tried = len(report.results.of_phase("search"))
        return (
            f"It is one training, the best of {tried} on the selection split: no interval is known, and a point or two"
            f" is chance.{_best_control(report)} With confirm: in its space, a sweep trains the best again over fresh"
            " seeds."
        )
    seeds = (
        f"Students of these settings, over {winner.seeds} seeds, have a 95 % interval of {interval_text(winner.test)}."
    )
    return f"{seeds}{_best_control(report)} {evidence.verdict[0].upper()}{evidence.verdict[1:]}."


def _best_control(report: TaskReport) -> str:
    """The control that scores highest on the test split, as a sentence; nothing where none was tested."""
    evidence = report.results.evidence
    if evidence:
        known = {short_name(found.name): found.test.mean for found in evidence.confirmed if found.role != "candidate"}
    else:
        controls = ((role, report.best_control(role)) for role in CONTROL_NAMES)
        tests = {role: report.test(trial.student) for role, trial in controls if trial}
        known = {role: test.score for role, test in tests.items() if test}
    if not known:
        return ""
    best = max(known, key=lambda name: known[name])
    return f" The best control ({best}) has {percent(known[best])}."


def facts(report: TaskReport) -> list[Fact]:
    """The big numbers: how good, how large, how fast."""
    metrics, teacher = report.chosen.metrics, report.teacher
    old = teacher.metrics if teacher else {}
    test, winner, teacher_test = report.student_test, report.winner, report.teacher_test
    found = []
    if test is not None:
        own = report.test(report.chosen.student)
        sure = f"95 % interval {interval_text(winner.test)}" if winner else "one training"
        sure += f"; the student to take has {percent(own.score)}" if winner and own else ""
        found.append(Fact("test score", percent(test), sure))
    found.append(Fact("selection score", percent(report.chosen.score), f"chosen by it: {report.chosen.name}"))
    if test is not None and teacher_test:
        found.append(
            Fact(
                "of the teacher's score",
                f"{100 * test / teacher_test:.0f} %",
                f"the teacher has {percent(teacher_test)}",
            )
        )
    size = f"{metrics['parameters'] / 1e6:.1f}M parameters"
    size += f"; teacher {old['megabytes']:.0f} MB" if "megabytes" in old else ""
    found.append(Fact("size", f"{metrics['megabytes']:.0f} MB", size))
    found.append(_latency(report))
    return found


def _latency(report: TaskReport) -> Fact:
    """As it was measured for the budget, in a process that did nothing else, or else as the student was trained."""
    if report.cost:
        cost = report.cost.cost
        remark = f"half of all answers; p95 {cost['p95']:.3g} ms, p99 {cost['p99']:.3g} ms: {report.cost.conditions}"
        return Fact("latency", f"{cost['p50']:.3g} ms", remark)
    metric = "milliseconds_per_example"
    known = report.teacher.metrics.get(metric) if report.teacher else None
    teacher = "" if known is None else f"; teacher {known:.1f} ms"
    return Fact("one example", f"{report.chosen.metrics[metric]:.1f} ms", f"measured while training{teacher}")


def answer_of_several(reports: Sequence[TaskReport]) -> str:
    """The average in one sentence."""
    tested = [(found, report.teacher_test) for report in reports if (found := report.student_test) is not None]
    known = [(student, teacher) for student, teacher in tested if teacher is not None]
    if not known:
        average = percent(fmean(report.chosen.score for report in reports))
        return f"Students of {len(reports)} tasks average {average} on their selection splits."
    student, teacher = fmean(student for student, _ in known), fmean(teacher for _, teacher in known)
    share = f"{100 * student / teacher:.0f} % of their teachers' {percent(teacher)}"
    return f"The best students of {len(known)} tasks average {percent(student)} on the test splits, {share}."


def how_sure_of_several(reports: Sequence[TaskReport]) -> str:
    """What the intervals of the differences say, in numbers of tasks."""
    found = [report.difference for report in reports if report.difference is not None]
    if not found:
        return "No task compares sparse and dense teachers over several seeds."
    better, worse = sum(each.low > 0 for each in found), sum(each.high < 0 for each in found)
    return (
        f"Of {len(found)} tasks that were confirmed over seeds, the sparse teacher's student is better in {better},"
        f" worse in {worse}, and in {len(found) - better - worse} no difference is shown."
    )


def overview(reports: Sequence[TaskReport]) -> Numbers:
    """The table of tasks, with their average."""
    columns = (
        "task",
        "teacher",
        "student",
        "95 % interval",
        "of the teacher's",
        "no teacher",
        "dense teacher",
        "sparse less dense",
        "MB",
        "ms",
    )
    rows, scores = [], []
    for report in reports:
        controls = [_control_test(report, role) for role in ("no teacher", "dense teacher")]
        test, teacher, metrics = report.student_test, report.teacher_test, report.chosen.metrics
        scores.append((teacher, test, *controls))
        share = f"{100 * test / teacher:.0f} %" if test is not None and teacher else ""
        interval = interval_text(report.winner.test) if report.winner else ""
        rows.append(
            (
                report.task,
                _score(teacher),
                _score(test),
                interval,
                share,
                *map(_score, controls),
                _difference(report.difference),
                f"{metrics['megabytes']:.0f}",
                f"{metrics['milliseconds_per_example']:.1f}",
            )
        )
    teacher, test, *controls = (_mean([row[place] for row in scores]) for place in range(4))
    share = f"{100 * test / teacher:.0f} %" if test is not None and teacher else ""
    rows.append(("mean", _score(teacher), _score(test), "", share, *map(_score, controls), "", "", ""))
    return Numbers(columns, rows)


def _control_test(report: TaskReport, role: str) -> float | None:
    evidence, trial = report.results.evidence, report.best_control(role)
    found = next((each.test.mean for each in evidence.confirmed if each.role == role), None) if evidence else None
    test = report.test(trial.student) if trial else None
    return found if found is not None else test.score if test else None


def _mean(scores: Sequence[float | None]) -> float | None:
    """Of all tasks; None where one of them has no score, since means over other tasks do not compare."""
    known = [score for score in scores if score is not None]
    return fmean(known) if len(known) == len(scores) else None


def _score(score: float | None) -> str:
    return "" if score is None else percent(score)


def _difference(found: Interval | None) -> str:
    if found is None:
        return ""
    return (
        f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        if isfinite(found.low)
        else f"{100 * found.mean:+.1f}"
    )


def data_section(reports: Sequence[TaskReport]) -> Section:
    """What was trained on, chosen by and tested on."""
    columns = (
        "task",
        "kind",
        "training",
        "selection",
        "test",
        "selection in training",
        "test in training",
        "fingerprint",
    )
    rows = []
    for report in reports:
        known = report.parameters
        names = ("task.kind", *(f"examples.{split}" for split in ("train", "validation", "test")))
        names += ("examples.validation_in_train", "examples.test_in_train", "data.fingerprint")
        rows.append((report.task, *(_thousands(known.get(name, "")) for name in names)))
    text = (
        "Teachers and students train on the first split, and units are scored on it; students are chosen on the second;"
        " the third was read once, when everything was trained."
    )
    return Section("data", "Data", texts=[text], numbers=Numbers(columns, rows))


def _thousands(text: str) -> str:
    return f"{int(text):,}" if text.isdigit() and len(text) < 12 else text
