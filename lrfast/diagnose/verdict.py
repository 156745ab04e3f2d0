"""What the records of a run say about it: a kind, its evidence, what to try.

docs/diagnostics.md derives the quantities and thresholds used here. Two rules keep them free of units: a loss is only
compared with differences of losses or with changes that the gradient predicts, a gradient only with other gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._engine.arithmetic import Array

__all__ = ["CURES", "Verdict", "judge"]

FEWEST = 10  # records to judge, also the number of blocks that a window is cut into
FEWEST_NOISY = 100  # records to judge a run by its noise, or as a straight line
WINDOW = 1_000
BURST = 10.0  # an order of magnitude
SMALL_GRADIENT = 1e-3  # of its largest; then the loss of a quadratic has 1e-6 of its fall left
REMAINING = 1e-6
LOST = 0.5
FALLING = 29  # of 45 pairs of blocks: by chance 1 time in 400
SIGNIFICANT, CERTAIN = 3.5, 5.0  # standard errors; with ten blocks: 1 time in 250, in 2,000
UNPAID = 0.01  # of the promised fall
STEPS = 0.5  # promised steps, the least that a window that falls gains
VISIBLE = 3.0  # spreads of the loss
OVERSHOOT = 0.5  # of the promised fall is climbed again
AGREEMENT = 0.75  # between chance and certainty
FAR = 4.0  # runs like this one
NEEDLESS = 10_000.0  # steps to the minimum of even the steepest direction

CURES = {
    "descending": "Go on; nothing here calls for a change.",
    "bouncing": "Lower the learning rate (try a third of it), or let it decay; if progress is then too slow, the "
    "directions differ in steepness: use a rate for each parameter (Adam, RMSprop).",
    "crawling": "Raise the learning rate (try ten times); if that bounces, the directions differ in steepness: use "
    "momentum or a rate for each parameter (Adam, RMSprop).",
    "exploded": "Let the learning rate decay, warm it up, or lower it; clip_norm bounds the size of a single step.",
    "noise": "Let the learning rate decay, or use larger batches or ema: the rate sets the height of this floor.",
    "critical": "Pass a gradient function of the whole loss, verdict(gradient=...), to tell a minimum from a saddle.",
    "minimum": "Stop here, or start elsewhere if this loss is not low enough.",
    "saddle": "Step off it: add a little noise (smaller batches) or move along the direction of negative curvature.",
    "nonfinite": "Lower the learning rate or warm it up; find the first operation that is not finite (log, division, "
    'overflow in low precision); nonfinite="skip" leaves out single bad steps.',
    "overflowed": "Limit gradients before they are squared (clip_norm or clip_value), or lower the scale of the loss; "
    'nonfinite="skip" or "raise" refuses such gradients. What is infinite stays so: go back to a checkpoint, or write '
    "0 into it (optimizer.state).",
    "lost_updates": "Keep the parameters in float64 (of 16 bits: master='float32' or 'split'), or rescale them: "
    "the updates are smaller than their spacing.",
    "mismatch": "Check the sign of the gradient, that loss and gradient belong to the same function, data and unit, "
    "and what else moves the parameters (decoupled weight decay, projections).",
    "too_few": "Run more steps with statistics on (opt.stats = True) and ask again.",
}
"""What to try, for each kind."""


@dataclass(frozen=True)
class Verdict:
    """What a run is doing. ``str(verdict)`` is kind, text and cure.

    ``kind``: a key of ``CURES``. ``text``: what was found, with its numbers. ``evidence``: the numbers the decision was
    made from, see docs/diagnostics.md. ``cure``: one sentence, what to try.
    """

    kind: str
    text: str
    evidence: dict[str, float]

    @property
    def cure(self) -> str:
        """One sentence: what to try."""
        return CURES[self.kind]

    def __str__(self) -> str:
        return f"{self.kind}: {self.text} {self.cure}"


def judge(rows: Sequence[Mapping[str, Any]], *, maximize: bool = False) -> Verdict:
    """The verdict on records of a :class:`lrfast.Monitor`, oldest first, without the type of a critical point."""
    run = _Run(rows, maximize)
    for rule in (_nonfinite, _overflowed, _too_few, _exploded, _critical, _lost, _moving, _died, _stuck):
        found = rule(run)
        if found is not None:
            kind, text = found
            return Verdict(kind, text, {key: float(value) for key, value in run.evidence.items()})
    raise AssertionError("the last rule always finds something")


class _Run:
    """Columns of the finite records; ``window``: the latest half, from ``FEWEST_NOISY`` to ``WINDOW`` of them."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], maximize: bool) -> None:
        self.rows = rows
        good = [row for row in rows if _is_finite(row)]
        self.count = len(good)
        self.steps = rows[-1]["update"] if rows else 0
        self.window = slice(max(self.count - min(max(self.count // 2, FEWEST_NOISY), WINDOW), 0), None)
        self._good = good
        self.loss = self.column("loss") * (-1 if maximize else 1)
        self.grad_norm = self.column("grad_norm")
        self.follows = np.diff(self.column("update"), prepend=-np.inf) == 1
        self.evidence: dict[str, float] = {"steps": self.steps, "records": self.count}

    def column(self, key: str) -> Array:
        return np.array([row[key] for row in self._good], dtype=np.float64)

    def recent(self, key: str) -> Array:
        return self.column(key)[self.window]

    def note(self, **numbers: float) -> None:
        self.evidence.update(numbers)

    def slopes(self) -> tuple[Array, Array]:
        """Slopes along the last update at its start and its end, <s', d'> and <s, d'>, for each record.

        Each step is divided by its |d'| and the larger of |s| and |s'|, so that a few large steps do not decide alone.
        """
        before, length = (
            np.where(self.follows, np.roll(x, 1), x) for x in (self.grad_norm, self.column("update_norm"))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = 1 / np.maximum(self.grad_norm, before)
            ends = self.column("cosine") * self.grad_norm * scale
            return ends - self.column("sharpness") * length * scale, ends

    def kept(self, window: slice) -> float:
        """The slope at the end of the updates as a share of the slope at their start."""
        starts, ends = (_total(values[window]) for values in self.slopes())
        return ends / starts if starts else np.nan

    def agreement(self) -> float:
        """Share of the window's steps in which the loss went where the mean of both slopes points."""
        starts, ends = self.slopes()
        change = np.diff(self.loss, prepend=np.nan)
        known = self.follows & np.isfinite(change + starts + ends)
        known[: self.window.start] = False
        return float(np.mean(change[known] * (starts + ends)[known] > 0)) if known.any() else np.nan


# ---- the rules, in the order in which they are tried -----------------------------------------------------------------


def _nonfinite(run: _Run) -> tuple[str, str] | None:
    bad = [row for row in run.rows if not _is_finite(row)]
    half = run.rows[-max(len(run.rows) // 2, 1) :]
    share = sum(not _is_finite(row) for row in half) / len(half) if half else 0.0
    if not bad or (share < 0.5 and (_is_finite(run.rows[-1]) or run.rows[-1]["skipped"])):
        return None
    first, skipped = bad[0], sum(row["skipped"] for row in bad)
    what = "gradient" if np.isfinite(first["loss"]) else "loss"
    run.note(
        first=first["update"], nonfinite=len(bad), skipped=skipped, nan=_latest(bad, "nan"), inf=_latest(bad, "inf")
    )
    return "nonfinite", (
        f"the {what} was not finite after {first['update']:,} updates, the first of {len(bad):,} such records"
        f"{f', of which {skipped:,} were skipped' if skipped else ''}."
    )


def _overflowed(run: _Run) -> tuple[str, str] | None:
    measured = [row for row in run.rows if not row["skipped"]]
    if not measured or not measured[-1]["dead"] > 0:
        return None
    now, first = measured[-1], next(row for row in measured if row["dead"] > 0)
    largest = max((row["grad_max"] for row in measured if row["update"] <= first["update"]), default=np.nan)
    run.note(dead=now["dead"] / now["elements"], first=first["update"], grad_max=largest)
    return "overflowed", (
        f"{now['dead']:,.0f} of {now['elements']:,.0f} elements do not move any more, since update {first['update']:,}"
        f": the sum or average of their squared gradients is infinite, as the square of one was beyond their type (the "
        f"largest gradient seen by then is {largest:.3g})."
    )


def _too_few(run: _Run) -> tuple[str, str] | None:
    if run.count >= FEWEST:
        return None
    return "too_few", f"{run.count} finite records are too few to judge, at least {FEWEST} are needed."


def _exploded(run: _Run) -> tuple[str, str] | None:
    first, length = run.window.start, run.count - run.window.start
    recent = first + int(np.argmax(run.grad_norm[run.window]))
    if recent >= FEWEST:
        before = max(0, recent - length)
        if found := _burst(run, slice(before, (before + recent) // 2), recent):
            came_back = run.grad_norm[-1] < run.grad_norm[recent] / BURST
            return "exploded", found + (" It has come back since." if came_back else "")
    found = _burst(run, slice(0, 1), int(np.argmax(run.grad_norm)))
    high = np.median(run.loss[run.window]) + VISIBLE * _spread(run.loss[run.window]) >= run.loss[0]
    if found and high and np.median(run.grad_norm[run.window]) <= run.grad_norm.max() / BURST:
        return "exploded", f"{found} It has not come back below where it began."
    return None


def _burst(run: _Run, quiet: slice, peak: int) -> str:
    """Describes a peak that is far outside the range of the quiet records; empty if it is not."""
    level = float(np.quantile(run.grad_norm[quiet], 0.9))
    growth = run.grad_norm[peak] / level if level else np.inf
    highest, lowest = run.loss[quiet].max(), run.loss[quiet].min()
    run.note(burst=growth)
    if growth < BURST or run.loss[peak] <= highest + (highest - lowest):
        return ""
    step, rates = run.column("update")[peak], run.column("rate_max")
    run.note(burst_step=step, rate_before=float(np.median(rates[quiet])), rate_at_burst=rates[peak])
    return (
        f"at step {step:,.0f} the gradient was {growth:.3g} times as large as before and the loss had jumped from "
        f"{run.loss[quiet][-1]:.4g} to {run.loss[peak]:.4g}; the largest effective rate was {rates[peak]:.3g} "
        f"(before: {run.evidence['rate_before']:.3g})."
    )


def _critical(run: _Run) -> tuple[str, str] | None:
    end = slice(run.count - max((run.count - run.window.start) // 4, 3), None)
    now, most = float(np.median(run.grad_norm[end])), _usual_height(run.grad_norm)
    loss = float(np.median(run.loss[end]))
    fallen = _usual_height(run.loss) - loss
    promised = max(-float(np.median(run.column("dot")[end])), 0.0)
    kept = run.kept(end)
    distance = max(1 / (1 - kept), 1.0) if kept < 1 else np.inf
    remaining = promised * min(distance / 2, run.steps)
    reach = now * float(np.median(run.column("param_norm")[end]))
    run.note(grad_norm=now, grad_norm_before=most, loss_fall=fallen, loss_remaining=remaining)
    arrived = now <= SMALL_GRADIENT * most and remaining <= REMAINING * fallen
    if not arrived and now > 0 and reach > REMAINING * abs(loss):
        return None
    return "critical", (
        f"the gradient has become small: its norm is {now:.3g} (before: {most:.3g}), and along it the loss has about "
        f"{remaining:.2g} left to fall."
    )


def _lost(run: _Run) -> tuple[str, str] | None:
    elements, lost = run.recent("elements"), run.recent("lost")
    # An element without gradient may have a tiny update out of old momentum, which nobody misses.
    missed = np.where(lost <= elements - run.recent("zero"), lost, 0)
    share = float(np.median(missed / elements))
    run.note(lost=share)
    if share < LOST:
        return None
    return "lost_updates", f"{share:.0%} of the updates change nothing: parameter + update rounds to the parameter."


def _moving(run: _Run) -> tuple[str, str] | None:
    if not np.any(run.recent("update_norm")):
        return "crawling", "the updates are exactly 0 although the gradient is not: is the learning rate 0?"
    loss, dot = run.loss[run.window], run.recent("dot")
    blocks, cosines = _blocks(loss), _blocks(run.recent("cosine"))
    order = sum(np.sign(a - b) for i, a in enumerate(blocks) for b in blocks[i + 1 :])
    fall, doubt = _trend(blocks)
    promised = float(np.abs(_blocks(dot)[-1]))
    falling = (order >= FALLING or fall > SIGNIFICANT * doubt) and fall > STEPS * promised
    cosine, error = float(np.mean(cosines)), float(np.std(cosines, ddof=1) / np.sqrt(len(cosines)))
    kept = run.kept(run.window)
    run.note(window=len(loss), window_fall=fall, promised_per_step=promised, falling=order / 45)
    run.note(cosine=cosine, cosine_error=error, kept=kept, bounce=_mean(run.recent("bounce")))
    downhill = cosine < -SIGNIFICANT * error and kept > 0
    if not falling and not downhill:
        return None

    due = kept * float(np.sum(np.abs(dot)))
    run.note(window_fall_error=doubt, window_fall_due=due)
    if downhill and not falling and fall + CERTAIN * doubt < UNPAID * due:
        return "mismatch", (
            f"the gradients promised that the loss falls by {due:.3g} or more in the last {len(loss):,} records; it "
            f"fell by {fall:.3g}."
        )
    return _pace(run) or (
        "descending",
        f"the loss has fallen by {fall:.3g} during the last {len(loss):,} records"
        f"{f'; it bounces on its way (cosine {cosine:.2f})' if kept < -OVERSHOOT else ''}.",
    )


def _pace(run: _Run) -> tuple[str, str] | None:
    """Whether a run that does descend crawls."""
    kept, cosine = run.evidence["kept"], run.evidence["cosine"]
    distance = 1 / abs(1 - kept) if kept != 1 else np.inf
    minimum = run.column("minimum")
    turning = 1 / minimum[np.isfinite(minimum)]
    steepest = float(np.quantile(turning, 0.95)) if len(turning) else 0.0
    run.note(steps_to_minimum=distance, steepest=steepest)
    if distance > FAR * run.steps or steepest < 1 / NEEDLESS:
        return "crawling", (
            f"the loss falls, but in {run.steps:,} steps the gradient has hardly changed: at this pace the minimum "
            f"along the path is about {distance:.2g} steps away."
        )
    spread = _spread(run.loss)
    halves = -np.diff(_thirds(run, run.loss))
    slopes = -_thirds(run, run.column("cosine") * run.grad_norm)
    run.note(
        spread=spread, fall_first_half=halves[0], fall_second_half=halves[1], slope_start=slopes[0], slope_end=slopes[2]
    )
    if sum(halves) <= VISIBLE * spread:
        return "crawling", (
            f"the gradients point downhill steadily (cosine with the last update {cosine:.3f}), but in {run.steps:,} "
            f"steps the loss has fallen by {sum(halves):.3g}, which its noise of {spread:.3g} hides."
        )
    if run.count >= FEWEST_NOISY and _alike(halves[0], halves[1]) and _alike(slopes[0], slopes[2]):
        return "crawling", (
            f"the loss falls, but along a straight line: in {run.steps:,} steps the slope has stayed the same "
            f"({slopes[0]:.3g} at the start, {slopes[2]:.3g} now)."
        )
    return None


def _died(run: _Run) -> tuple[str, str] | None:
    alive = 1 - run.column("zero") / run.column("elements")
    now = float(np.median(alive[run.window]))
    run.note(zero=1 - now)
    if now > alive[0] / BURST or not (found := _burst(run, slice(0, 1), int(np.argmax(run.grad_norm)))):
        return None
    return "exploded", f"{found} Since then {1 - now:.1%} of the gradients are exactly 0: units died."


def _stuck(run: _Run) -> tuple[str, str]:
    cosine, kept, zero = (run.evidence[key] for key in ("cosine", "kept", "zero"))
    agreement = run.agreement()
    run.note(agreement=agreement)
    dead = f" {zero:.0%} of the gradients are exactly 0: units may be dead." if zero > 0.5 else ""
    stands = (
        f"the loss has not fallen during the last {len(run.recent('loss')):,} records while the gradient is not small "
        f"(norm {np.median(run.recent('grad_norm')):.3g})"
    )
    if max(-kept, cosine) >= OVERSHOOT or agreement >= AGREEMENT:
        return "bouncing", (
            f"{stands}: each update jumps across the valley and climbs {max(-kept, 0):.0%} of what it had descended "
            f"(cosine of the gradient with the last update {cosine:.2f}).{dead}"
        )
    if run.count < FEWEST_NOISY:
        return "too_few", f"{run.count} finite records of a noisy run are too few, at least {FEWEST_NOISY} are needed."
    return "noise", (
        f"{stands}, and it has little to do with the next one: of what an update promises, {1 - max(-kept, 0):.0%} is "
        f"true of its own batch only.{dead}"
    )


# ---- small statistics ------------------------------------------------------------------------------------------------


def _is_finite(row: Mapping[str, Any]) -> bool:
    return bool(np.isfinite(row["loss"]) and np.isfinite(row["grad_norm"]) and not row["skipped"])


def _latest(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(rows[-1][key])


def _total(values: Array) -> float:
    return float(np.sum(values[np.isfinite(values)]))


def _mean(values: Array) -> float:
    values = values[np.isfinite(values)]
    return float(np.mean(values)) if len(values) else np.nan


def _blocks(values: Array) -> Array:
    """Means of ten successive blocks; with noise that is correlated over less than a block they are independent."""
    return np.array([_mean(block) for block in np.array_split(values, FEWEST)])


def _usual_height(values: Array) -> float:
    """What the start or a tenth of the run reached; a short burst is neither."""
    return float(max(np.median(values[:3]), np.quantile(values, 0.9)))


def _spread(values: Array) -> float:
    """Standard deviation of what changes from record to record, from medians."""
    change = np.diff(values)
    return 1.4826 / 2**0.5 * float(np.median(np.abs(change - np.median(change))))


def _trend(blocks: Array) -> tuple[float, float]:
    """How far a straight line through the blocks falls from the first to the last, and the standard error of that."""
    x = np.linspace(-0.5, 0.5, len(blocks))
    slope = float(x @ blocks / (x @ x))
    rest = blocks - blocks.mean() - slope * x
    return -slope, float(np.sqrt(rest @ rest / (len(blocks) - 2) / (x @ x)))


def _thirds(run: _Run, values: Array) -> Array:
    """Means around the start, the middle and the end of the whole run, each over a tenth of its steps."""
    step = run.column("update")
    place = (step - step[0]) / (step[-1] - step[0])
    return np.array([_mean(values[part]) for part in (place <= 0.1, abs(place - 0.5) <= 0.05, place >= 0.9)])


def _alike(first: float, second: float) -> bool:
    """Whether two falls differ by less than they do when the run covers a quarter of the way to the minimum."""
    return first > 0 and second > 0 and abs(np.log(second / first)) < 1 / FAR
