"""The learning-rate range test: one short sweep from tiny to too large, and everything put back afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._engine import checks, trial
from .._engine.arithmetic import Array
from .._engine.extra import import_extra
from .._engine.optimizer import Optimizer

__all__ = ["Sweep", "find_lr"]

_SMOOTHING = 0.8  # weight of a neighbour: a loss is averaged with about four on either side
_CLEAR = 2.0  # times the jitter: pure noise of 300 losses falls by 1.6 of it, once in a hundred sweeps
_COARSE = 10.5  # neighbours further apart leave the answer open by more than an order of magnitude
_DIVERGED = 3.0  # as many times the fall of the loss so far, or its size, above the best


@dataclass(frozen=True)
class Sweep:
    """What :func:`find_lr` saw.

    Attributes
    ----------
    lrs
        The learning rates of the updates that were made, float64, ascending.
    losses
        ``losses[i]`` is the loss after the update with ``lrs[i]``.
    smoothed
        The losses averaged with their neighbours, without a last one that diverged.
    suggestion
        A learning rate to train with, or NaN where the sweep supports none.
    edge
        The largest stable learning rate by the sharpness; NaN if no unstable update was seen, or only unstable ones.
    reason
        Which limit gave the suggestion and how the sweep ended, in words.
    """

    lrs: Array = field(repr=False)
    losses: Array = field(repr=False)
    smoothed: Array = field(repr=False)
    suggestion: float
    edge: float
    reason: str

    def plot(self, path: str | Path) -> None:
        """Draw losses, suggestion and edge into a file; its suffix (.svg, .png, .pdf) decides the format.

        Raises ModuleNotFoundError without matplotlib, which the extra ``demo`` brings.
        """
        with import_extra("Sweep.plot", "matplotlib"):
            from .figures import draw_sweep
        draw_sweep(self.lrs, self.losses, self.smoothed, self.suggestion, self.edge, Path(path))


def find_lr(
    opt: Optimizer, loss_and_grads: Callable[[], Any], lr_min: float = 1e-7, lr_max: float = 10.0, steps: int = 100
) -> Sweep:
    """Try learning rates from small to large on the real problem and suggest one; nothing is changed in the end.

    ``loss_and_grads()`` evaluates at the present parameters, on a batch of the size to train with, and returns
    ``(loss, grads)`` with ``grads`` as for ``opt.step(grads)``. Where gradients are bound it writes them, and returns
    ``(loss, None)`` or the loss alone. For an optimizer of ``lrfast.torch`` it zeroes gradients, runs backward and
    returns the loss. It is called ``steps + 1`` times at most and must not step ``opt`` itself. Each
    time, a twin of the optimizer that starts from its states makes one update of the parameters with

    .. code-block:: text

        lr_i = lr_min (lr_max / lr_min)^(i / (steps - 1))

    for the group with the largest learning rate; the others keep their ratios to it. A scheduled lr gives way to that,
    other schedules go on. The sweep ends early where the loss or a gradient is not finite, or where the loss is three
    times its whole fall (or its size, if that is more) above its best.

    Two limits are found, and the smaller one is suggested:

    - the steepest fall of the smoothed loss against log(lr), on its way to the minimum; none if the loss does not fall
      clearly more than it jitters;
    - half the ``edge``, the last lr before the first update along which the measured sharpness reached the limit of
      stability (``opt.stats["total"]``: ``sharpness``, ``sharpness_limit``). In gradient descent on a quadratic the
      edge is 2/L and half of it, 1/L, the best single step. Batches of a few examples say little about it.

    Either lies somewhere between two neighbours: where these are more than a factor of ten apart there is no
    suggestion, and ``reason`` says how many steps it takes.

    Parameters, bound gradients, copies, states, counts and settings of ``opt`` are the same bits afterwards, also
    when ``loss_and_grads`` raises. Needs memory for a copy of all of them. What ``loss_and_grads`` changes by itself,
    such as a random generator, stays changed.

    Raises TypeError or ValueError for arguments out of range, for what ``opt.step`` would refuse, and for an optimizer
    of which lr is only the first step (Rprop); RuntimeError if ``opt`` steps meanwhile. Sources: Smith 2017 (range
    test); Cohen et al. 2021 (edge of stability).
    """
    opt, loss_and_grads = trial.adapted(opt, loss_and_grads)
    _check_arguments(opt, loss_and_grads, lr_min, lr_max, steps)
    lrs = np.geomspace(lr_min, lr_max, steps)
    run, sign = trial.lent(opt).run(_sweep, opt, loss_and_grads, lrs)
    return _conclude(lrs, run, sign)


# ---- the sweep ---------------------------------------------------------------------------------------------------


def _sweep(opt: Optimizer, loss_and_grads: Callable[[], Any], lrs: Array) -> tuple[_Run, float]:
    """What became of updates with these learning rates, and the sign of the losses."""
    twin, ratios = trial.twin(opt, without="lr"), _ratios(opt)
    sign = -1.0 if all(group["maximize"] for group in opt.param_groups) else 1.0
    run = _Run(twin, loss_and_grads, sign)
    with np.errstate(all="ignore"):  # a loss that overflows is what the sweep is looking for
        for lr in lrs:
            for group, ratio in zip(twin.param_groups, ratios, strict=True):
                group["lr"] = float(lr) * ratio
            if not run.advance():
                break
        run.measure_last()
    return run, sign


class _Run:
    """Losses and stability, update by update."""

    def __init__(self, twin: Optimizer, loss_and_grads: Callable[[], Any], sign: float) -> None:
        self.losses: list[float] = []  # after each update; to be minimised
        self.stable: list[bool] = []  # as far as updates were measured, which happens in the update after
        self.ended = ""
        self.diverged = False  # the last loss, that is
        self._twin, self._loss_and_grads, self._sign = twin, loss_and_grads, sign
        self._start, self._grads = self._evaluate()
        self._best = self._start
        if not math.isfinite(self._start):
            self.ended = "the loss is not finite to begin with"

    def advance(self) -> bool:
        """One update and the loss after it; False where the sweep ends."""
        if self.ended or not self._update():
            return False
        loss, self._grads = self._evaluate()
        self.losses.append(loss)
        if not math.isfinite(loss):
            self.ended = "the loss was no longer finite"
        elif loss - self._best > _DIVERGED * max(abs(self._best), self._start - self._best):
            self.ended = "the loss diverged"
        self.diverged = bool(self.ended)
        self._best = min(self._best, loss)
        return not self.diverged

    def measure_last(self) -> None:
        """An update's sharpness shows in the gradient after it: one more update that nobody evaluates."""
        if self.losses and math.isfinite(self.losses[-1]) and len(self.stable) < len(self.losses):
            self._update()

    def _update(self) -> bool:
        self._twin.step(self._grads)
        if self._twin.report.skipped:
            self.ended = self.ended or "a gradient was not finite"
            return False
        if self.losses:
            total = self._twin.stats["total"]
            self.stable.append(not total["sharpness"] >= total["sharpness_limit"])
        return True

    def _evaluate(self) -> tuple[float, Any]:
        answer = self._loss_and_grads()
        loss, grads = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
        if grads is None and trial.bound_grads(self._twin) is None:
            raise ValueError(
                "loss_and_grads: expected (loss, grads), because no gradients were bound at construction; "
                f"got {answer!r:.80}"
            )
        return self._sign * checks.loss("loss_and_grads: expected a number as loss", loss), grads


