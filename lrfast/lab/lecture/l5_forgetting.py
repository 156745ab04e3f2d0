"""L5: the same parameter needs a rate that changes over time; RMSProp forgets old gradients."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import lrfast

from ..._engine.arithmetic import Array
from . import drawing
from .descent import Descent, descend
from .lesson import Lesson, number, pictures
from .player import Track, player
from .surface import CRESCENT

__all__ = ["RATES", "lesson", "remembering", "rmsprop", "sweep"]

UPDATES = 5_000
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
_CLASSES = (lrfast.Adagrad, lrfast.RMSprop)
_SETTINGS: tuple[dict[str, Any], ...] = ({"accumulate": "mean"}, {"alpha": 0.9, "initial": "first-gradient"})
_NAMES = ("mean of all squares (L4)", "RMSProp")


@cache
def remembering(lr: float = 1e-3) -> Descent:
    """L4's rule on the crescent."""
    return descend(CRESCENT, _CLASSES[0], UPDATES, lr=lr, **_SETTINGS[0])


@cache
def rmsprop(lr: float = 1e-3) -> Descent:
    """RMSProp with alpha = 0.9, started at sigma_1 = |g_1|."""
    return descend(CRESCENT, _CLASSES[1], UPDATES, lr=lr, **_SETTINGS[1])


@cache
def sweep() -> Array:
    """Final losses (rate, rule, start): for each of RATES L4's rule and RMSProp, each from the start of the crescent
    and from 20 others that differ from it by about 1e-6, because at large rates chance decides."""
    starts = np.array(CRESCENT.start) + 1e-6 * np.random.default_rng(5).standard_normal((21, 2))
    starts[0] = CRESCENT.start
    runs = [
        [descend(CRESCENT, cls, UPDATES, starts, lr=lr, **own) for cls, own in zip(_CLASSES, _SETTINGS, strict=True)]
        for lr in RATES
    ]
    return np.array([[run.losses[-1] for run in pair] for pair in runs])


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    remembers, forgets = remembering(), rmsprop()
    _draw_paths(folder)
    _draw_sweep(folder)
    medians = np.median(sweep(), axis=-1)
    ahead = medians[:, 1] < medians[:, 0]
    spread = sweep()[RATES.index(1e-2), 0]
    listed = ", ".join(f"{lr:g}" for lr, better in zip(RATES, ahead, strict=True) if not better)
    moving = player(
        CRESCENT,
        (-2, 2, (-2, -1, 0, 1, 2)),
        (-0.4, 2.8, (0, 1, 2)),
        [0.03, 0.3, 3.0, 30.0, 300.0],
        _tracks(),
        "Both rules at a rate of 0.001: one remembers, one forgets.",
    )
    shown = pictures(
        ["l5-paths", "l5-sweep"],
        "Paths at a rate of 0.001, and the loss after 5,000 updates over the rate: medians and full range of "
        "21 starts that differ by about a millionth.",
    )
    return Lesson(
        name="L5",
        title="A rate that changes over time",
        claim="The same parameter needs a rate that changes over time: weigh recent gradients more. This is RMSProp.",
        measured=f"at &eta; = 0.001 RMSProp ends at {number(forgets.losses[-1])}, the mean of all squares at "
        f"{number(remembers.losses[-1], 3)}; over the sweep RMSProp is ahead at {ahead.sum()} of {len(RATES)} rates",
        holds=bool(forgets.losses[-1] < 0.01 < 1 < remembers.losses[-1]),
        body=f"""
<p>A valley as curved as a crescent, <i>L</i> = 100&thinsp;(<i>y</i> &minus; <i>x</i>&sup2;)&sup2; +
(1 &minus; <i>x</i>)&sup2;, from (&minus;1.5, 2.5): what is steep at first is flat later. The mean of all squares
remembers the steep beginning for ever and therefore walks with tiny steps. RMSProp forgets:
&sigma;<sub><i>t</i></sub>&sup2; = &alpha;&thinsp;&sigma;<sub><i>t</i>&minus;1</sub>&sup2; +
(1 &minus; &alpha;)&thinsp;<i>g</i><sub><i>t</i></sub>&sup2; with &alpha; = 0.9 and &sigma;<sub>1</sub> =
|<i>g</i><sub>1</sub>|. After {UPDATES:,} updates with &eta; = 0.001 it ends at a loss of
{number(forgets.losses[-1])}, the mean of all squares at {number(remembers.losses[-1], 3)}.</p>
{moving}
<p>Is forgetting always better? No. With a larger &eta; both are quick enough, and RMSProp, whose steps never become
smaller than about &eta;, hops around the minimum at a distance. Medians over the sweep say: RMSProp is ahead at
{ahead.sum()} of {len(RATES)} rates, the mean of all squares at {listed}. At those rates it also depends on chance: at
0.01, starts that differ by a millionth end anywhere from {number(spread.min())} to {number(spread.max())}.</p>
{shown}""",
    )


def _tracks() -> list[Track]:
    frames = np.arange(0, UPDATES + 1, 20)
    return [
        Track(colour, run.path[frames], [f"{name}, update {t:,}: loss {run.losses[t]:.3g}" for t in frames])
        for name, run, colour in zip(_NAMES, (remembering(), rmsprop()), drawing.COLOURS[1:], strict=False)
    ]


def _draw_paths(folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    drawing.contours(axes, CRESCENT, np.linspace(-2, 2, 181), np.linspace(-0.4, 2.8, 181), range(-2, 5))
    for name, run, colour, width in zip(
        _NAMES, (remembering(), rmsprop()), drawing.COLOURS[1:3], (4, 1.6), strict=True
    ):
        axes.plot(*run.path.T, color=colour, linewidth=width, label=name)
        axes.plot(*run.path[-1], color=colour, marker="s", markersize=6, zorder=4)
    drawing.mark_ends(axes, CRESCENT)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l5-paths")


def _draw_sweep(folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    losses = sweep()
    for i, (name, marker, colour) in enumerate(zip(_NAMES, "os", drawing.COLOURS[1:], strict=False)):
        low, middle, high = np.quantile(losses[:, i], (0, 0.5, 1), axis=-1)
        axes.fill_between(RATES, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(RATES, middle, color=colour, linewidth=1.9, marker=marker, markersize=4, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(r"$\eta$")
    axes.set_ylabel("loss after 5,000 updates")
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l5-sweep")
