"""MLflow's pages over a finished sweep, in a real browser: what a team looks at, and finds where it looks for it.

Pictures of every page go to the folder that STKD_SCREENSHOTS names, or to the test's own.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright
from sweeping import STKD, environment

from stkd.orchestrator.evidence import chosen_trial
from stkd.orchestrator.mlflow_view import COLUMNS

if TYPE_CHECKING:
    from sweeping import Swept

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
FROM_LEFT_TO_RIGHT = """cells => cells
    .sort((one, other) => one.getBoundingClientRect().left - other.getBoundingClientRect().left)
    .map(cell => cell.getAttribute("col-id"))"""
"""What columns the cells of a header are of, as one sees them: in the page they stand in any order."""
A_TRIAL = re.compile(r"^remarks (lambda=\S+ )?s=\S+")
PATIENCE = 90_000
SETTLING = 1_000
"""Milliseconds that a page may take on a busy machine, and that what it draws takes to come to rest."""


@contextmanager
def served(swept: "Swept") -> Iterator[str]:
    """The address that `stkd ui` prints."""
    command = [*STKD, "ui", "--storage", str(swept.storage.root)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[2]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a browser without a past."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine; make test installs it where it may")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=FLAGS, viewport={"width": 1700, "height": 950}
        )
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield context.pages[0]
        context.close()


class Pictures:
    """Screenshots, numbered as they are taken."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page, self._folder = page, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.taken: list[Path] = []

    def take(self, name: str) -> None:
        """A picture, once what is drawn has come to rest."""
        self._page.wait_for_timeout(SETTLING)
        path = self._folder / f"{len(self.taken) + 1}-{name}.png"
        self._page.screenshot(path=path)
        self.taken.append(path)


def cell(page: Page, row: str, column: str) -> Locator:
    """A cell of the table of runs, whose left columns are a table of their own to the page."""
    return page.locator(f'[row-id="{row}"] [col-id="{column}"]')


def row_of(page: Page, column: str, text: str) -> str:
    """The id of the row with this text in the column."""
    found = page.locator(f'[col-id="{column}"]').filter(has_text=re.compile(text)).locator("xpath=ancestor::*[@row-id]")
    row = found.first.get_attribute("row-id")
    assert row is not None
    return row


@pytest.mark.slow
def test_a_team_finds_its_way_from_the_sweep_to_the_best_student(swept: "Swept", page: Page, tmp_path: Path) -> None:
    pictures = Pictures(page, Path(os.environ.get("STKD_SCREENSHOTS", tmp_path / "screenshots")))
    best = chosen_trial(swept.results)
    assert best is not None
    with served(swept) as address:
        page.goto(address)
        page.locator(".ag-header-cell").first.wait_for()
        page.get_by_role("button", name="Close").last.click()  # the assistant, which opens once by itself
        look_at_the_runs(page, pictures, swept, best.name)
        look_at_the_sweep(page, pictures, swept)
        look_at_the_best(page, pictures, best.name)
        look_at_the_scores(page, pictures, swept)
    assert len(pictures.taken) == 8
    assert all(path.stat().st_size > 20_000 for path in pictures.taken)


def look_at_the_runs(page: Page, pictures: Pictures, swept: "Swept", name_of_best: str) -> None:
    """The table has one line a sweep, unfolds into its trials, and shows the columns that matter, in their order."""
    expect(page.get_by_text("Small students of one teacher").first).to_be_visible()
    name = f"remarks {swept.sweep.sweep_id}"
    link = page.get_by_role("link", name=name)
    expect(link).to_be_visible()
    expect(page.get_by_role("link", name=A_TRIAL)).to_have_count(0)
    shown = page.locator(".ag-header-cell").evaluate_all(FROM_LEFT_TO_RIGHT)
    wanted = [column for column in COLUMNS if column.startswith(("metrics.", "tags.")) and column in shown]
    assert [column for column in shown if column in wanted] == wanted
    assert {"metrics.`score`", "metrics.`test_score`", "tags.`stkd.best`", "tags.`stkd.role`"} <= set(wanted)
    pictures.take("runs")
    row = row_of(page, "attributes.`Run Name`", name)
    cell(page, row, "attributes.`Run Name`").locator("button").first.click()
    expect(page.get_by_role("link", name=A_TRIAL).first).to_be_visible()
    best = row_of(page, "tags.`stkd.best`", "^true$")
    expect(cell(page, best, "attributes.`Run Name`")).to_contain_text(f"remarks {name_of_best}")
    pictures.take("unfolded")


def look_at_the_sweep(page: Page, pictures: Pictures, swept: "Swept") -> None:
    """The sweep's page says the answer first, and has the report."""
    page.get_by_role("link", name=f"remarks {swept.sweep.sweep_id}").first.click()
    expect(page.get_by_text("The best student of remarks scores").first).to_be_visible()
    expect(page.get_by_role("link", name="test_score", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="seconds_forward")).to_have_count(0)
    pictures.take("sweep")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("report.html").first.click()
    report = page.frame_locator("iframe").first
    expect(report.get_by_text("The best student of remarks scores").first).to_be_visible()
    pictures.take("report")


def look_at_the_best(page: Page, pictures: Pictures, name: str) -> None:
    """From the sweep to its best trial: its metrics, its parameters, its curves, and the model."""
    page.get_by_role("tab", name="Overview").click()
    page.get_by_role("link", name=f"remarks {name}", exact=True).click()
    expect(page.get_by_text("The student to take.")).to_be_visible()
    expect(page.get_by_role("link", name="score", exact=True)).to_be_visible()
    expect(page.get_by_text("distillation.sparsity", exact=True)).to_be_visible()
    pictures.take("best")
    page.get_by_role("tab", name="Model metrics").click()
    expect(page.get_by_text("loss", exact=True).first).to_be_visible()
    pictures.take("curves")
    page.get_by_role("tab", name="Overview").click()
    page.get_by_role("link", name="student", exact=True).first.click()
    expect(page.get_by_text("Model ID").first).to_be_visible()
    pictures.take("model")


def look_at_the_scores(page: Page, pictures: Pictures, swept: "Swept") -> None:
    """The pictures of heads and neurons are with the run of the scores."""
    page.go_back()
    page.get_by_role("link", name=f"remarks {swept.sweep.sweep_id}").first.click()
    scores, more = page.get_by_role("link", name="remarks scores"), page.get_by_role("button", name="Load more")
    expect(scores.or_(more).first).to_be_visible()
    while not scores.is_visible():
        more.click()  # the oldest come last, ten at a time
        page.wait_for_timeout(SETTLING)
    scores.click()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("heat-maps").first.click()
    page.get_by_text("heads.png").first.click()
    expect(page.get_by_role("img", name="heads.png").or_(page.locator("img[src*=heads]")).first).to_be_visible()
    pictures.take("heads")