def _ratios(opt: Optimizer) -> list[float]:
    """The learning rates of the groups in the next update, relative to the largest."""
    lrs = [
        trial.schedule_value(schedules, "lr", opt.updates) if "lr" in schedules else group["lr"]
        for group, schedules in zip(opt.param_groups, opt.schedules, strict=True)
    ]
    largest = max(lrs)
    if largest > 0:
        return [lr / largest for lr in lrs]
    if len(lrs) > 1:
        raise ValueError("find_lr: expected a group with lr > 0, because ratios between groups are kept; got only 0")
    return [1.0]


def _check_arguments(opt: Any, loss_and_grads: Any, lr_min: Any, lr_max: Any, steps: Any) -> None:
    if not isinstance(opt, Optimizer):
        raise TypeError(f"opt: expected an optimizer of lrfast, got {type(opt).__name__}")
    if not trial.follows_lr(opt):
        name = type(opt).__name__
        raise ValueError(
            f"opt: expected an optimizer whose updates depend on lr; that of {name} is only the first step"
        )
    if not callable(loss_and_grads):
        raise TypeError(f"loss_and_grads: expected a function without arguments, got {loss_and_grads!r:.80}")
    low, high = checks.number("lr", lr_min, "lr_min: "), checks.number("lr", lr_max, "lr_max: ")
    if not 0 < low < high:
        raise ValueError(f"lr_min, lr_max: expected 0 < lr_min < lr_max, got {lr_min!r} and {lr_max!r}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(f"steps: expected an integer >= 2, got {steps!r}")
    if steps < 2:
        raise ValueError(f"steps: expected an integer >= 2, got {steps!r}")


# ---- what it means -----------------------------------------------------------------------------------------------


def _conclude(tried: Array, run: _Run, sign: float) -> Sweep:
    losses, lrs = np.array(run.losses), tried[: len(run.losses)]
    smoothed = _smooth(losses[: len(losses) - run.diverged])
    steepest = _steepest(lrs[: len(smoothed)], losses[: len(smoothed)], smoothed)
    edge = _edge(lrs, run.stable)
    suggestion, reason = _suggest(steepest, edge, at_once=bool(run.stable) and not run.stable[0])
    apart = 10 ** min(math.log10(tried[1]) - math.log10(tried[0]), 300.0)
    if suggestion > 0 and apart > _COARSE:
        enough = math.ceil(math.log10(tried[-1]) - math.log10(tried[0])) + 1
        reason = f"no suggestion: neighbours are a factor of {apart:.2g} apart, try steps={enough} or more ({reason})"
        suggestion = math.nan
    if run.ended:
        reason += f"; {run.ended}" + (f" at {lrs[-1]:.2g}" if len(lrs) else "")
    return Sweep(lrs, sign * losses, sign * smoothed, suggestion, edge, reason)


def _smooth(losses: Array) -> Array:
    """Averages with weights that fall off on both sides and add up to 1 everywhere, also at the ends."""
    i = np.arange(len(losses))
    weights = _SMOOTHING ** np.abs(i[:, None] - i)
    level = losses[:1]  # so that a constant stays exactly that
    return np.asarray(level + weights @ (losses - level) / weights.sum(axis=1))


def _steepest(lrs: Array, losses: Array, smoothed: Array) -> float:
    """The lr where the smoothed loss falls fastest against log(lr) on the way to its minimum; NaN if it is noise."""
    lowest = int(np.argmin(smoothed)) if len(smoothed) else 0
    if lowest == 0:
        return math.nan
    highest = smoothed[: lowest + 1].max()
    fall = highest - smoothed[lowest]
    # Second differences see neither level nor slope; of white noise their variance is six times its own.
    jitter = math.sqrt(np.mean(np.diff(losses[: lowest + 1], 2) ** 2) / 6) if lowest > 1 else 0.0
    if fall <= _CLEAR * jitter:
        return math.nan
    begin = int(np.flatnonzero(smoothed[: lowest + 1] >= highest - fall / 4)[-1])
    slopes = np.gradient(smoothed, np.log(lrs))[begin : lowest + 1]
    return float(lrs[begin + np.argmin(slopes)])


def _edge(lrs: Array, stable: list[bool]) -> float:
    """The last lr before the first unstable update."""
    first = stable.index(False) if False in stable else 0
    return float(lrs[first - 1]) if first else math.nan


def _suggest(steepest: float, edge: float, *, at_once: bool) -> tuple[float, str]:
    """The smaller of both limits, and why."""
    if at_once:
        return math.nan, "no suggestion: already the first update was unstable by the sharpness; try a smaller lr_min"
    if math.isnan(steepest) and math.isnan(edge):
        return math.nan, "no suggestion: the loss did not fall clearly, and no update was unstable by the sharpness"
    if math.isnan(edge):
        return steepest, "the loss fell fastest there; no update was unstable by the sharpness"
    if steepest <= edge / 2:
        return steepest, f"the loss fell fastest there; by the sharpness, updates were stable up to {edge:.2g}"
    loss = "did not fall clearly" if math.isnan(steepest) else f"fell fastest at {steepest:.2g}"
    return edge / 2, f"half the largest lr that was stable by the sharpness, {edge:.2g}; the loss {loss}"
