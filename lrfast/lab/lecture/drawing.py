"""How the pictures look: matplotlib into SVG files that are as wide as a phone, the same bytes on every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...diagnose.figures import COLOURS, INK, STYLE, legend_above, new
from .surface import LONG_BOWL, Surface

__all__ = ["COLOURS", "INK", "STYLE", "contours", "legend_above", "long_bowl", "mark_ends", "new", "save", "thousands"]

_HEIGHTS = ("#f7fafc", "#edf2f6", "#e1e9f0", "#d3dfe9", "#c3d4e2", "#b1c7d9", "#9fbad0")


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
