"""L6: Adam is RMSProp with momentum; its defaults serve most of the time."""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator

import lrfast

from ..._engine.arithmetic import Array
from ..digits import load_digits
from ..training import FIRST_SEED, Contestant, train
from . import drawing
from .descent import descend
from .lesson import Lesson, number, pictures, power
from .surface import CRESCENT, LONG_BOWL

__all__ = ["BETAS", "DEFAULT", "PROBLEMS", "RATES", "betas_losses", "difference_from_rmsprop", "lesson", "sweep"]

PROBLEMS = ("bowl", "crescent", "digits")
METHODS = ("momentum", "RMSProp", "Adam")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
DEFAULT = (0.9, 0.999)
BETAS = tuple(product((0.0, 0.5, 0.8, 0.9, 0.95, 0.99), (0.9, 0.99, 0.999, 0.9999)))
UPDATES = {"bowl": 2_000, "crescent": 5_000}
EPOCHS = 3
_LR_OF_BETAS = {"bowl": 1e-2, "crescent": 1e-2, "digits": 2e-3}
_VARIANTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "momentum": ("momentum", lrfast.SGD, {"momentum": 0.9}),
    "RMSProp": ("rmsprop", lrfast.RMSprop, {}),
    "Adam": ("adam", lrfast.Adam, {}),
}


def final_loss(problem: str, method: str, lr: float, **settings: Any) -> float:
    """Loss at the end, infinite where the run diverged. Digits: of the training set, lr being the peak."""
    variant, cls, own = _VARIANTS[method]
    if problem == "digits":
        contestant = Contestant(method, "", variant, lr, settings)
        history = train(
            contestant,
            load_digits(FIRST_SEED),
            epochs=EPOCHS,
            seed=FIRST_SEED,
            after_epoch=int,
            dtype=np.float64,
        )
        loss = history.loss[-1]
    else:
        surface = {"bowl": LONG_BOWL, "crescent": CRESCENT}[problem]
        loss = float(descend(surface, cls, UPDATES[problem], lr=lr, **own, **settings).losses[-1])
    return loss if math.isfinite(loss) else math.inf


@cache
def sweep() -> dict[tuple[str, str], Array]:
    """(problem, method) -> final loss at each of RATES; everything else at its default, momentum at 0.9."""
    with np.errstate(all="ignore"):
        return {
            (problem, method): np.array([final_loss(problem, method, lr) for lr in RATES])
            for problem in PROBLEMS
            for method in METHODS
        }


@cache
def betas_losses() -> dict[str, Array]:
    """Problem -> final loss of Adam with each of BETAS, at one rate."""
    return {
        problem: np.array([final_loss(problem, "Adam", lr, betas=betas) for betas in BETAS])
        for problem, lr in _LR_OF_BETAS.items()
    }


