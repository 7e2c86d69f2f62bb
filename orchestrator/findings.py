"""What a check has found: a line for a person, a record for a machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.text import Text

from stkd.orchestrator.records import Record
from stkd.search_spaces.values import without_secrets

Mark = Literal["ok", "warn", "FAIL"]
"""`warn` hinders nothing, or not everybody."""
COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
NAME_WIDTH = 10


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    mark: Mark
    says: str
    fix: str = ""
    """What to do."""
    node: str = ""
    """Where, if it is not the same everywhere."""

    @classmethod
    def of_error(cls, error: Exception, node: str = "") -> "Finding":
        """A failure whose message says what is wrong and, behind a semicolon, what to do."""
        says, _, fix = " ".join(str(error).split()).partition("; ")
        return cls("FAIL", says, fix, node)

    def record(self, check: str) -> Record:
        """The finding of this check, for machines."""
        found = {"check": check, "mark": self.mark.lower(), "node": self.node, "says": self.says, "fix": self.fix}
        return {name: without_secrets(text) for name, text in found.items()}

    def line(self, check: str) -> Text:
        """The finding of this check, for people."""
        place = f"{self.node}: " if self.node else ""
        fix = f"; {self.fix}" if self.fix else ""
        text = Text(f"{self.mark:<4}", style=COLOURS[self.mark])
        return text.append(f"  {check:<{NAME_WIDTH}} {without_secrets(place + self.says + fix)}", style="default")


def show(console: Console, check: str, findings: Iterable[Finding]) -> None:
    """Print the findings of a check, a line each."""
    for finding in findings:
        console.print(finding.line(check), highlight=False, soft_wrap=True)
