"""Drawings for a page: SVG that takes its colours from the page, so that it suits a light one, a dark one, and paper.

Importing matplotlib takes a second: import this module late.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID = "#101112", "#707172", "#d0d1d2"
ACCENT, SECOND = "#0b61c2", "#c2500b"
PAPER = "#fdfcfb"
COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", ACCENT: "accent", SECOND: "second", PAPER: "paper"}
"""Stand-ins, each for a colour of the page by its name there: `var(--ink)`."""
MAP = "viridis"
"""Even in lightness, so that it can be read in grey."""
MOST_POINTS = 400
"""Above these a drawing holds its points as one picture, or the page would grow without end."""
LARGEST_INCH = 118
"""Pixels that an inch takes at most, so that letters do not grow with the page."""
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "stkd",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib as it comes, whatever a user's matplotlibrc says, with the page's style."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """One set of axes, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def as_svg(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an element of a page. `name` is unique there; `title` is read out by screen readers."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = text.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>\s*", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    name = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    drawn = re.sub(r'\bid="', f'id="{name}-', drawn)
    drawn = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawn)
    for colour, meaning in COLOURS.items():
        drawn = drawn.replace(colour, f"var(--{meaning})")
    width = figure.get_size_inches()[0] * LARGEST_INCH
    head = f'<svg role="img" aria-labelledby="{name}-title" style="max-width: {width:.0f}px" '
    drawn = drawn.replace("<svg ", head, 1)
    inside = drawn.index(">") + 1
    label = f'<title id="{name}-title">{escape(title)}</title>'
    return Markup(drawn[:inside] + label + drawn[inside:])  # noqa: S704 - matplotlib escapes the texts in its SVG
