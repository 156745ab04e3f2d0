"""The picture of a monitored run, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

__all__ = ["draw"]

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
_COLOURS = ("#0072b2", "#d55e00")
_STYLE: Any = {"axes.grid": True, "axes.spines.right": False, "axes.spines.top": False, "grid.color": "#e6e9ec",
               "legend.frameon": False, "svg.hashsalt": "lrfast"}  # fmt: skip


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes five panels over the updates, one below the other; records that are not finite leave gaps."""
    updates = [row["update"] for row in rows]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7, 10), layout="constrained")
        axes = figure.subplots(len(_PANELS), sharex=True)
        for axis, (title, scale, lines) in zip(axes, _PANELS, strict=True):
            for (key, label), colour in zip(lines.items(), _COLOURS, strict=False):
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
