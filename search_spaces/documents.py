"""A YAML text as plain data that remembers on which line each of its keys stands.

Read as YAML 1.2 (`3e-5` is a number, `no` is a text), and stricter: a key that stands twice is refused, and so are
aliases, which could make a small file endless.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import yaml
from pydantic import JsonValue

from stkd.trainers.errors import UserError

Key = tuple[str | int, ...]
"""The way from the top to one value: names of keys and indices of lists."""


@dataclass
class Document:
    """The contents of one file, and for every key the place where a person wrote it."""

    data: dict[str, JsonValue]
    places: dict[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str:
        """Returns where `key` was written, or the nearest section around it."""
        while key not in self.places and key:
            key = key[:-1]
        return self.places[key]

    def put(self, key: Key, value: JsonValue, place: str) -> None:
        """Writes `value` at `key`, making the sections on the way. Raises UserError where a value is in the way."""
        section = self.data
        for depth, part in enumerate(key[:-1], 1):
            if section.get(str(part)) is None:
                section[str(part)] = {}
                self.places[key[:depth]] = place
            inner = section[str(part)]
            if not isinstance(inner, dict):
                raise UserError(f"{place}: {dotted(key[:depth])} has no keys inside; set it as a whole")
            section = inner
        section[str(key[-1])] = value
        self.places = {known: line for known, line in self.places.items() if known[: len(key)] != key}
        self.places[key] = place


def dotted(key: Key) -> str:
    """Returns `key` as a person writes it: `search.sparsity.quniform[1]`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def parse_document(text: str, name: str) -> Document:
    """Reads the text of a whole file; `name` is what messages call it. Raises UserError with the line."""
    document = Document({}, {(): f"{name}, line 1"})
    data = _Parser(lambda line: f"{name}, line {line}", document.places).parse(text)
    if not isinstance(data, dict):
        found = "is empty" if data is None else "holds no keys"
        raise UserError(f"{name}: {found}; a search space starts with `name: ...`")
    document.data = data
    return document


def parse_value(text: str, place: str) -> JsonValue:
    """Reads one value, as on the command line. Raises UserError where it is no YAML."""
    return _Parser(lambda _line: place, {}).parse(text)


class _Loader(yaml.SafeLoader):
    """A safe loader with the scalars of YAML 1.2 and without aliases."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the base class fixes name and kind

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # untyped in the stubs
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read; write the value out", mark)
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass
class _Parser:
    """Reads one text; `place` makes words of a line's number, `places` gets those of every key."""

    place: Callable[[int], str]
    places: dict[Key, str]

    def parse(self, text: str) -> JsonValue:
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            return None if node is None else self._plain(loader, node, ())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            hint = "; indent with spaces" if "\\t" in str(error.problem) else ""
            raise UserError(f"{self.place(line)}: broken YAML: {error.problem or error.context}{hint}") from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise UserError(f"{self.place(line)}: broken YAML: a special character is not allowed") from error
        except RecursionError as error:
            raise UserError(f"{self.place(1)}: broken YAML: nested too deeply") from error

    def _plain(self, loader: _Loader, node: yaml.Node, key: Key) -> JsonValue:
        self.places.setdefault(key, self._place_of(node))
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(loader, child, (*key, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._plain_section(loader, node, key)
        return self._plain_scalar(loader, node)

    def _plain_section(self, loader: _Loader, node: yaml.MappingNode, key: Key) -> dict[str, JsonValue]:
        section: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            place = self._place_of(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{place}: broken YAML: a key must be a name, not a list or a section")
            inner = (*key, key_node.value)
            if key_node.value in section:
                raise UserError(f"{place}: {dotted(inner)} stands twice, first at {self.places[inner]}; remove one")
            self.places[inner] = place
            section[key_node.value] = self._plain(loader, value_node, inner)
        return section

    def _plain_scalar(self, loader: _Loader, node: yaml.Node) -> JsonValue:
        try:
            value = loader.construct_object(node, deep=True)
        except ValueError as error:
            raise UserError(f"{self._place_of(node)}: {node.value[:20]}... is no number that can be read") from error
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise UserError(f"{self._place_of(node)}: the tag {node.tag} is not read here")

    def _place_of(self, node: yaml.Node) -> str:
        return self.place(node.start_mark.line + 1)
