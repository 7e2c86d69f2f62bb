"""Numbers of things as people write them: 20M."""

import re

MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}


def amount(given: object) -> object:
    """A number of things; `20M` and `1.5B` are texts, and everything else is left as it is."""
    if not isinstance(given, str):
        return given
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMB]?)", given.strip())
    if found is None:
        raise ValueError("must be a number, as 20000000, 20M or 1.5B")
    return round(float(found[1]) * MULTIPLES[found[2]])


def with_unit(number: float) -> str:
    """A number of things as one reads it: 17.4M."""
    number = float(f"{number:.3g}")
    unit = next((unit for unit, size in reversed(MULTIPLES.items()) if number >= size), "")
    return f"{number / MULTIPLES[unit]:.3g}{unit}"
