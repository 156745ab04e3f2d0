"""Steps by the NumPy reference: where there is no extension, and with LRFAST_ISA=numpy or ``use_isa("numpy")``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import checks, stages
from .buffers import Array, Bindings, Group
from .interrupt import interrupt_deferred
from .options import Report

STEPPING = "step() of this optimizer is already running in another thread"


class ReferencePlan:
    """The plan of ``_core.Plan`` without C: the same calls, checks and errors."""

    def __init__(
        self, bindings: Bindings, owner: Callable[[], Any], scheduled: bool, steps: Sequence[int], updates: int
    ) -> None:
        self._bindings = bindings
        self._owner = owner
        self._scheduled = scheduled
        self._settings: list[dict[str, Any]] = [{} for _ in bindings.groups]
        self._lock = threading.Lock()
        self._holder = STEPPING
        self.report = Report()
        self.skipped = 0
        self.refresh_changed()
        self.set_progress(steps, updates)

    def acquire(self, holder: str | None = None) -> None:
        """Keeps others out of steps and of this: they get a RuntimeError that says ``holder``."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(self._holder)
        self._holder = holder or STEPPING

    def release(self) -> None:
        """Ends what acquire() began."""
        self._holder = STEPPING
        self._lock.release()

    def configure(self) -> None:
        """Takes over what ``bindings.tail``, ``outputs`` and ``recorder`` now say."""

    def set_progress(self, steps: Sequence[int], updates: int) -> None:
        """Completed updates per tensor, and completed step() calls."""
        self._steps = list(steps)
        self.updates = updates

    def commit(self, steps: Sequence[int] | None, report: Report) -> None:
        """Counts a step; steps None: one that updated nothing."""
        self.report = report
        self.skipped += report.skipped
        if steps is not None:
            self.set_progress(steps, self.updates + 1)

    def step_of(self, i: int) -> int:
        """Completed updates of tensor i."""
        return self._steps[i]

    def refresh_changed(self) -> None:
        """Validates groups whose settings were edited."""
        self._bindings.check_groups()
        for i, group in enumerate(self._bindings.groups):
            if list(group.settings.items()) != list(self._settings[i].items()):
                self._owner()._refresh(i)
                self._settings[i] = dict(group.settings)

    def assign(self, i: int, key: str, value: Any, names: Sequence[str]) -> None:
        """Takes over the already checked value of a scheduled setting of group i."""
        self._bindings.groups[i].settings[key] = value
        self._settings[i][key] = value

    def step(self, grads: Sequence[Array | None] | None, grad_scale: float) -> None:
        """One update of every tensor that has a gradient; grads None: the bound ones."""
        self.acquire()
        try:
            self.refresh_changed()
            if self._scheduled:
                self._owner()._apply_schedules()
            reference_step(self._bindings, self._steps, self.updates, grads, grad_scale, self.commit)
        finally:
            self.release()


def reference_step(
    bindings: Bindings,
    steps: Sequence[int],
    updates: int,
    grads: Sequence[Array | None] | None,
    grad_scale: float,
    commit: Callable[[Sequence[int] | None, Report], None],
) -> None:
    """Checks everything, updates every tensor that has a gradient, commits the new step counts.

    ``updates``: completed step() calls before this one.
    """
    grad_scale = checks.number("grad_scale", grad_scale)
    grads = bindings.choose_grads(grads)
    bindings.check_params()
    bindings.check_copies()
    bindings.check_grads(grads)
    bindings.check_overlap(grads)
    with interrupt_deferred(), np.errstate(all="ignore"):
        report, nonfinite = _survey(bindings, grads, grad_scale)
        if nonfinite and bindings.tail.nonfinite == "raise":
            commit(None, Report(report.grad_norm))
            raise not_finite(bindings, next(i for i, count in nonfinite.items() if count), sum(nonfinite.values()))
        if report.skipped:
            commit(None, report)
            if bindings.tail.zero_grads:
                zero(grads)
            return
        recorder = bindings.recorder
        target = recorder.target(updates) if recorder and recorder.wanted(updates) else None
        if target is not None:
            target[:] = 0
        new_steps = list(steps)
        updated = 0
        for group, last_lr in zip(bindings.groups, bindings.last_lrs, strict=True):
            for i in range(group.first, group.stop):
                grad = grads[i]
                if grad is not None:
                    new_steps[i] += 1
                    updated += 1
                    row = None if target is None else target[i]
                    _update(bindings, group, i, grad, new_steps[i], grad_scale, report.clip_factor, last_lr, row)
        if recorder and target is not None:
            recorder.commit(updates + 1, grad_scale, bindings.last_lrs)
        bindings.last_lrs = [group.settings["lr"] for group in bindings.groups]
        commit(new_steps, Report(report.grad_norm, report.clip_factor, False, updated))


