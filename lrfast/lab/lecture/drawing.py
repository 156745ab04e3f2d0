"""How the pictures look: matplotlib into SVG files that are as wide as a phone, the same bytes on every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .surface import LONG_BOWL, Surface

__all__ = ["COLOURS", "INK", "STYLE", "contours", "legend_above", "long_bowl", "mark_ends", "new", "save", "thousands"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499")
"""Okabe and Ito's, told apart by everyone."""
INK = "#1f2933"
STYLE: Any = {
    "axes.edgecolor": "#8a949e",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": "#e6e9ec",
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "svg.hashsalt": "lrfast",  # the same numbers give the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
"""For matplotlib.rc_context around everything that is drawn."""

_HEIGHTS = ("#f7fafc", "#edf2f6", "#e1e9f0", "#d3dfe9", "#c3d4e2", "#b1c7d9", "#9fbad0")


def new(height: float = 3.0, legend: int = 0) -> tuple[Figure, Any]:
    """A figure 4.3 inches wide with room for ``legend`` lines above; margins are fixed, so that neighbours align."""
    figure = Figure(figsize=(4.3, height))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.18, right=0.97, bottom=0.5 / height, top=1 - (0.12 + 0.22 * legend) / height)
    return figure, axes


def legend_above(figure: Figure, columns: int = 1) -> None:
    """The legend of all axes in the room that new() left."""
    figure.legend(loc="upper left", ncols=columns, handlelength=2.6, columnspacing=1.2, borderaxespad=0.2)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Into ``<folder>/<name>.svg``."""
    figure.savefig(folder / f"{name}.svg", format="svg", metadata={"Date": None})


def contours(axes: Any, surface: Surface, x: Any, y: Any, exponents: Sequence[int]) -> None:
    """Heights of the surface over the grid x, y, with lines at powers of ten; exponents has seven entries at most."""
    grid_x, grid_y = np.meshgrid(x, y)
    levels = [0.0, *(10.0**k for k in exponents)]
    heights = surface.loss(np.stack([grid_x, grid_y], axis=-1))
    axes.contourf(grid_x, grid_y, heights, levels, colors=_HEIGHTS[: len(exponents)], extend="neither")
    axes.contour(grid_x, grid_y, heights, levels[1:], colors="#8a9fb3", linewidths=0.6)
    axes.set_xlabel("x (flat)")
    axes.set_ylabel("y (steep)")
    axes.grid(visible=False)


def long_bowl(axes: Any) -> None:
    """Contours of the bowl of L1 to L4, dense around the floor of its narrow valley."""
    contours(axes, LONG_BOWL, np.linspace(-5.8, 1.8, 153), 0.68 * np.linspace(-1, 1, 121) ** 3, range(-4, 3))


def mark_ends(axes: Any, surface: Surface) -> None:
    """Start and minimum."""
    axes.plot(*surface.start, color=INK, marker="o", markersize=6, zorder=3)
    axes.annotate("start", surface.start, (0, 7), textcoords="offset points", ha="center")
    axes.plot(*surface.minimum, color=INK, marker="*", markersize=11, zorder=3)
    axes.annotate("minimum", surface.minimum, (7, -14), textcoords="offset points")


def _with_commas(value: float, _: Any) -> str:
    return f"{value:,.0f}"


thousands = FuncFormatter(_with_commas)
"""Ticks such as 1,000."""
