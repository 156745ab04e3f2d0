"""L1: where the loss stops falling, the gradient is often not small."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

import lrfast

from . import drawing
from .descent import Descent, descend
from .lesson import Lesson, pictures
from .surface import LONG_BOWL

__all__ = ["lesson", "run"]


@cache
def run() -> Descent:
    """Gradient descent whose rate, 0.01, is as large as the steep direction of the bowl allows; 2,000 updates."""
    return descend(LONG_BOWL, lrfast.SGD, 2_000, lr=0.01)


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    bouncing = run()
    _draw_series(bouncing.losses, "loss", "{:.2f}", folder, "l1-loss")
    _draw_series(bouncing.grad_norms, "gradient norm", "{:.1f}", folder, "l1-grad_norm")
    _draw_path(bouncing, folder)
    loss, norm = bouncing.losses[-1], bouncing.grad_norms[-1]
    stands = bool(np.ptp(bouncing.losses[1_000:]) < 1e-2 * loss)
    shown = pictures(
        ["l1-loss", "l1-grad_norm", "l1-path"],
        "Loss, gradient norm and path. The jumps lie so close that they fill a band; the small picture shows "
        "the first ten. Contours are a factor of ten apart; the two axes have different scales.",
    )
    return Lesson(
        name="L1",
        title="The loss stands still, but the gradient is large",
        claim="Where the loss stops falling, the gradient is often not small: the point bounces between the walls of "
        "a valley. It is neither a minimum nor a saddle.",
        measured=f"loss stands at {loss:.2f}, gradient norm at {norm:.1f}; {100 * bouncing.turning:.2f} % of the "
        "gradients point against the one before",
        holds=stands and norm > 50 and bouncing.turning > 0.99,
        body=f"""
<p>The simplest landscape that makes trouble is a bowl that is long in one direction,
<i>L</i>(<i>x</i>,&thinsp;<i>y</i>) = (0.01&thinsp;<i>x</i>&sup2; + 200&thinsp;<i>y</i>&sup2;)&thinsp;/&thinsp;2. It is
convex, its only minimum is (0, 0), and we start at (&minus;5, 0.5). Gradient descent with &eta; = 0.01 soon stands
still at a loss of {loss:.2f}. That looks like a minimum, but the gradient norm stands at {norm:.1f}: the point jumps
from one wall of the valley to the other. So watch the norm of the gradient beside the loss.</p>
{shown}""",
    )


def _draw_series(values: np.ndarray, label: str, text: str, folder: Path, name: str) -> None:
    picture, axes = drawing.new()
    axes.plot(values, color=drawing.COLOURS[1], linewidth=2)
    axes.set_ylim(0, 1.35 * values.max())
    axes.set_xlabel("update")
    axes.set_ylabel(label)
    axes.xaxis.set_major_formatter(drawing.thousands)
    note = f"stands at {text.format(values[-1])}"
    axes.annotate(note, (len(values) / 2, values[-1]), (0, 8), textcoords="offset points", ha="center")
    drawing.save(picture, folder, name)


def _draw_path(bouncing: Descent, folder: Path) -> None:
    picture, axes = drawing.new()
    drawing.long_bowl(axes)
    axes.plot(*bouncing.path.T, color=drawing.COLOURS[1], linewidth=0.4)
    drawing.mark_ends(axes, LONG_BOWL)
    axes.add_patch(Rectangle((0.4, 0.56), 0.58, 0.42, transform=axes.transAxes, color="white", zorder=3))
    first = bouncing.path[:11]
    inset = axes.inset_axes((0.53, 0.71, 0.43, 0.19), zorder=4)
    inset.plot(
        1000 * (first[:, 0] + 5), first[:, 1], color=drawing.COLOURS[1], linewidth=1.2, marker="o", markersize=2.5
    )
    inset.set_title("the first 10 updates", fontsize=9, pad=3)
    inset.set_xlabel("1000 (x + 5)", fontsize=8.5, labelpad=1)
    inset.tick_params(labelsize=8.5)
    inset.set_yticks([-0.5, 0, 0.5])
    drawing.save(picture, folder, "l1-path")
