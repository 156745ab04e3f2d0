"""L7: small gradients, accumulated, make the effective rate grow until one step bursts sideways."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import lrfast

from . import drawing
from .descent import Descent, descend
from .lesson import Lesson, number, pictures
from .player import Track, player
from .surface import WIDE_BOWL

__all__ = ["LIMIT", "UPDATES", "lesson", "peak", "run"]

UPDATES = 1_500
LIMIT = 2 / 100
"""The rate above which the steep direction, of curvature 100, bounces ever higher."""


@cache
def run() -> Descent:
    """L4's rule with ten times the rate, on a bowl half as steep."""
    return descend(WIDE_BOWL, lrfast.Adagrad, UPDATES, lr=0.1, accumulate="mean")


def peak(descent: Descent) -> int:
    """The update after which |y| is largest, its first 300 left out."""
    return 300 + int(np.abs(descent.path[300:, 1]).argmax())


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    burst = run()
    at = peak(burst)
    height = np.abs(burst.path[:, 1])
    quiet = int(height[:at].argmin())
    crossed = int(np.argmax(burst.rates[:, 1] > LIMIT)) + 1
    _draw_path(burst, at, folder)
    _draw_rates(burst, at, folder)
    shown = pictures(["l7-path", "l7-rates"], "Path and effective rates &eta;/&sigma;, with the burst marked.")
    return Lesson(
        name="L7",
        title="The burst",
        claim="Small gradients, accumulated, make the effective rate grow: after a long quiet time the steep direction "
        "has a small sigma, the path bursts sideways, sigma recovers, and the path comes back.",
        measured=f"|<i>y</i>| had fallen to {number(height[quiet])}, bursts to {height[at]:.2f} at update {at} and is "
        f"{number(height[at + 100])} a hundred updates later",
        holds=bool(height[quiet] < 1e-10 and height[at] > 0.5 and height[at + 100] < 1e-3),
        body=f"""
<p>L4's rule has a weakness. While the path walks along the floor of the valley, the gradients of <i>y</i> are next to
zero, and &sigma;<sub><i>y</i></sub>, the root mean square of all of them, falls like 1/&radic;<i>t</i>. So
&eta;/&sigma;<sub><i>y</i></sub> grows, unnoticed, until at update {crossed} it exceeds 2/100, above which a direction
of curvature 100 bounces ever higher. <i>y</i> grows from {number(height[quiet])}, doubling and doubling, and at update
{at} it stands at {height[at]:.2f}. Now its gradients are large, &sigma; recovers, the rate falls, and the path comes
back. (Here &eta; = 0.1 and the bowl is (0.01&thinsp;<i>x</i>&sup2; + 100&thinsp;<i>y</i>&sup2;)&thinsp;/&thinsp;2.)</p>
{shown}
{_player(burst, at)}""",
    )


def _player(burst: Descent, at: int) -> str:
    # Never an even number of updates at a time: bouncing points would seem to stay on one side.
    quiet, after = np.arange(60, at - 40, 9), np.arange(at + 40, 1_200, 9)
    frames = np.concatenate([np.arange(60), quiet, np.arange(at - 40, at + 40), after])
    texts = [
        f"update {t:,}: y = {burst.path[t, 1]:.1e}, \u03b7/\u03c3 of y = {burst.rates[max(t - 1, 0), 1]:.4f}"
        f" ({'above' if burst.rates[max(t - 1, 0), 1] > LIMIT else 'below'} {LIMIT})"
        for t in frames
    ]
    return player(
        WIDE_BOWL,
        (-5.8, 1.8, (-5, -4, -3, -2, -1, 0, 1)),
        (-1.1, 1.1, (-1, -0.5, 0, 0.5, 1)),
        [10.0**k for k in range(-4, 2)],
        [Track(drawing.COLOURS[1], burst.path[frames], [text.replace("-", "\N{MINUS SIGN}") for text in texts])],
        "The same run, moving: nine updates at a time, but one at a time at the start and near the burst.",
    )


def _draw_path(burst: Descent, at: int, folder: Path) -> None:
    picture, axes = drawing.new(3.4)
    grid = 1.1 * np.linspace(-1, 1, 121) ** 3
    drawing.contours(axes, WIDE_BOWL, np.linspace(-5.8, 1.8, 153), grid, range(-4, 3))
    axes.plot(*burst.path.T, color=drawing.COLOURS[1], linewidth=1.2)
    axes.annotate(f"burst, update {at}", burst.path[at], (-8, 0), textcoords="offset points", ha="right")
    drawing.mark_ends(axes, WIDE_BOWL)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    drawing.save(picture, folder, "l7-path")


def _draw_rates(burst: Descent, at: int, folder: Path) -> None:
    picture, axes = drawing.new(3.4, legend=2)
    updates = np.arange(1, burst.updates + 1)
    axes.plot(updates, burst.rates[:, 0], color=drawing.COLOURS[0], linewidth=2, label="x, the flat direction")
    axes.plot(updates, burst.rates[:, 1], color=drawing.COLOURS[1], linewidth=2, label="y, the steep direction")
    axes.axhline(LIMIT, color=drawing.INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("2/100: bounces above", (1_490, LIMIT), (0, 5), textcoords="offset points", ha="right")
    axes.axvline(at, color=drawing.INK, linewidth=1)
    axes.annotate("burst", (at, 0.5), (4, 0), textcoords="offset points")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel(r"effective rate $\eta / \sigma$")
    axes.xaxis.set_major_formatter(drawing.thousands)
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l7-rates")
