"""The pictures of the demo and of the range test, drawn with matplotlib, as wide as a phone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, PercentFormatter

from . import _lecture
from ._lecture import Descent
from ._training import Result
from .finder import Sweep

__all__ = ["FAMILIES", "draw_lecture", "draw_training"]

FAMILIES = {
    "sgd": "Gradient descent",
    "rms": "Divided by past gradients",
    "adam": "Adam and its variants",
}

# Okabe and Ito's colours, told apart by everyone; dashes because Adam and AMSGrad lie on top of each other.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499")
_DASHES: tuple[Any, ...] = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))
_GREY = "#c4c8cc"
_HEIGHTS = ("#f7fafc", "#edf2f6", "#e1e9f0", "#d3dfe9", "#c3d4e2", "#b1c7d9", "#9fbad0")
_INK = "#1f2933"
_STYLE: Any = {
    "axes.edgecolor": "#8a949e",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": "#e6e9ec",
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "svg.hashsalt": "lrfast",  # the same numbers give the same file
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw_training(results: Sequence[Result], folder: Path) -> None:
    """Writes ``<quantity>-<family>.svg`` for loss, grad_norm and test_accuracy and each family.

    All families of a quantity share their axes: each picture shows the others in grey.
    """
    for quantity in ("loss", "grad_norm", "test_accuracy"):
        for family in FAMILIES:
            with matplotlib.rc_context(_STYLE):
                _save(_training_curves(results, quantity, family), folder / f"{quantity}-{family}.svg")


def _training_curves(results: Sequence[Result], quantity: str, family: str) -> Figure:
    figure, axes = _new(3.4, legend=2)
    styles = zip(_COLOURS, _DASHES, strict=True)
    for result in sorted(results, key=lambda result: result.contestant.family == family):  # its own on top
        curve = result.curve(quantity)
        if result.contestant.family != family:
            axes.plot(curve, color=_GREY, linewidth=0.9)
        else:
            colour, dashes = next(styles)
            axes.plot(curve, color=colour, linestyle=dashes, linewidth=1.9, label=result.contestant.name)
    if quantity == "test_accuracy":
        axes.set_ylim(0.9, 1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel({"loss": "training loss", "grad_norm": "gradient norm", "test_accuracy": "test accuracy"}[quantity])
    axes.margins(x=0.01)
    _legend_above(figure, columns=2)
    return figure


def draw_lecture(bouncing: Descent, crawling: Descent, adaptive: Descent, folder: Path) -> None:
    """Writes ``l1-loss``, ``l1-grad_norm``, ``l1-path``, ``l3-paths``, ``l4-path`` and ``l4-rates``, as SVG."""
    with matplotlib.rc_context(_STYLE):
        _save(_l1_series(bouncing.losses, "loss", "{:.2f}"), folder / "l1-loss.svg")
        _save(_l1_series(bouncing.grad_norms, "gradient norm", "{:.1f}"), folder / "l1-grad_norm.svg")
        _save(_l1_path(bouncing), folder / "l1-path.svg")
        _save(_l3_paths(bouncing, crawling), folder / "l3-paths.svg")
        _save(_l4_path(adaptive), folder / "l4-path.svg")
        _save(_l4_rates(adaptive), folder / "l4-rates.svg")


def _l1_series(values: np.ndarray[Any, Any], label: str, number: str) -> Figure:
    figure, axes = _new(3.0)
    axes.plot(values, color=_COLOURS[1], linewidth=2)
    axes.set_ylim(0, 1.35 * values.max())
    axes.set_xlabel("update")
    axes.set_ylabel(label)
    axes.xaxis.set_major_formatter(_thousands)
    text = f"stands at {number.format(values[-1])}"
    axes.annotate(text, (len(values) / 2, values[-1]), (0, 8), textcoords="offset points", ha="center")
    return figure


def _l1_path(bouncing: Descent) -> Figure:
    figure, axes = _new(3.0)
    _bowl(axes)
    axes.plot(*bouncing.path.T, color=_COLOURS[1], linewidth=0.4)
    _mark_ends(axes)
    first = bouncing.path[:11]
    box = Rectangle((0.4, 0.56), 0.58, 0.42, transform=axes.transAxes, color="white", zorder=3)
    axes.add_patch(box)
    inset = axes.inset_axes((0.53, 0.71, 0.43, 0.19), zorder=4)
    inset.plot(1000 * (first[:, 0] + 5), first[:, 1], color=_COLOURS[1], linewidth=1.2, marker="o", markersize=2.5)
    inset.set_title("the first 10 updates", fontsize=9, pad=3)
    inset.set_xlabel("1000 (x + 5)", fontsize=8.5, labelpad=1)
    inset.tick_params(labelsize=8.5)
    inset.set_yticks([-0.5, 0, 0.5])
    return figure


def _l3_paths(bouncing: Descent, crawling: Descent) -> Figure:
    figure, axes = _new(3.4, legend=2)
    _bowl(axes)
    axes.plot(*bouncing.path.T, color=_COLOURS[1], linewidth=0.4)
    axes.plot([], [], color=_COLOURS[1], linewidth=4, label=r"$\eta = 0.01$, 2,000 updates: bounces for ever")
    axes.plot(*crawling.path[::1000].T, color=_COLOURS[0], linewidth=2.5)
    axes.plot(*crawling.path[-1], color=_COLOURS[0], marker="o", markersize=6)
    axes.plot(
        [], [], color=_COLOURS[0], linewidth=2.5, marker="o", label=r"$\eta = 10^{-7}$, 100,000 updates: never arrives"
    )
    _mark_ends(axes)
    _legend_above(figure, columns=1)
    return figure


def _l4_path(adaptive: Descent) -> Figure:
    figure, axes = _new(3.4, legend=2)
    _bowl(axes)
    axes.plot(
        *adaptive.path.T, color=_COLOURS[2], linewidth=2, label=r"$\eta = 0.01$ divided by $\sigma$, 2,000 updates"
    )
    dots = adaptive.path[::100]
    axes.plot(*dots.T, color=_COLOURS[2], linestyle="none", marker="o", markersize=4, label="every 100th update")
    _mark_ends(axes)
    _legend_above(figure, columns=1)
    return figure


def _l4_rates(adaptive: Descent) -> Figure:
    figure, axes = _new(3.4, legend=2)
    updates = np.arange(1, len(adaptive.rates) + 1)
    axes.plot(updates, adaptive.rates[:, 0], color=_COLOURS[0], linewidth=2, label="x, the flat direction")
    axes.plot(updates, adaptive.rates[:, 1], color=_COLOURS[1], linewidth=2, label="y, the steep direction")
    axes.axhline(0.01, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("0.01: one rate for both", (1000, 0.01), (0, 5), textcoords="offset points", ha="center")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel(r"effective rate $\eta / \sigma$")
    axes.xaxis.set_major_formatter(_thousands)
    _legend_above(figure, columns=1)
    return figure


def draw_sweep(sweep: Sweep, path: Path) -> None:
    """Losses over the learning rate, with suggestion and edge, in the format of the suffix."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _new(3.4, legend=2)
        axes.plot(sweep.lrs, sweep.losses, color=_GREY, linewidth=0.9, label="loss")
        axes.plot(sweep.lrs[: len(sweep.smoothed)], sweep.smoothed, color=_COLOURS[0], linewidth=2, label="smoothed")
        for lr, name, colour in ((sweep.suggestion, "suggestion", _COLOURS[2]), (sweep.edge, "edge", _COLOURS[1])):
            if np.isfinite(lr):
                axes.axvline(lr, color=colour, linewidth=1.5, linestyle=_DASHES[1], label=f"{name} {lr:.2g}")
        axes.set_xscale("log")
        if len(sweep.smoothed):  # a loss that diverged would flatten all others
            low, high = np.min(sweep.smoothed), np.max(sweep.smoothed)
            margin = 0.1 * (high - low) or 1.0
            axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        _legend_above(figure, columns=2)
        figure.savefig(path)


