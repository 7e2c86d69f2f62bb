"""Draws scores of units as PNG. Importing matplotlib takes a second: import this module late.

Shapes: L layers, U units of a layer: its H heads, or its N FFN neurons.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from math import ceil
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stkd.trainers.ranking import Scores

Panels = Mapping[str, Scores]
"""Scores (L, U) by what they are called: three, in one scale of colours."""

COLOURS = "viridis"
"""Even in lightness, so that it can be read in grey."""
DOTS_PER_INCH = 100
MOST_TICKS = 16
MOST_VALUES = 240
"""Written into the cells of one panel: of 24 layers of 16 heads they would be a blur, and most of the file."""
DARKEST = 0.01
"""So many of the neurons may score below the scale of colours."""
LEGEND = "score (layer norm 1)"
BAR: dict[str, Any] = {"label": LEGEND, "pad": 0.01, "fraction": 0.04}


def heads_picture(panels: Panels, title: str) -> bytes:
    """Layers by heads (L, H), with the values where they fit."""
    with _own_settings():
        return _png(_heads(panels, title))


def neurons_picture(panels: Panels, title: str) -> bytes:
    """Layers by neurons (L, N), each layer's by score, the highest first: so one sees how it falls."""
    with _own_settings():
        return _png(_neurons(panels, title))


@contextmanager
def _own_settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever a user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


def _png(figure: Figure) -> bytes:
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _heads(panels: Panels, title: str) -> Figure:
    heads = next(iter(panels.values())).shape[1]
    figure, axes = _panels(panels, title, min(max(2.4, 0.42 * heads), 5.5))
    colours = Normalize(0.0, _highest(panels))
    for place, scores in zip(axes, panels.values(), strict=True):
        place.imshow(scores, cmap=COLOURS, norm=colours, aspect="auto", interpolation="nearest")
        place.set_xlabel("head")
        _number(place.xaxis, heads)
        if heads <= MOST_TICKS and scores.size <= MOST_VALUES:
            _write_values(place, scores, colours)
    figure.colorbar(axes[0].images[0], ax=axes, **BAR)
    return figure


def _neurons(panels: Panels, title: str) -> Figure:
    layers, neurons = next(iter(panels.values())).shape
    figure, axes = _panels(panels, title, 3.6)
    highest = _highest(panels)
    colours = LogNorm(min(_lowest(panels), highest / 10), highest, clip=True)
    area = (0.5, neurons + 0.5, layers - 0.5, -0.5)
    for place, scores in zip(axes, panels.values(), strict=True):
        falling = -np.sort(-scores, axis=1)
        place.imshow(falling, cmap=COLOURS, norm=colours, aspect="auto", interpolation="nearest", extent=area)
        place.set_xlabel("neurons, highest score first")
        place.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.colorbar(axes[0].images[0], ax=axes, extend="min", **BAR)
    return figure


def _panels(panels: Panels, title: str, width: float) -> tuple[Figure, list[Axes]]:
    """Panels of that width in inches side by side, with their names, layers downwards."""
    layers = len(next(iter(panels.values())))
    height = min(max(1.0, 0.34 * layers), 9.0)
    figure = Figure(figsize=(len(panels) * width + 1.8, height + 1.4), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title)
    axes = list(figure.subplots(1, len(panels), sharey=True))
    for place, name in zip(axes, panels, strict=True):
        place.set_title(name, fontsize="medium")
        _number(place.yaxis, layers)
    axes[0].set_ylabel("layer")
    return figure, axes


def _number(axis: Axis, count: int) -> None:
    """From 1, as many numbers as there is room for."""
    shown = range(0, count, ceil(count / MOST_TICKS))
    axis.set_ticks(list(shown), labels=[str(number + 1) for number in shown])


def _write_values(place: Axes, scores: Scores, colours: Normalize) -> None:
    for (layer, unit), score in np.ndenumerate(scores):
        colour = "black" if colours(float(score)) > 0.6 else "white"
        text = f"{score:.2f}".removeprefix("0")
        place.text(unit, layer, text, color=colour, fontsize=7, ha="center", va="center")


def _highest(panels: Panels) -> float:
    """The highest score; 1 where there is none above zero, so that there is a scale."""
    return max(float(scores.max()) for scores in panels.values()) or 1.0


def _lowest(panels: Panels) -> float:
    """A score above zero that few are below."""
    scores = np.concatenate([scores.ravel() for scores in panels.values()])
    return float(np.quantile(scores[scores > 0], DARKEST)) if scores.any() else 1.0
