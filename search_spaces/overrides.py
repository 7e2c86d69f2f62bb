"""What the command line changes in a search-space file: `--set key=value`, `--tasks` and `--storage`."""

from collections.abc import Sequence

from stkd.search_spaces.documents import Document, Key, parse_value
from stkd.search_spaces.schema import SEARCHED_SECTIONS
from stkd.search_spaces.values import without_secrets
from stkd.trainers.errors import UserError


def set_values(document: Document, overrides: Sequence[str]) -> None:
    """Applies `key=value` texts in order; a value is read as YAML. Raises UserError that names the option."""
    for override in overrides:
        name, equals, value = override.partition("=")
        key = key_of(name.strip())
        shown = "***" if key[0] == "tracking" else value
        place = without_secrets(f"--set {name}{equals}{shown}")
        if not equals or not all(key):
            raise UserError(f"{place}: must be key=value, as in --set training.epochs=5")
        document.put(key, parse_value(value, place), place)


def set_tasks(document: Document, tasks: Sequence[str]) -> None:
    """Replaces the file's tasks, unless `tasks` is empty."""
    if tasks:
        document.put(("tasks",), list(tasks), f"--tasks {','.join(tasks)}")


def set_storage(document: Document, storage: str | None) -> None:
    """Replaces the file's storage folder, unless `storage` is None."""
    if storage is not None:
        document.put(("storage",), storage, f"--storage {storage}")


def key_of(name: str) -> Key:
    """Returns the way to a dotted key; a search key such as `training.learning_rate` is one step of it."""
    parts = name.split(".")
    if parts[0] == "search" and len(parts) > 2 and parts[1] in SEARCHED_SECTIONS:
        parts[1:3] = [".".join(parts[1:3])]
    return tuple(parts)
