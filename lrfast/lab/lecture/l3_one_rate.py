"""L3: one learning rate for all parameters fails on a bowl that is long in one direction."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import lrfast

from . import drawing, l1_bouncing
from .descent import Descent, descend
from .lesson import Lesson, pictures
from .player import Track, player
from .surface import LONG_BOWL

__all__ = ["crawling", "just_below", "lesson"]

bouncing = l1_bouncing.run


@cache
def crawling() -> Descent:
    """Gradient descent with a rate so small, 1e-7, that nothing bounces. 100,000 updates."""
    return descend(LONG_BOWL, lrfast.SGD, 100_000, lr=1e-7)


@cache
def just_below() -> Descent:
    """Gradient descent just below the rate that bounces for ever, 0.0099. 2,000 updates."""
    return descend(LONG_BOWL, lrfast.SGD, 2_000, lr=0.0099)


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    large, small, best = bouncing(), crawling(), just_below()
    _draw(folder)
    moved = small.path[-1, 0] - small.path[0, 0]
    height = np.abs(large.path[:, 1]).min()
    shown = pictures(["l3-paths"], "Both rates on the same contours: large bounces, small never arrives.")
    return Lesson(
        name="L3",
        title="One rate for two directions",
        claim="One learning rate for all parameters fails even on a convex bowl that is long in one direction: large "
        "oscillates, small never arrives.",
        measured=f"&eta; = 0.01: |<i>y</i>| never below {height:.2f}; &eta; = 10<sup>&minus;7</sup>: after "
        f"{small.updates:,} updates <i>x</i> has moved by {moved:.4f} of 5",
        holds=bool(height > 0.4 and moved < 0.005),
        body=f"""
<p>The steep direction allows no rate above 2/200 = 0.01, and the flat one crawls at that. Just below, at
&eta; = 0.0099, the path does arrive in the end, but after {best.updates:,} updates the loss is still
{best.losses[-1]:.3f}. With &eta; = 10<sup>&minus;7</sup> nothing bounces at all, but after {small.updates:,} updates
<i>x</i> has moved by only {moved:.4f} of the 5 that it needs.</p>
{shown}
{_player()}""",
    )


def _player() -> str:
    frames = np.arange(201)
    slowly = 500 * frames
    tracks = [
        Track(
            drawing.COLOURS[1],
            bouncing().path[frames],
            [f"\u03b7 = 0.01, update {t:,}: loss {bouncing().losses[t]:.2f}" for t in frames],
        ),
        Track(
            drawing.COLOURS[0],
            crawling().path[slowly],
            [f"\u03b7 = 0.0000001, update {t:,}: loss {crawling().losses[t]:.2f}" for t in slowly],
        ),
    ]
    return player(
        LONG_BOWL,
        (-5.8, 1.8, (-5, -4, -3, -2, -1, 0, 1)),
        (-0.68, 0.68, (-0.5, 0, 0.5)),
        [10.0**k for k in range(-4, 2)],
        tracks,
        "The same two runs, moving: the small rate makes 500 updates while the large one makes one.",
    )


def _draw(folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    drawing.long_bowl(axes)
    axes.plot(*bouncing().path.T, color=drawing.COLOURS[1], linewidth=0.4)
    label = r"$\eta = 0.01$, 2,000 updates: bounces for ever"
    axes.plot([], [], color=drawing.COLOURS[1], linewidth=4, label=label)
    axes.plot(*crawling().path[::1000].T, color=drawing.COLOURS[0], linewidth=2.5)
    axes.plot(*crawling().path[-1], color=drawing.COLOURS[0], marker="o", markersize=6)
    label = r"$\eta = 10^{-7}$, 100,000 updates: never arrives"
    axes.plot([], [], color=drawing.COLOURS[0], linewidth=2.5, marker="o", label=label)
    drawing.mark_ends(axes, LONG_BOWL)
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l3-paths")
