"""The charts of a report. Scores are in percent. What differs in colour differs in shape or lightness, too.

Importing matplotlib takes a second: import this module late.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from stkd.orchestrator.drawing import (
    ACCENT,
    GRID,
    INK,
    MAP,
    MOST_POINTS,
    MUTED,
    PAPER,
    SECOND,
    as_svg,
    canvas,
    own_style,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Named:
    """Something with a mean and an interval, or with a mean alone."""

    name: str
    mean: float
    low: float
    high: float
    marked: bool = False


@dataclass(frozen=True)
class Group:
    """Points of one kind, with what they are called."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


MARKS: Mapping[str, Mapping[str, Any]] = {
    "teacher": {"marker": "s", "color": INK, "s": 45},
    "finished": {"marker": "o", "color": ACCENT, "s": 22},
    "stopped early": {"marker": "o", "facecolors": "none", "edgecolors": MUTED, "s": 18},
    "control": {"marker": "^", "color": SECOND, "s": 32},
    "chosen": {"marker": "*", "color": ACCENT, "edgecolors": INK, "linewidths": 0.7, "s": 150, "zorder": 5},
}
"""How points of each kind look."""


def intervals_chart(rows: Sequence[Named], label: str, name: str, title: str) -> Markup:
    """A line for each row, from the top, with its mean and interval."""
    with own_style():
        figure, axes = canvas(6.4, 0.6 + 0.32 * len(rows))
        for place, row in enumerate(rows):
            colour = ACCENT if row.marked else INK
            if isfinite(row.low) and isfinite(row.high):
                axes.plot([row.low, row.high], [place, place], color=colour, linewidth=3 if row.marked else 1.6)
            axes.plot([row.mean], [place], marker="D" if row.marked else "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return as_svg(figure, name, title)


def scatter_chart(groups: Sequence[Group], front: Array, labels: tuple[str, str], name: str, title: str) -> Markup:
    """Points by kind, and the steps of the front (points, 2) that none of them beats in both."""
    with own_style():
        figure, axes = canvas(5.0, 3.3)
        _scatter(axes, groups)
        if len(front) > 1:
            axes.step(front[:, 0], front[:, 1], where="post", color=ACCENT, linewidth=1, linestyle="--")
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.margins(0.08)
        axes.grid()
        figure.legend(loc="outside upper left", ncols=5, handletextpad=0.2, columnspacing=1.0)
        return as_svg(figure, name, title)


def _scatter(axes: Axes, groups: Sequence[Group]) -> None:
    for group in groups:
        if group.x:
            many = len(group.x) > MOST_POINTS
            drawn = axes.scatter(group.x, group.y, label=group.name, rasterized=many, **MARKS[group.name])
            if many:
                drawn.set_sizes([5])


def settings_chart(panels: Mapping[str, Sequence[Group]], logarithmic: Container[str], name: str, title: str) -> Markup:
    """The score over each setting, side by side, up to three in a row."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with own_style():
        figure = Figure(figsize=(2.9 * columns + 0.6, 2.5 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for place, (setting, groups) in zip(grid, panels.items(), strict=False):
            _scatter(place, groups)
            place.set_xlabel(setting)
            place.grid()
            if setting in logarithmic:
                place.set_xscale("log")
                place.minorticks_off()
                _few_log_ticks(place, groups)
        for place in grid[len(panels) :]:
            place.remove()
        for row in range(rows):
            grid[row * columns].set_ylabel("score")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
        return as_svg(figure, name, title)


def _few_log_ticks(axes: Axes, groups: Sequence[Group]) -> None:
    """Numbers that one reads, where a decade is too wide to have any."""
    values = [value for group in groups for value in group.x]
    low, high = min(values), max(values)
    if high / low < 100:
        ticks = [step * 10.0**power for power in range(-8, 8) for step in (1, 2, 5)]
        shown = [tick for tick in ticks if 0.9 * low <= tick <= 1.1 * high]
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])


def grid_chart(
    cells: Array, finished: NDArray[np.bool_], names: tuple[Sequence[str], Sequence[str]], name: str, title: str
) -> Markup:
    """The best score by interpolation (rows) and sparsity (columns); NaN where nothing was tried."""
    rows, columns = names
    with own_style():
        figure, axes = canvas(1.6 + 0.62 * len(columns), 1.2 + 0.42 * len(rows))
        shades = Normalize(float(np.nanmin(cells)), float(np.nanmax(cells)))
        axes.imshow(np.ma.masked_invalid(cells), cmap=MAP, norm=shades, aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(cells):
            if isfinite(value):
                colour = "black" if shades(value) > 0.55 else "white"
                text = f"{value:.1f}" if finished[row, column] else f"({value:.1f})"
                axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("sparsity s")
        axes.set_ylabel("interpolation lambda")
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor")
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        return as_svg(figure, name, title)


@dataclass(frozen=True)
class Line:
    """A learning curve: scores by epoch, and what it is of."""

    kind: str
    epochs: Sequence[int]
    scores: Sequence[float]


LINES: Mapping[str, Mapping[str, Any]] = {
    "stopped early": {"color": MUTED, "linewidth": 0.8, "linestyle": ":", "marker": "o", "markersize": 3},
    "finished": {"color": MUTED, "linewidth": 1.1},
    "control": {"color": SECOND, "linewidth": 1.3, "linestyle": "-.", "marker": "^", "markersize": 4},
    "teacher": {"color": INK, "linewidth": 1.6, "linestyle": "--", "marker": "s", "markersize": 4},
    "chosen": {"color": ACCENT, "linewidth": 2.8, "marker": "D", "markersize": 5, "zorder": 5},
}


def curves_chart(lines: Sequence[Line], name: str, title: str) -> Markup:
    """Scores by epoch."""
    with own_style():
        figure, axes = canvas(7.4, 3.3)
        axes.set_rasterization_zorder(3 if len(lines) > MOST_POINTS else None)
        named: set[str] = set()
        for line in sorted(lines, key=lambda line: list(LINES).index(line.kind)):
            label = line.kind if line.kind not in named else None
            axes.plot(line.epochs, line.scores, label=label, **LINES[line.kind])
            named.add(line.kind)
        axes.set_xlabel("epoch")
        axes.set_ylabel("score")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        figure.legend(loc="outside right upper")
        return as_svg(figure, name, title)


def heads_chart(scores: Array, kept: NDArray[np.bool_], name: str, title: str) -> Markup:
    """What heads (L, H) are ranked by; those that the teacher has lost are crossed out."""
    layers, heads = scores.shape
    with own_style():
        figure, axes = canvas(1.4 + 0.34 * heads, 0.9 + 0.34 * layers)
        shades = Normalize(float(scores.min()), float(scores.max()))
        image = axes.imshow(scores, cmap=MAP, norm=shades, aspect="auto")
        for layer, head in np.argwhere(~kept):
            pale = shades(float(scores[layer, head])) > 0.55
            axes.text(head, layer, "×", color="black" if pale else "white", ha="center", va="center", fontsize=11)
        _number(axes, heads, "head")
        axes.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
        axes.set_ylabel("layer")
        figure.colorbar(image, ax=axes, label="knowledge", pad=0.02).outline.set_visible(False)
        return as_svg(figure, name, title)


def _number(axes: Axes, count: int, label: str) -> None:
    step = -(-count // 16)
    axes.set_xticks(range(0, count, step), [str(place + 1) for place in range(0, count, step)])
    axes.set_xlabel(label)


def neurons_chart(kept: Sequence[int], neurons: int, name: str, title: str) -> Markup:
    """How many of each layer's neurons the teacher has kept."""
    with own_style():
        figure, axes = canvas(5.0, 0.9 + 0.3 * len(kept))
        places = range(len(kept))
        axes.barh(places, [neurons] * len(kept), color="none", edgecolor=MUTED, linewidth=0.8)
        axes.barh(places, kept, color=ACCENT)
        for place, count in enumerate(kept):
            inside = count > neurons / 4
            axes.text(
                count + (-0.01 if inside else 0.01) * neurons, place, f"{count:,}",
                color=PAPER if inside else INK, va="center", ha="right" if inside else "left", fontsize=8,
            )  # fmt: skip
        axes.set_yticks(places, [str(layer + 1) for layer in places])
        axes.invert_yaxis()
        axes.set_xlabel(f"neurons kept, of {neurons:,}")
        axes.set_ylabel("layer")
        return as_svg(figure, name, title)


def bars_chart(groups: Mapping[str, Mapping[str, float]], label: str, name: str, title: str) -> Markup:
    """A bar for each name; of several groups, side by side, the first one filled."""
    names = list(dict.fromkeys(bar for group in groups.values() for bar in group))
    height = 0.8 / len(groups)
    with own_style():
        figure, axes = canvas(6.0, 0.8 + (0.2 + 0.18 * len(groups)) * len(names))
        for number, (group, bars) in enumerate(groups.items()):
            places = [place + (number - (len(groups) - 1) / 2) * height for place in range(len(names))]
            look: dict[str, Any] = {"color": ACCENT}
            if number:
                look = {"color": GRID, "edgecolor": INK, "hatch": "///"}
            values = [bars.get(bar, 0.0) for bar in names]
            axes.barh(places, values, height=0.9 * height, label=group, linewidth=0.7, **look)
            for place, value in zip(places, values, strict=True):
                axes.annotate(
                    f"{value:.0f} %", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8
                )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.margins(x=0.12)
        axes.tick_params(axis="y", length=0)
        if len(groups) > 1:
            axes.legend(loc="lower right")
        return as_svg(figure, name, title)
