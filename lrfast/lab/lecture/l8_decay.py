"""L8: cure one for the burst, learning-rate decay."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import lrfast
from lrfast import schedules

from . import drawing, l7_burst
from .descent import Descent, descend
from .lesson import Lesson, number, pictures
from .surface import WIDE_BOWL

__all__ = ["classic_sum", "difference", "lesson", "run"]


@cache
def run() -> Descent:
    """The run of L7 with eta / sqrt(t) in place of eta."""
    lr = schedules.inverse_sqrt(0.1)
    return descend(WIDE_BOWL, lrfast.Adagrad, l7_burst.UPDATES, lr=lr, accumulate="mean", eps=0.0)


@cache
def classic_sum() -> Descent:
    """Adagrad as it was published: sigma^2 is the sum of all squares, eta stays."""
    return descend(WIDE_BOWL, lrfast.Adagrad, l7_burst.UPDATES, lr=0.1, eps=0.0)


def difference() -> float:
    """Largest relative difference between the ends of both."""
    return float(np.abs(run().path[-1] / classic_sum().path[-1] - 1).max())


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    burst, decayed = l7_burst.run(), run()
    _draw_heights(burst, decayed, folder)
    _draw_rates(burst, decayed, folder)
    late = np.abs(decayed.path[300:, 1]).max()
    shown = pictures(["l8-heights", "l8-rates"], "Distance from the floor of the valley, and effective rate of y.")
    return Lesson(
        name="L8",
        title="Cure one: decay",
        claim="Learning-rate decay: eta gets smaller with time, so that the burst cannot grow.",
        measured=f"|<i>y</i>| after update 300 is at most {number(late)}; the end equals that of the classic sum form "
        f"to {number(difference(), 1)}",
        holds=bool(late < 1e-10 and difference() < 1e-8),
        body=f"""
<p>The same run with &eta;<sub><i>t</i></sub> = &eta;/&radic;<i>t</i>. &sigma;<sub><i>y</i></sub> still falls like
1/&radic;<i>t</i>, but &eta;<sub><i>t</i></sub> falls as fast, so their ratio stands still and nothing bursts. There is
more to it: with this decay &eta;<sub><i>t</i></sub>/&sigma;<sub><i>t</i></sub> =
&eta;/&radic;(<i>g</i><sub>1</sub>&sup2; + &hellip; + <i>g</i><sub><i>t</i></sub>&sup2;). This is Adagrad as it was
published, with a sum in place of the mean, step for step: after {decayed.updates:,} updates both stand at the same
point to {number(difference(), 1)}. The price is speed: <i>x</i> is at {number(decayed.path[-1, 0])} where the run of
L7 is at {number(burst.path[-1, 0])}.</p>
{shown}""",
    )


def _draw_heights(burst: Descent, decayed: Descent, folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    for name, descent, colour in (
        ("without decay (L7)", burst, drawing.COLOURS[1]),
        (r"with $\eta / \sqrt{t}$", decayed, drawing.COLOURS[2]),
    ):
        axes.plot(np.abs(descent.path[:, 1]), color=colour, linewidth=1.9, label=name)
    axes.set_yscale("log")
    axes.set_ylim(1e-130, 1e6)
    axes.set_yticks([1e-120, 1e-80, 1e-40, 1])
    axes.set_xlabel("update")
    axes.set_ylabel("|y|")
    axes.xaxis.set_major_formatter(drawing.thousands)
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l8-heights")


def _draw_rates(burst: Descent, decayed: Descent, folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    updates = np.arange(1, burst.updates + 1)
    axes.plot(updates, burst.rates[:, 1], color=drawing.COLOURS[1], linewidth=1.9, label="without decay (L7)")
    label = r"with $\eta / \sqrt{t}$"
    axes.plot(updates, decayed.rates[:, 1], color=drawing.COLOURS[2], linewidth=1.9, label=label)
    axes.axhline(l7_burst.LIMIT, color=drawing.INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("2/100: bounces above", (1_490, l7_burst.LIMIT), (0, 5), textcoords="offset points", ha="right")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel(r"effective rate $\eta / \sigma$ of y")
    axes.xaxis.set_major_formatter(drawing.thousands)
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l8-rates")
