"""Pydantic's findings in the words of a person who wrote a YAML file."""

from pydantic_core import ErrorDetails

from stkd.search_spaces.distributions import SHAPES
from stkd.trainers.tasks import did_you_mean

WORDS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "model_type": "must be a section of keys, like {{key: value}}",
    "dict_type": "must be a section of keys, like {{key: value}}",
    "tuple_type": "must be a list, like [first, second]",
}


def explain(error: ErrorDetails) -> str:
    """Returns what would be right, as the end of a sentence that starts with the key and its value."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return _literal(str(error["input"]), str(context["expected"]))
    if kind == "union_tag_invalid":
        return _distribution(str(context["tag"]))
    if kind == "union_tag_not_found":
        return _distribution("")
    return WORDS[kind].format(**context) if kind in WORDS else error["msg"]


def _literal(given: str, expected: str) -> str:
    choices = [choice.strip(" '") for choice in expected.replace(" or ", ",").split(",")]
    return f"unknown{did_you_mean(given, choices)}; must be one of {', '.join(choices)}"


def _distribution(given: str) -> str:
    near = f"unknown{did_you_mean(given, SHAPES)}; " if given else ""
    return f"{near}must be one of {', '.join(SHAPES.values())}"
