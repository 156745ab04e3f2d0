"""L9: cure two, warm-up, because sigma is a statistic that needs samples."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import lrfast
from lrfast import schedules

from ..._engine.arithmetic import Array
from . import drawing
from .lesson import Lesson, pictures

__all__ = ["SEEDS", "effective_samples", "jump", "lesson", "losses"]

SEEDS = 24
PARAMETERS = 400
UPDATES = 600
WARMUP = 200
LR = 0.025
METHODS = {
    "Adam": "Adam",
    "Adam, warm-up": f"Adam with a warm-up of {WARMUP} updates",
    "RAdam": "RAdam",
    "Adam, informed": f"Adam after {WARMUP} gradients at rest",
}


@cache
def losses() -> dict[str, Array]:
    """Loss / first loss (UPDATES + 1, SEEDS) by method.

    The 400 parameters matter only by their sum S: L = 0.005 S^2, from S = 1. The gradient of each is 0.01 S plus
    normal noise, which is small (0.001) in 19 of 20 cases and large (1) in one. The informed Adam sees 200 gradients
    with a rate of 0 first.
    """
    warm = schedules.constant(LR)
    return {
        "Adam": _run(lrfast.Adam, LR),
        "Adam, warm-up": _run(lrfast.Adam, warm.warmup(WARMUP)),
        "RAdam": _run(lrfast.RAdam, LR),
        "Adam, informed": _run(lrfast.Adam, schedules.join([schedules.constant(0.0), warm], [WARMUP]))[WARMUP:],
    }


def jump(method: str) -> Array:
    """The highest loss within the first 200 updates over the first loss, by seed."""
    highest: Array = losses()[method][: WARMUP + 1].max(axis=0)
    return highest


def effective_samples(beta2: float, t: Array) -> Array:
    """How many gradients sigma has effectively seen: (1+b)/(1-b) (1-b^t)/(1+b^t), Kish's size of the weighted mean."""
    power = beta2**t
    size: Array = (1 + beta2) / (1 - beta2) * (1 - power) / (1 + power)
    return size


@cache
def _noise(updates: int) -> Array:
    """(updates, SEEDS, PARAMETERS)."""
    streams = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        normal = rng.standard_normal((updates, PARAMETERS))
        streams.append(normal * np.where(rng.random((updates, PARAMETERS)) < 0.05, 1, 0.001))
    return np.stack(streams, axis=1)


def _run(make: type[lrfast.Optimizer], lr: schedules.Schedule | float) -> Array:
    updates = UPDATES + WARMUP
    params = np.full((SEEDS, PARAMETERS), 1 / PARAMETERS)
    gradient = np.empty_like(params)
    optimizer = make(params, grads=gradient, lr=lr)  # type: ignore[call-arg]
    sums = [params.sum(axis=1)]
    for noise in _noise(updates):
        gradient[...] = 0.01 * sums[-1][:, None] + noise
        optimizer.step()
        sums.append(params.sum(axis=1))
    values = np.square(sums)
    relative: Array = values / values[0]
    return relative


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    _draw_losses(folder)
    _draw_samples(folder)
    highest = {method: jump(method) for method in METHODS}
    adam, warm, radam = highest["Adam"], highest["Adam, warm-up"], highest["RAdam"]
    late = {method: np.median(losses()[method][400:UPDATES]) for method in METHODS}
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{highest[method].min():.1f}</td><td>{np.median(highest[method]):.1f}</td>'
        f"<td>{highest[method].max():.1f}</td><td>{late[method]:.2f}</td></tr>"
        for method, name in METHODS.items()
    )
    shown = pictures(
        ["l9-losses", "l9-samples"],
        f"Loss of {SEEDS} seeds (median and full range), and the number of gradients that &sigma; has "
        "effectively seen.",
    )
    return Lesson(
        name="L9",
        title="Cure two: warm-up",
        claim="Sigma is a statistic: with few samples it is unreliable, so begin with small steps until it has seen "
        "enough.",
        measured=f"{SEEDS} seeds: without warm-up the loss first jumps up {adam.min():.0f} to {adam.max():.0f} times, "
        f"with warm-up at most {warm.max():.1f}, with RAdam at most {radam.max():.1f}",
        holds=bool(adam.min() > 10 and warm.max() < 3 and radam.max() < 3),
        body=f"""
<p>{PARAMETERS} parameters that matter only by their sum <i>S</i>: <i>L</i> = 0.005&thinsp;<i>S</i>&sup2;, and <i>S</i>
starts at 1. The gradient of each is 0.01&thinsp;<i>S</i> plus noise, which is small in 19 of 20 cases and large in one.
Soon &sigma; knows about the large ones and keeps every step small. But the first gradients are the small ones, and
Adam divides by what little it has seen: with &eta; = {LR} nearly all parameters step by {LR} in the same direction, and
the loss jumps up {adam.min():.0f} to {adam.max():.0f} times before it comes back. With a warm-up over {WARMUP} updates
it rises {warm.max():.1f} times at most. The rate itself is not too large: later, with and without warm-up stand at the
same level, and Adam that has first looked at {WARMUP} gradients without moving jumps far less. So here it is &sigma;
that was not informed; why warm-up helps real networks is open. RAdam's argument is the best-known one: it computes how
uncertain 1/&sigma; is and reduces the rate accordingly.</p>
<div class="scroll"><table><thead><tr><th scope="col" rowspan="2">{SEEDS} seeds</th>
<th scope="colgroup" colspan="3">highest loss / first loss</th><th scope="col" rowspan="2">late loss / first</th></tr>
<tr><th scope="col">lowest</th><th scope="col">median</th><th scope="col">highest</th></tr></thead>
<tbody>{rows}</tbody></table></div>
{shown}""",
    )


def _draw_losses(folder: Path) -> None:
    picture, axes = drawing.new(3.6, legend=3)
    axes.set_yscale("log")
    for method, colour, dashes in zip(
        ("Adam", "Adam, warm-up", "RAdam"), drawing.COLOURS[1:], ("-", "--", "-."), strict=True
    ):
        curves = losses()[method][: WARMUP + 1]
        axes.fill_between(np.arange(len(curves)), *np.quantile(curves, (0, 1), axis=1), color=colour, alpha=0.15, lw=0)
        axes.plot(np.median(curves, axis=1), color=colour, linestyle=dashes, linewidth=1.9, label=METHODS[method])
    axes.set_ylim(1e-4, 300)
    axes.set_xlabel("update")
    axes.set_ylabel("loss / first loss")
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l9-losses")


def _draw_samples(folder: Path) -> None:
    picture, axes = drawing.new(3.6, legend=3)
    t = np.arange(1, 3_001)
    for beta2, colour, dashes in zip((0.9, 0.99, 0.999), drawing.COLOURS, ("-.", "--", "-"), strict=False):
        label = rf"$\beta_2$ = {beta2}: at most {(1 + beta2) / (1 - beta2):,.0f}"
        axes.plot(t, effective_samples(beta2, t), color=colour, linestyle=dashes, linewidth=1.9, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("update t")
    axes.set_ylabel(r"gradients that $\sigma$ has seen")
    drawing.legend_above(picture)
    drawing.save(picture, folder, "l9-samples")
