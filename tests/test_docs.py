"""The pages of reference are what `make docs` writes, and leave nothing out."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import generate
import pytest
from pydantic import BaseModel

from stkd.orchestrator.cli import main
from stkd.search_spaces.distributions import KINDS
from stkd.search_spaces.schema import Space
from stkd.trainers.config import Config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["space-file.md", "commands.md"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    assert set(generate.pages()) == {"space-file.md", "commands.md"}
    written = (DOCS / name).read_text()
    assert written == generate.pages()[name], f"docs/{name} is of other code: run `make docs`"


def keys(kind: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The class and the name of every key of a section, and of the sections in it."""
    for name, field in kind.model_fields.items():
        yield kind.__name__, name
        for inner in re.findall(r"\b\w+\b", str(field.annotation)):
            sections = [found for found in Config.__subclasses__() if found.__name__ == inner and found not in KINDS]
            for section in sections:
                yield from keys(section)


def test_every_key_is_documented_with_a_type_a_default_and_a_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", (DOCS / "space-file.md").read_text(), re.MULTILINE)
    seen = set(keys(Space))
    assert len(seen) >= 80
    assert sorted(row[0] for row in rows) == sorted(name for _, name in seen)
    assert not [row for row in rows if not all(row)]


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "commands.md").read_text()
    sections = dict(re.findall(r"^## stkd ([a-z-]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(main.commands)
    assert len(sections) >= 14
    for name, command in main.commands.items():
        rows = re.findall(r"^\| `(.*)` \| (.*) \|$", sections[name], re.MULTILINE)
        shown = {flag for flags, _ in rows for flag in re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", flags)}
        options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
        assert {flag for option in options for flag in (*option.opts, *option.secondary_opts)} <= shown
        assert not [row for row in rows if not all(row)]
