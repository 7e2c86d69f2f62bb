"""What the documents tell their readers to type, and the small forms in which tests type it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import click

from stkd.orchestrator.cli import main
from stkd.orchestrator.options import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "cluster" / "README.md"]
"""Documents with command lines."""

NEEDS_A_CLUSTER = "needs a cluster; test_jobs.py has one"
ONLY_PARSED = {
    "ui": "serves until it is ended; test_mlflow_pages.py looks at what it serves",
    "submit": NEEDS_A_CLUSTER,
    "status": NEEDS_A_CLUSTER,
    "logs": NEEDS_A_CLUSTER,
    "stop": NEEDS_A_CLUSTER,
    "sweep": "trains for minutes; test_documents.py makes a dry run of what begins one",
    "score": "trains, too, where nothing is there; test_documents.py scores a teacher that is there",
    "reproduce": "trains again; test_reproducing.py does it, from scratch as well",
    "doctor": "starts a Ray, or asks a cluster; test_doctor.py does both",
}
"""Commands whose lines are not run, and why."""
ONLY_PARSED_WITH = {
    (
        "pick",
        "--form",
    ): "exports each student and measures it, for half a minute; test_handover.py picks by other limits",
    ("export", "--form"): "writes less of what the other lines write; test_exporting.py exports single forms",
}
"""Lines of other commands that are not run, by an option of theirs, and why."""


@dataclass(frozen=True)
class Line:
    """A command line of a document, without `stkd`."""

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: stkd {shlex.join(self.words)}"

    @property
    def command(self) -> str:
        return self.words[0]

    @property
    def runs_in_tests(self) -> bool:
        """Whether its small form is quick."""
        slow = any(command == self.command and option in self.words for command, option in ONLY_PARSED_WITH)
        return self.command not in ONLY_PARSED and not slow

    def parsed(self) -> click.Context:
        """The command's context with all options and their values; raises what click raises."""
        whole = main.make_context("stkd", [self.command], obj=Settings())
        return main.commands[self.command].make_context(self.command, list(self.words[1:]), parent=whole)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for _, text in found]


def shell_lines(page: Path) -> Iterator[str]:
    """Every line of shell, continued ones joined."""
    for block in blocks(page, "sh"):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip())


def command_lines() -> list[Line]:
    """Every line that starts stkd, in all documents."""
    return [
        Line(page, tuple(takewhile(lambda word: word != "|", shlex.split(line, comments=True)[1:])))
        for page in PAGES
        for line in shell_lines(page)
        if line.startswith("stkd ")
    ]


def anchors(page: Path) -> set[str]:
    """Where a link can lead to inside a document."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
