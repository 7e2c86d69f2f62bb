"""Ray's tokens: which one this machine has, and whether Ray sends it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from stkd.cluster.errors import TokenError

MODE, TOKEN, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def set_mode(mode: str | None) -> None:
    """Have Ray send this machine's token (`token`), or none (`disabled`); None is Ray's own default."""
    if mode is None:
        os.environ.pop(MODE, None)
    else:
        os.environ[MODE] = mode
    Config.initialize("")  # Ray keeps the mode it has read


def require_token(place: str) -> None:
    """Have Ray send this machine's token; raises TokenError, which begins with `place`, where there is none."""
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        found = loader.has_token(ignore_auth_mode=True)
    except AuthenticationError as error:
        raise TokenError(f"{place}: the cluster wants a token, but {_origin()} cannot be read, or is empty") from error
    if not found:
        raise TokenError(
            f"{place}: the cluster wants a token, and none is here; give the one that its head was started with, by "
            f"{TOKEN}, by a file that {PATH} names, or in ~/.ray/auth_token"
        )
    set_mode("token")


def wrong_token(place: str) -> str:
    """What to say where a cluster does not take this machine's token."""
    return f"{place}: the token in {_origin()} is not the cluster's; take the one that its head was started with"


def token_header() -> dict[str, str]:
    """The token as Ray's servers take it; empty where it is not to be sent."""
    header: dict[str, str] = AuthenticationTokenLoader.instance().get_token_for_http_header()
    return header


def _origin() -> str:
    """Where Ray takes this machine's token from."""
    if os.environ.get(TOKEN):
        return TOKEN
    path = os.environ.get(PATH)
    return f"{path} ({PATH})" if path else "~/.ray/auth_token"


@contextmanager
def token_of_its_own() -> Iterator[None]:
    """A fresh token for a Ray that starts now, unless the environment says how it shall be; left alone, Ray writes one
    into the home folder, for others to read.
    """
    kept = {name: os.environ.get(name) for name in (MODE, TOKEN)}
    if kept[MODE] is None:
        os.environ[TOKEN] = token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        AuthenticationTokenLoader.instance().reset_cache()
