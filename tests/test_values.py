"""Values as messages show them."""

import pytest

from stkd.search_spaces.values import in_short, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://me:pass@word@host/path", "https://***@host/path"),
        ("postgresql://me:pa/ss@host/db", "postgresql://***@host/db"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("mysql://host/db?user=me&password=secret&x=1", "mysql://host/db?user=me&password=***&x=1"),
        ("request to 'https://token@host/api' failed", "request to 'https://***@host/api' failed"),
        ("uri: https://me:pass word@host", "uri: https://***@host"),
    ],
)
def test_addresses_are_shown_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_value_is_shown_short_on_one_line_and_without_secrets() -> None:
    assert in_short({"uri": "http://me:secret@host"}) == '{"uri": "http://***@host"}'
    shown = in_short("long\n" * 100)
    assert len(shown) == 60
    assert shown.endswith("...")
    assert "\n" not in shown
