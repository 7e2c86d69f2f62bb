"""From a search-space file and the command line to a checked Space, and back to text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import yaml
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from stkd.search_spaces.distributions import SHAPES
from stkd.search_spaces.documents import Document, Key, dotted, parse_document
from stkd.search_spaces.messages import explain
from stkd.search_spaces.overrides import set_storage, set_tasks, set_values
from stkd.search_spaces.schema import Space
from stkd.search_spaces.values import in_short
from stkd.trainers.errors import MisplacedError, UserError
from stkd.trainers.tasks import did_you_mean

PACKAGED = Path(__file__).parent
"""Holds the search spaces that come with stkd."""


def read_space(
    path: Path, overrides: Sequence[str] = (), tasks: Sequence[str] = (), storage: str | None = None
) -> Space:
    """Reads and checks a search space.

    `path` is a file, or the name of a packaged one (`quickstart`). `overrides` are `key=value` texts, applied in order;
    `tasks` and `storage` replace the file's.

    Raises:
        UserError: names the file and line or the option, the key, its value, and what would be right.

    """
    file = find_space(path)
    document = parse_document(_text_of(file), str(file))
    set_values(document, overrides)
    set_tasks(document, tasks)
    set_storage(document, storage)
    try:
        return Space.model_validate(document.data)
    except ValidationError as error:
        raise UserError(_first_message(document, error)) from error


def space_text(space: Space) -> str:
    """Returns `space` as the text of a file that `read_space` reads back, all defaults written out."""
    return yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def find_space(path: Path) -> Path:
    """Returns the file that `path` means: itself, or a packaged one by name. Raises UserError where there is none."""
    if path.is_file():
        return path
    packaged = {file.stem: file for file in PACKAGED.glob("*.yaml")}
    if path.parent in (Path(), Path(PACKAGED.name)) and path.stem in packaged and path.suffix in ("", ".yaml"):
        return packaged[path.stem]
    if path.is_dir():
        raise UserError(f"--space {path}: this is a folder; give a .yaml file in it")
    siblings = [str(file) for file in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    near = did_you_mean(str(path), [*siblings, *packaged])
    raise UserError(f"--space {path}: no such file{near}; packaged spaces: {', '.join(sorted(packaged))}")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text in UTF-8; a search space is a YAML file") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error


def _first_message(document: Document, error: ValidationError) -> str:
    """Returns one line about the first finding; others are only counted."""
    errors = error.errors(include_url=False)
    more = f" ({len(errors) - 1} more after this one)" if len(errors) > 1 else ""
    return _message(document, errors[0]) + more


def _message(document: Document, error: ErrorDetails) -> str:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, MisplacedError):
        return _misplaced_message(document, (*error["loc"], *cause.key), str(cause))
    key, value = _resolve(document.data, error["loc"])
    place = document.place(key)
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key '{dotted(key)}'{_near_keys(key)}"
    if error["type"] == "missing" and key[:1] != ("search",):
        return f"{place}: {dotted((*key, error['loc'][-1]))} is missing"
    return _sentence(place, key, _given(key, value), _right(key, error))


def _misplaced_message(document: Document, key: Key, message: str) -> str:
    """Returns the message about a setting that the file may have left at its default."""
    found, value = _resolve(document.data, key)
    given = _given(key, value) if found == key else "is not set"
    return _sentence(document.place(key), key, given, message)


def _sentence(place: str, key: Key, given: str, right: str) -> str:
    """Returns the finding; an option of the command line shows key and value already."""
    return (
        f"{place}: {right}" if place.startswith(f"--set {dotted(key)}=") else f"{place}: {dotted(key)} {given}: {right}"
    )


def _right(key: Key, error: ErrorDetails) -> str:
    """Returns what would be right; a malformed distribution is told its whole shape."""
    malformed = key[:1] == ("search",) and error["type"] not in ("value_error", "union_tag_invalid")
    kind = str(key[2]) if len(key) > 2 else ""
    return f"must be {SHAPES[kind]} with finite numbers" if malformed and kind in SHAPES else explain(error)


def _given(key: Key, value: JsonValue) -> str:
    return "is not right (its value is not shown)" if key[:1] == ("tracking",) else f"is {in_short(value)}"


def _resolve(data: JsonValue, location: Key) -> tuple[Key, JsonValue]:
    """Returns the key in the file that pydantic's `location` means, and its value; names of unions are skipped."""
    key: Key = ()
    for part in location:
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        key = (*key, part)
    return key, data


def _near_keys(key: Key) -> str:
    """Returns the nearest and the valid keys of the section in which the unknown `key` stands."""
    name = str(key[-1])
    valid = _section_at(key[:-1])
    near = did_you_mean(name, valid)
    elsewhere = [known for known in _all_keys(Space) if known.rpartition(".")[2] == name]
    if elsewhere and not near:
        near = f", did you mean '{elsewhere[0]}'?"
    return f"{near}; valid keys here: {', '.join(valid)}"


def _section_at(key: Key) -> list[str]:
    section: type[BaseModel] | None = Space
    for part in key:
        section = _section_of(section, str(part)) if section else None
    return list(section.model_fields) if section else []


def _section_of(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = section.model_fields[name].annotation
    candidates = (annotation, *get_args(annotation))
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _all_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name in section.model_fields:
        inner = _section_of(section, name)
        if inner:
            yield from _all_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
