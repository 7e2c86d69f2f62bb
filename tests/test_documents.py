"""The documents tell the truth: links lead somewhere, and what they tell to type works."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from documents import ONLY_PARSED, ONLY_PARSED_WITH, PAGES, ROOT, Line, anchors, blocks, command_lines, shell_lines
from user_tables import write_table

from stkd.orchestrator.cli import main
from stkd.orchestrator.options import names
from stkd.search_spaces.reading import find_space, read_space

if TYPE_CHECKING:
    from sweeping import Swept

TO_SCORE = {"reviews.csv": "text", "validation.csv": "text", "reviews.parquet": "text", "reviews.jsonl": "body"}
"""Files that documents score, and their columns of texts."""
IN_THIS_ORDER = ("sync", "list", "report", "compare", "pick", "export", "predict")
QUICKSTART = find_space(Path("quickstart"))


# Links


def test_links_lead_to_files_and_headings() -> None:
    pages = [
        path for folder in (".", "docs", "cluster", "search_spaces", "tests") for path in (ROOT / folder).glob("*.md")
    ]
    links = [
        (page, target, anchor)
        for page in pages
        for target, anchor in re.findall(r"\]\(([^)\s#]*)#?([^)\s]*)\)", page.read_text())
        if not re.match(r"[a-z]+:", target)
    ]
    assert len(links) >= 60
    broken = [(page.name, target) for page, target, _ in links if not (page.parent / target).exists()]
    assert not broken
    led = [(page, page.parent / target if target else page, anchor) for page, target, anchor in links if anchor]
    assert len(led) >= 30
    assert not [(page.name, anchor) for page, target, anchor in led if anchor not in anchors(target)]


def test_the_index_knows_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert len(pages) >= 10
    assert pages == set(re.findall(r"\]\(([\w-]+\.md)\)", index))


# Command lines


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a reader who has done what the documents say: spaces and files by the names used there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://10.0.0.1:8265")
    (hotels,) = [text for text in blocks(ROOT / "docs" / "tutorial.md", "yaml") if text.startswith("name: hotels")]
    Path("hotels.yaml").write_text(hotels)
    shutil.copy(QUICKSTART, "my_space.yaml")
    return tmp_path


def test_every_command_line_is_one_that_stkd_understands(desk: Path) -> None:
    lines = command_lines()
    assert len(lines) >= 80
    assert {line.command for line in lines} == set(main.commands)
    for line in lines:
        given = line.parsed().params
        if given.get("space"):
            read_space(given["space"], given["overrides"], names(given["tasks"]), given["storage"])


def test_every_make_target_is_there() -> None:
    targets = {line.split()[1] for page in PAGES for line in shell_lines(page) if line.startswith("make ")}
    assert len(targets) >= 3
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets <= set(phony.split())


def test_every_piece_of_a_space_can_be_read(desk: Path) -> None:
    pieces = [text for page in PAGES for text in blocks(page, "yaml")]
    assert len(pieces) >= 2
    for number, piece in enumerate(pieces):
        path = desk / f"piece-{number}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(QUICKSTART.read_text()) | yaml.safe_load(piece)))
        read_space(path)


def test_what_is_only_parsed_has_a_reason() -> None:
    assert set(ONLY_PARSED) < set(main.commands)
    assert all(len(reason.split()) >= 5 for reason in (*ONLY_PARSED.values(), *ONLY_PARSED_WITH.values()))
    reasons = [*ONLY_PARSED.items(), *((command, reason) for (command, _), reason in ONLY_PARSED_WITH.items())]
    for command, reason in reasons:
        tests = re.findall(r"test_\w+\.py", reason)
        assert tests
        assert any(f'"{command}"' in (Path(__file__).parent / test).read_text() for test in tests), (command, reason)
    skipped = [line for line in command_lines() if line.command not in ONLY_PARSED and not line.runs_in_tests]
    assert 1 <= len(skipped) <= 5


def in_small(line: Line, swept: "Swept") -> Iterator[str]:
    """The line's words, with the names of the finished tiny sweep in place of the documents' own."""
    trials = [trial.trial for trial in swept.trials("finished")]
    replacements = {
        "3f2a": trials[1],
        "TRIAL": trials[0],
        "SWEEP": swept.sweep.sweep_id,
        "latest/mrpc/best": "latest/remarks/best",
        "quickstart-20261123-110106/remarks/best": f"{swept.sweep.sweep_id}/remarks/{trials[1]}",
        "models:/stkd-quickstart-remarks@champion": "models:/stkd-tiny-remarks@champion",
    }
    if line.command == "export" and len(line.words) > 2:  # the student that others are scored with has every form
        replacements["my-student"] = "another-student"
    return (replacements.get(word, word) for word in line.words)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy is deprecated")  # MLflow's use of SQLAlchemy
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # MLflow of its own code
def test_every_line_that_can_run_in_small_form_runs(desk: Path, swept: "Swept") -> None:
    shutil.copytree(swept.storage.root, desk / "stkd-runs")
    for name, column in TO_SCORE.items():
        write_table(desk / name, [{column: text} for text in ("a lovely room", "the staff was rude", "dull")])
    lines = [line for line in command_lines() if line.runs_in_tests]
    lines.sort(key=lambda line: IN_THIS_ORDER.index(line.command))
    done: set[tuple[str, ...]] = set()
    for line in lines:
        words = tuple(in_small(line, swept))
        if words in done:
            continue
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        done.add(words)
        for written in desk.glob("scored.*"):
            written.unlink()
        if line.command == "export" and len(words) > 2:
            shutil.rmtree(desk / "another-student")
    assert len(done) >= 15


def over(tiny: Path, line: Line) -> tuple[str, ...]:
    """The line's settings over a space that needs no hub and no file of the reader's."""
    given = line.parsed().params
    model = re.compile(r"(?<=model: )[\w./-]+")
    settings = [model.sub(str(tiny.parent / "base"), each) for each in given["overrides"]]
    needs_no_other = given["space"] == Path("quickstart") and settings == list(given["overrides"])
    space = "quickstart" if needs_no_other else str(tiny)
    kept = [each for each in settings if not each.startswith(("data.", "teacher.model"))]
    return ("--space", space, *(word for each in kept for word in ("--set", each)))


@pytest.mark.slow
def test_every_line_that_begins_a_sweep_says_what_it_would_run(desk: Path) -> None:
    from sweeping import write_space  # loads torch, which few tests need

    tiny = write_space(desk)
    lines = [line for line in command_lines() if line.command == "sweep" and line.parsed().params["space"]]
    begun = {over(tiny, line): line for line in lines if line.parsed().params["address"] is None}
    assert len(begun) >= 10
    for words, line in begun.items():
        result = CliRunner().invoke(main, ("sweep", *words, "--dry-run"))
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert "trials" in result.output


@pytest.mark.slow
def test_every_line_that_scores_scores(desk: Path, swept: "Swept") -> None:
    from sweeping import stkd

    shutil.copytree(swept.storage.root, desk / "stkd-runs")
    lines = [line for line in command_lines() if line.command == "score" and line.parsed().params["address"] is None]
    assert len(lines) >= 3
    for words in {over(swept.space, line)[2:] for line in lines}:
        done = stkd("score", "--space", swept.space, "--storage", desk / "stkd-runs", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "heads go" in done.stdout
