"""The report of a sweep: one page that stands by itself, the answer first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shlex import join

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stkd.orchestrator.activity import Activity
from stkd.orchestrator.contest_panels import contest, trade_offs
from stkd.orchestrator.layout import Storage, SweepFolder
from stkd.orchestrator.panels import Numbers, Section
from stkd.orchestrator.report_data import TaskReport
from stkd.orchestrator.report_words import (
    Fact,
    answer,
    answer_of_several,
    data_section,
    facts,
    how_sure,
    how_sure_of_several,
    overview,
)
from stkd.orchestrator.results import read_results
from stkd.orchestrator.search_panels import learning, map_of_search, settings_searched, what_mattered
from stkd.orchestrator.tables import OFFICIAL
from stkd.orchestrator.teacher_panels import units_lost, where_time_went
from stkd.search_spaces.reading import read_space, space_text
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import UserError


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    warnings: Sequence[str]
    answer: str
    sure: str
    facts: Sequence[Fact]
    overview: Numbers | None
    sections: Sequence[Section]
    commands: Sequence[str]
    versions: Numbers
    settings: str
    sweep: str
    version: str
    written: str


def write_report(storage: Storage, sweep: SweepFolder, path: Path, activity: Activity) -> None:
    """Write the page as a whole. Raises UserError where there is no student yet, or the file cannot be written."""
    aside = path.with_name(f".{path.name}")
    try:
        aside.touch()
        aside.write_text(report_page(storage, sweep, activity), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written: {error.strerror}") from error


def report_page(storage: Storage, sweep: SweepFolder, activity: Activity) -> str:
    """The page, as HTML."""
    space = read_space(sweep.space)
    by_task = read_results(sweep)
    found = [TaskReport.of(storage, sweep, space, by_task[task]) for task in space.tasks if task in by_task]
    reports = [report for report in found if report is not None]
    if not reports:
        raise UserError(f"sweep {sweep.sweep_id} has no student yet, so there is nothing to report")
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html").render(page=_page(sweep, space, reports, activity))


def _page(sweep: SweepFolder, space: Space, reports: Sequence[TaskReport], activity: Activity) -> Page:
    alone = reports[0] if len(reports) == 1 else None
    sections = _sections(alone) if alone else [_section(report) for report in reports]
    return Page(
        title=f"{', '.join(report.task for report in reports)}: small students of {space.teacher.model}",
        warnings=list(_warnings(space, reports, activity)),
        answer=answer(alone) if alone else answer_of_several(reports),
        sure=how_sure(alone) if alone else how_sure_of_several(reports),
        facts=facts(alone) if alone else [],
        overview=None if alone else overview(reports),
        sections=[*sections, data_section(reports)],
        commands=_commands(reports),
        versions=_versions(reports),
        settings=without_secrets(space_text(space)),
        sweep=sweep.sweep_id,
        version=version("stkd"),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _warnings(space: Space, reports: Sequence[TaskReport], activity: Activity) -> Iterator[str]:
    if activity.state != "finished":
        words = {"running": "is still running", "stopped": "was stopped", "crashed": "has crashed"}
        yield f"This sweep {words[activity.state]}: the page tells what is known so far."
    if space.data.selection == "official":
        yield OFFICIAL[0].upper() + OFFICIAL[1:] + "."
    for report in reports:
        for split in ("validation", "test"):
            repeated = int(report.parameters.get(f"examples.{split}_in_train", 0))
            if repeated:
                yield f"{report.task}: {repeated:,} {split} examples are in the training data, word for word."


def _sections(report: TaskReport) -> list[Section]:
    """The parts of a page of one task."""
    searched = (map_of_search(report), what_mattered(report), settings_searched(report))
    parts = (
        ("contest", "Is it the best there is?", (contest(report),)),
        ("cost", "What a score costs", trade_offs(report)),
        ("search", "What the search found", searched),
        ("learning", "How students learned", (learning(report),)),
        ("units", "What the winning teacher lost", units_lost(report)),
        ("time", "Where the time went", (where_time_went(report),)),
    )
    shown = [(name, title, [panel for panel in found if panel]) for name, title, found in parts]
    return [Section(name, title, found) for name, title, found in shown if found]


def _section(report: TaskReport) -> Section:
    """A whole task, as a part of a page of several."""
    found = [panel for section in _sections(report) for panel in section.panels]
    return Section(report.task, report.task, found, [answer(report), how_sure(report)])


def _commands(reports: Sequence[TaskReport]) -> list[str]:
    storage = ["--storage", str(reports[0].storage.root)]
    sweep = reports[0].sweep
    reproduce = [join(["stkd", "reproduce", report.run.name, *storage]) for report in reports]
    hand_over = []
    for report in reports:
        student = ["--sweep", sweep.sweep_id, "--task", report.task, "--model", report.chosen.trial]
        hand_over.append(join(["stkd", "export", f"my-{report.task}-student", *student, *storage]))
    return [*reproduce, join(["stkd", "sweep", "--space", str(sweep.space)]), *hand_over]


def _versions(reports: Sequence[TaskReport]) -> Numbers:
    """What the chosen students were computed with, each line once."""
    found = {name: value for report in reports for name, value in report.made_with.items()}
    return Numbers(("computed with", ""), [(name, str(value)) for name, value in found.items()])
