"""The pictures of a monitored run and of a range test, and how pictures look here, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .._engine.arithmetic import Array

__all__ = ["COLOURS", "DASHED", "GREY", "INK", "STYLE", "draw_run", "draw_sweep", "legend_above", "new"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499")
"""Okabe and Ito's, told apart by everyone."""
INK = "#1f2933"
GREY = "#c4c8cc"
DASHED: Any = (0, (6, 2))

_PLAIN: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#e6e9ec",
    "legend.frameon": False,
    "svg.hashsalt": "lrfast",  # the same numbers give the same file
}
STYLE: Any = {
    **_PLAIN,
    "axes.edgecolor": "#8a949e",
    "axes.labelcolor": INK,
    "font.size": 10,
    "legend.fontsize": 9.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
"""For matplotlib.rc_context around what new() begins."""

_PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("loss", "linear", {"loss": "loss"}),
    ("norm of the gradient", "log", {"grad_norm": "norm"}),
    ("size of the update, relative to the parameters", "log", {"update_ratio": "update / parameter"}),
    ("effective rate", "log", {"rate_max": "largest", "rate_median": "median"}),
    (
        "does the gradient turn back?",
        "linear",
        {"cosine": "cosine with the last update", "bounce": "share of elements"},
    ),
)


def draw_run(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes five panels over the updates, one below the other; records that are not finite leave gaps."""
    updates = [row["update"] for row in rows]
    with matplotlib.rc_context(_PLAIN):
        figure = Figure(figsize=(7, 10), layout="constrained")
        axes = figure.subplots(len(_PANELS), sharex=True)
        for axis, (title, scale, lines) in zip(axes, _PANELS, strict=True):
            for (key, label), colour in zip(lines.items(), COLOURS, strict=False):
                values = np.array([row[key] for row in rows], dtype=np.float64)
                values[~np.isfinite(values) | ((values <= 0) & (scale == "log"))] = np.nan
                marker = "." if np.isfinite(values).sum() < 50 else None
                axis.plot(updates, values, color=colour, linewidth=1, marker=marker, label=label)
                if scale == "log" and np.isfinite(values).any():
                    axis.set_yscale("log")
            axis.set_title(title, loc="left", fontsize=10)
            if len(lines) > 1:
                axis.legend(fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
        axes[-1].set_ylim(-1.05, 1.05)
        axes[-1].set_xlabel("updates")
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_sweep(lrs: Array, losses: Array, smoothed: Array, suggestion: float, edge: float, path: Path) -> None:
    """Losses over the learning rate, with suggestion and edge, in the format of the suffix."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new(3.4, legend=2)
        axes.plot(lrs, losses, color=GREY, linewidth=0.9, label="loss")
        axes.plot(lrs[: len(smoothed)], smoothed, color=COLOURS[0], linewidth=2, label="smoothed")
        for lr, name, colour in ((suggestion, "suggestion", COLOURS[2]), (edge, "edge", COLOURS[1])):
            if np.isfinite(lr):
                axes.axvline(lr, color=colour, linewidth=1.5, linestyle=DASHED, label=f"{name} {lr:.2g}")
        axes.set_xscale("log")
        if len(smoothed):  # a loss that diverged would flatten all others
            low, high = np.min(smoothed), np.max(smoothed)
            margin = 0.1 * (high - low) or 1.0
            axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        legend_above(figure, columns=2)
        figure.savefig(path)


def new(height: float = 3.0, legend: int = 0) -> tuple[Figure, Any]:
    """A figure 4.3 inches wide with room for ``legend`` lines above; margins are fixed, so that neighbours align."""
    figure = Figure(figsize=(4.3, height))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.18, right=0.97, bottom=0.5 / height, top=1 - (0.12 + 0.22 * legend) / height)
    return figure, axes


def legend_above(figure: Figure, columns: int = 1) -> None:
    """The legend of all axes in the room that new() left."""
    figure.legend(loc="upper left", ncols=columns, handlelength=2.6, columnspacing=1.2, borderaxespad=0.2)
