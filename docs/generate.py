"""Writes the pages of reference, docs/space-file.md and docs/commands.md, from the schema and the command line.

`make docs` runs it; `tests/test_docs.py` holds that what is checked in is what it writes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import yaml

from stkd.orchestrator.cli import main
from stkd.search_spaces.distributions import KINDS
from stkd.search_spaces.schema import BARE_KEYS, SEARCH_KEYS, SEARCHED_SECTIONS, Space

DOCS = Path(__file__).parent
Schema = Mapping[str, Any]
"""A JSON schema, as pydantic makes it."""

KEPT = "\b\n"
"""How click marks a paragraph whose lines stay as they are."""

SPACE_FILE = """\
# The space file

<!-- Written by `make docs` from search_spaces/schema.py, search_spaces/sections.py and trainers/config.py. -->

One YAML file tells a sweep everything. Keys that are left out have their defaults; a key that is misspelt, or a value
that cannot be, is refused before anything starts, with the line and the nearest match. `--set KEY=VALUE` changes any of
them by its dotted name, as `--set training.epochs=5`. [`quickstart.yaml`](../search_spaces/quickstart.yaml) and
[`files.yaml`](../search_spaces/files.yaml) are there to copy from.
"""
SEARCH = """\
What differs between trials, as `{{interpolation: {{uniform: [0.0, 1.0]}}, training.epochs: {{choice: [2, 3]}}}}`. Any
key of {sections} can be searched, but for those that a
whole sweep has in common. A key that is set to null is not searched.
"""
COMMANDS = """\
# The commands

<!-- Written by `make docs` from orchestrator/cli.py. -->

Every command ends with exit code 0 where it did what was asked, 2 where its user has to change something, 1 where it is
our mistake or nothing fits a budget, and 130 after Ctrl-C. What went wrong is one line; `--debug` adds the traceback.
"""


def pages() -> dict[str, str]:
    """The generated pages, by file name."""
    return {"space-file.md": space_file(), "commands.md": commands()}


def space_file() -> str:
    """Every section of the space file with its keys: type, default, meaning."""
    schema = Space.model_json_schema()
    places = section_places(schema)
    parts = [SPACE_FILE, "## The file", _table(schema, schema, places)]
    for key in schema["properties"]:
        if key == "search":
            parts += ["## search", *_search()]
        for place in (place for place in places if place.partition(".")[0] == key):
            section = schema["$defs"][places[place]]
            parts += [f"## {place}", _one_line(section["description"]), _table(schema, section, places)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def section_places(schema: Schema) -> dict[str, str]:
    """The name of each section's class by the dotted key it stands at; of several keys, the outermost."""
    found: dict[str, str] = {}
    queue = [("", schema)]
    while queue:
        place, section = queue.pop(0)
        for key, field in section["properties"].items():
            name = _section_of(field)
            if name and name not in found.values():
                inner = f"{place}.{key}" if place else key
                found[inner] = name
                queue.append((inner, schema["$defs"][name]))
    return found


def _section_of(field: Schema) -> str | None:
    """The name of the section's class where a field holds one, or one or null."""
    references = [choice["$ref"] for choice in (field, *field.get("anyOf", ())) if "$ref" in choice]
    return references[0].rpartition("/")[2] if references else None


def _table(schema: Schema, section: Schema, places: Mapping[str, str]) -> str:
    rows = [
        (f"`{key}`", _listed(_types(key, field, places), "or"), _default(field), _meaning(schema, field))
        for key, field in section["properties"].items()
    ]
    return _rows(("key", "type", "default", "meaning"), rows)


def _meaning(schema: Schema, field: Schema) -> str:
    name = _section_of(field)
    return _one_line(field.get("description") or (schema["$defs"][name]["description"] if name else ""))


def _default(field: Schema) -> str:
    if "default" not in field:
        return "required"
    default = field["default"]
    if isinstance(default, dict):
        return "its own" if default else "`{}`"
    return f"`{yaml.safe_dump(default, default_flow_style=True).removesuffix(chr(10)).removesuffix('...').strip()}`"


def _types(key: str, field: Schema, places: Mapping[str, str]) -> list[str]:
    """What may stand there, in words."""
    if "anyOf" in field:
        found = [word for choice in field["anyOf"] for word in _types(key, choice, places)]
        return list(dict.fromkeys(found))
    if "enum" in field:
        return [f"`{choice}`" for choice in field["enum"]]
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        place = next(place for place, found in places.items() if found == name)
        return [f"[section](#{slug(place)})"]
    match field["type"]:
        case "object":
            return ["[section](#search)" if key == "search" else "keys and values"]
        case "array":
            return ["list of texts"]
        case "integer" | "number":
            return [_number(field)]
        case kind:
            return [{"string": "text", "boolean": "true or false", "null": "null"}[kind]]


def _number(field: Schema) -> str:
    word = "whole number" if field["type"] == "integer" else "number"
    low, high, below = (field.get(limit) for limit in ("minimum", "maximum", "exclusiveMaximum"))
    if low is None:
        above = field["exclusiveMinimum"]
        return f"{word}, {above + 1} or more" if field["type"] == "integer" else f"{word} above {above:g}"
    if high is None and below is None:
        return f"{word}, {low:g} or more"
    return f"{word} from {low:g} to {high:g}" if below is None else f"{word} from {low:g} to below {below:g}"


def _search() -> Iterator[str]:
    sections = _listed([f"[`{name}`](#{name})" for name in SEARCHED_SECTIONS], "and")
    yield SEARCH.format(sections=sections)
    yield _rows(("drawn from", "gives"), [(f"`{kind.shape}`", _one_line(kind.__doc__ or "")) for kind in KINDS])
    others = [key for key in SEARCH_KEYS if key not in BARE_KEYS and not key.startswith("distillation.")]
    bare, full = (", ".join(f"`{key}`" for key in keys) for keys in (BARE_KEYS, others))
    yield f"Keys of `distillation` may stand alone: {bare}. The others: {full}."


def commands() -> str:
    """Every command with its help, its examples and its options."""
    whole = click.Context(main, info_name="stkd", **main.context_settings)
    parts = [COMMANDS, _rows(("command", "does"), _summaries())]
    for name, command in main.commands.items():
        context = click.Context(command, info_name=name, parent=whole)
        usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
        parts += [f"## stkd {name}", f"`{usage}`", *_help(command), _options(command, context)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _summaries() -> Iterator[tuple[str, str]]:
    for name, command in main.commands.items():
        yield f"[`stkd {name}`](#stkd-{slug(name)})", _cell(command.get_short_help_str(limit=200))


def _help(command: click.Command) -> Iterator[str]:
    """The paragraphs of a command's help; those that click keeps as they are become code."""
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith(KEPT):
            yield f"```sh\n{dedent(paragraph.removeprefix(KEPT))}\n```"
        else:
            yield _one_line(paragraph)


def _options(command: click.Command, context: click.Context) -> str:
    options = (option for option in command.get_params(context) if isinstance(option, click.Option))
    records = filter(None, (option.get_help_record(context) for option in options))
    return _rows(("option", "meaning"), [(f"`{_cell(left)}`", _cell(right)) for left, right in records])


def _rows(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _one_line(text: str) -> str:
    return _cell(" ".join(text.split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _listed(words: Sequence[str], link: str) -> str:
    *others, last = words
    return f"{', '.join(others)} {link} {last}" if others else last


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


if __name__ == "__main__":
    for file, page in pages().items():
        (DOCS / file).write_text(page, encoding="utf-8")