@cache
def difference_from_rmsprop() -> float:
    """Largest distance on the crescent between Adam without momentum and RMSProp with Adam's bias correction."""
    beta2 = DEFAULT[1]
    adam = descend(CRESCENT, lrfast.Adam, 500, lr=1e-2, betas=(0.0, beta2), eps=0.0)
    rms = descend(
        CRESCENT, lrfast.RMSprop, 500, lr=lambda t: 1e-2 * math.sqrt(1 - beta2 ** (t + 1)), alpha=beta2, eps=0.0
    )
    return float(np.abs(adam.path - rms.path).max())


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    losses, tuned = sweep(), betas_losses()
    for problem in PROBLEMS:
        _draw_sweep(problem, folder)
    _draw_betas(folder)
    best = {key: values.min() for key, values in losses.items()}
    default = BETAS.index(DEFAULT)
    worse = {problem: int((values > values[default]).sum()) for problem, values in tuned.items()}
    share = sum(worse.values()) / (len(PROBLEMS) * (len(BETAS) - 1))
    below = sum(best[problem, "Adam"] < best[problem, "RMSProp"] for problem in PROBLEMS)
    digits = tuned["digits"] / tuned["digits"][default]
    rows = "".join(
        f'<tr><th scope="row">{problem}</th>'
        + "".join(f"<td>{_small(best[problem, method])}</td>" for method in METHODS)
        + f"<td>{worse[problem]} of {len(BETAS) - 1}</td></tr>"
        for problem in PROBLEMS
    )
    shown = pictures(
        [f"l6-{problem}" for problem in PROBLEMS],
        "Final loss over the rate on bowl, crescent and digits. Where a line ends before the right edge, "
        "the next run diverged; losses below a trillionth are drawn there.",
    )
    shown_last = pictures(
        ["l6-betas"],
        "Final loss of Adam relative to that with the default &beta;, one dot per choice; above 1 is worse.",
    )
    return Lesson(
        name="L6",
        title="Adam: both ideas at once",
        claim="Adam = RMSProp + momentum. The defaults serve most of the time; tuning by hand often makes it worse.",
        measured=f"at its best rate Adam ends below RMSProp on {below} of 3 problems; of all other choices of "
        f"&beta; tried, {100 * share:.0f} % end worse than the default",
        holds=bool(difference_from_rmsprop() < 1e-9 and below == len(PROBLEMS) and share > 0.5),
        body=f"""
<p>Adam keeps RMSProp's moving average of squares and steps along a moving average of gradients, its momentum. Without
momentum (&beta;<sub>1</sub> = 0) it is RMSProp with a bias correction: their paths on the crescent differ by
{number(difference_from_rmsprop(), 1)}. Below are Adam and both of its parents on the bowl of L1, the crescent of L5 and
real data (the digits of the demo, {EPOCHS} epochs), over a sweep of the rate. On bowl and crescent
momentum alone diverges just above its best rate, and RMSProp alone goes on hopping at a distance that grows with
&eta;.</p>
{shown}
<p>Then &beta;<sub>1</sub> and &beta;<sub>2</sub> were tuned by hand: {len(BETAS)} choices for each problem, at
one rate. The default (0.9, 0.999) knows nothing about these problems, yet most other choices end worse (last column),
on bowl and crescent by orders of magnitude. On the digits it matters little: the best choice ends at
{digits.min():.2f} and the worst at {digits.max():.2f} times the loss of the default.</p>
<div class="scroll"><table><thead><tr><th scope="col">lowest loss</th>
{"".join(f'<th scope="col">{method}</th>' for method in METHODS)}<th scope="col">worse &beta;</th></tr>
</thead><tbody>{rows}</tbody></table></div>
{shown_last}""",
    )


def _small(value: float) -> str:
    return f"&lt; {power(-12)}" if value < 1e-12 else number(value)


def _draw_sweep(problem: str, folder: Path) -> None:
    picture, axes = drawing.new(3.2, legend=1)
    for method, marker, colour in zip(METHODS, "^so", drawing.COLOURS, strict=False):
        losses = np.maximum(sweep()[problem, method], 1e-12)
        kept = np.where(np.isfinite(losses), losses, np.nan)
        axes.plot(RATES, kept, color=colour, linewidth=1.9, marker=marker, markersize=4, label=method)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(RATES[0] / 1.3, RATES[-1] * 1.3)
    axes.set_xlabel(rf"$\eta$ ({problem})")
    axes.set_ylabel("final loss")
    drawing.legend_above(picture, columns=3)
    drawing.save(picture, folder, f"l6-{problem}")


def _draw_betas(folder: Path) -> None:
    picture, axes = drawing.new(3.0)
    default = BETAS.index(DEFAULT)
    for i, losses in enumerate(betas_losses().values()):
        relative = np.clip(np.delete(losses, default) / losses[default], 1e-2, 1e12)
        places = i + 0.6 * (np.arange(len(relative)) / (len(relative) - 1) - 0.5)
        axes.plot(places, relative, color=drawing.COLOURS[i], linestyle="none", marker="o", markersize=4)
    axes.axhline(1, color=drawing.INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("the default", (0.5, 1), (0, 4), textcoords="offset points", ha="center")
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 1e13)
    axes.xaxis.set_major_locator(FixedLocator([0, 1, 2]))
    axes.xaxis.set_major_formatter(FixedFormatter(list(PROBLEMS)))
    axes.set_ylabel("final loss / that of the default")
    drawing.save(picture, folder, "l6-betas")