def not_finite(bindings: Bindings, i: int, count: int) -> FloatingPointError:
    """For nonfinite="raise"; i: the first tensor, count: elements of all."""
    return FloatingPointError(
        f"{bindings.grad_label(i)}: expected finite gradients, got {count} elements in all that are not"
    )


def zero(grads: Sequence[Array | None]) -> None:
    """What ``zero_grads`` means for a skipped step: otherwise a sum of gradients would stay NaN for ever."""
    for grad in grads:
        if grad is not None:
            grad.fill(0)


def _survey(bindings: Bindings, grads: Sequence[Array | None], grad_scale: float) -> tuple[Report, dict[int, int]]:
    """What has to be known of all gradients before the first is used: a report, and where they are not finite."""
    tail = bindings.tail
    if tail.clip_norm is None and tail.nonfinite == "propagate":
        return Report(), {}
    present = [(i, grad) for i, grad in enumerate(grads) if grad is not None]
    norm = stages.global_norm([stages.sum_products(g, g) for _, g in present], grad_scale)
    if tail.nonfinite != "propagate":
        counts = {i: stages.count_nonfinite(grad, grad_scale) for i, grad in present}
        if any(counts.values()):
            return Report(norm, 1.0, True, 0), counts
    factor = 1.0
    if tail.clip_norm is not None:
        clipped = norm
        if tail.clip_value is not None:
            limited = [stages.clamp(g, grad_scale, tail.clip_value) for _, g in present]
            clipped = stages.global_norm([stages.sum_products(x, x) for x in limited], 1.0)
        factor = stages.clip_factor(clipped, tail.clip_norm)
    return Report(norm, factor), {}


def _update(
    bindings: Bindings,
    group: Group,
    i: int,
    grad: Array,
    step: int,
    grad_scale: float,
    clip_factor: float,
    last_lr: float,
    row: Array | None,
) -> None:
    """Update `step` of tensor i and what rides along; statistics into row."""
    tail, outputs, param, states = bindings.tail, bindings.outputs, bindings.params[i], bindings.states[i]
    settings = group.settings
    used, scale = grad, grad_scale * clip_factor
    if tail.clip_value is not None:
        used, scale = stages.clamp(grad, grad_scale, tail.clip_value), clip_factor
    before = last = None
    if row is not None:
        before = param.copy()
        last = outputs.last[i] if outputs.last else None
        if last is None and step > 1:
            last = group.last(states, step - 1, last_lr, settings)
    update, denominator = group.update(param, used, states, step, scale, settings)
    if row is not None and before is not None and bindings.recorder is not None:
        trace = stages.Trace(update, denominator, last)
        signed = -grad_scale if settings["maximize"] else grad_scale
        if bindings.recorder.norms:
            stages.gather_norms(row, grad, before, trace)
        else:
            rate = group.rate(settings, step)
            stages.gather(row, grad, before, trace, signed, rate, settings.get("eps", 0.0))
            if outputs.last and outputs.last[i] is not None:
                outputs.last[i][...] = update  # type: ignore[index]
    if outputs.ema and tail.ema is not None:
        stages.average(outputs.ema[i], param, tail.ema)
    if outputs.copies:
        stages.copy_into(outputs.copies[i], param, outputs.copy_dtypes[i])
    if tail.zero_grads:
        grad.fill(0)
