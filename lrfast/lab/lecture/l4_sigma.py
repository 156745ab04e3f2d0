"""L4: a rate for each parameter, eta divided by the root mean square of its gradients so far."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import lrfast

from . import drawing, l1_bouncing
from .descent import Descent, descend
from .lesson import Lesson, number, pictures
from .surface import LONG_BOWL

__all__ = ["lesson", "run"]


@cache
def run() -> Descent:
    """The rate and number of updates of L1, but eta divided by sigma."""
    return descend(LONG_BOWL, lrfast.Adagrad, 2_000, lr=0.01, accumulate="mean")


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    adaptive = run()
    _draw_path(adaptive, folder)
    _draw_rates(adaptive, folder)
    x, y = adaptive.rates[-1]
    loss, before = adaptive.losses[-1], l1_bouncing.run().losses[-1]
    shown = pictures(
        ["l4-path", "l4-rates"],
        "Path and effective rates &eta;/&sigma;. Above 2/200 = 0.01 the steep direction would bounce ever "
        "higher; the flat one could take up to 2/0.01 = 200.",
    )
    return Lesson(
        name="L4",
        title="A rate for each parameter",
        claim="Different parameters need different rates: divide by sigma, the root mean square of all gradients so "
        "far. Flat direction: large step; steep direction: small step. This is the idea of Adagrad.",
        measured=f"loss {number(loss)} after {adaptive.updates:,} updates, where one rate stood at {before:.2f}; "
        f"<i>x</i> moves at {x:.2f}, <i>y</i> at {y:.4f}",
        holds=bool(loss < 1e-8 and x > 0.01 > y),
        body=f"""
<p>Divide the rate by &sigma;, the root mean square of all gradients of that parameter so far,
&sigma;<sub><i>t</i></sub>&sup2; = (<i>g</i><sub>1</sub>&sup2; + &hellip; +
<i>g</i><sub><i>t</i></sub>&sup2;)&thinsp;/&thinsp;<i>t</i>: large steps where it is flat, small ones where it is steep.
With the same &eta; = 0.01 and the same number of updates as at first the path now arrives: the loss ends at
{number(loss)}. At the end <i>x</i> moves at a rate of {x:.2f} and <i>y</i> at {y:.4f}, {x / y:,.0f} times less.</p>
{shown}""",
    )


def _draw_path(adaptive: Descent, folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    drawing.long_bowl(axes)
    label = r"$\eta = 0.01$ divided by $\sigma$, 2,000 updates"
    axes.plot(*adaptive.path.T, color=drawing.COLOURS[2], linewidth=2, label=label)
    dots = adaptive.path[::100].T
    axes.plot(*dots, color=drawing.COLOURS[2], linestyle="none", marker="o", markersize=4, label="every 100th update")
    drawing.mark_ends(axes, LONG_BOWL)
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l4-path")


def _draw_rates(adaptive: Descent, folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    updates = np.arange(1, adaptive.updates + 1)
    axes.plot(updates, adaptive.rates[:, 0], color=drawing.COLOURS[0], linewidth=2, label="x, the flat direction")
    axes.plot(updates, adaptive.rates[:, 1], color=drawing.COLOURS[1], linewidth=2, label="y, the steep direction")
    axes.axhline(0.01, color=drawing.INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("0.01: one rate for both", (1000, 0.01), (0, 5), textcoords="offset points", ha="center")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel(r"effective rate $\eta / \sigma$")
    axes.xaxis.set_major_formatter(drawing.thousands)
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l4-rates")