def _bowl(axes: Any) -> None:
    """Contours of the bowl, a factor of ten apart."""
    # The valley is narrow: points of the grid are dense around its floor.
    x, y = np.meshgrid(np.linspace(-5.8, 1.8, 153), 0.68 * np.linspace(-1, 1, 121) ** 3)
    heights = _lecture.loss(np.stack([x, y], axis=-1))
    levels = [0.0, *10.0 ** np.arange(-4, 3)]
    axes.contourf(x, y, heights, levels, colors=_HEIGHTS)
    axes.contour(x, y, heights, levels[1:], colors="#8a9fb3", linewidths=0.6)
    axes.set_xlabel("x (flat)")
    axes.set_ylabel("y (steep)")
    axes.grid(visible=False)


def _mark_ends(axes: Any) -> None:
    axes.plot(*_lecture.START, color=_INK, marker="o", markersize=6, zorder=3)
    axes.annotate("start", _lecture.START, (0, 7), textcoords="offset points", ha="center")
    axes.plot(0, 0, color=_INK, marker="*", markersize=11, zorder=3)
    axes.annotate("minimum", (0, 0), (0, -17), textcoords="offset points", ha="center")


def _new(height: float, legend: int = 0) -> tuple[Figure, Any]:
    """A figure 4.3 inches wide with room for ``legend`` lines above; margins are fixed, so that neighbours align."""
    figure = Figure(figsize=(4.3, height))
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.16, right=0.97, bottom=0.5 / height, top=1 - (0.12 + 0.22 * legend) / height)
    return figure, axes


def _legend_above(figure: Figure, columns: int) -> None:
    figure.legend(loc="upper left", ncols=columns, handlelength=2.6, columnspacing=1.2, borderaxespad=0.2)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})


_thousands = FuncFormatter(lambda value, _: f"{value:,.0f}")
