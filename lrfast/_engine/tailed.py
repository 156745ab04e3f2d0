"""The part of every optimizer that has to do with what surrounds the update."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .interrupt import interrupt_deferred
from .options import Array, Report, Tail, start_recording
from ..reference import decayed_lr, one_minus_power
from ..stats import Stats

if TYPE_CHECKING:
    from .buffers import Bindings


class Tailed:
    """The part of :class:`lrfast.Optimizer` that has to do with the tail of a step."""

    _bindings: Bindings
    _plan: Any
    _tail: Tail
    _schedules: list[dict[str, Any]]

    @property
    def updates(self) -> int:
        """Completed ``step()`` calls: the t of every schedule."""
        return int(self._plan.updates)

    @property
    def clip_norm(self) -> float | None:
        """Largest norm of all gradients together: they are scaled by min(1, clip_norm / (norm + 1e-6)). None: off."""
        return self._tail.clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        self._set_tail("clip_norm", value)

    @property
    def clip_value(self) -> float | None:
        """Each gradient is limited to -clip_value .. clip_value, before ``clip_norm``. None: off."""
        return self._tail.clip_value

    @clip_value.setter
    def clip_value(self, value: float | None) -> None:
        self._set_tail("clip_value", value)

    @property
    def nonfinite(self) -> str:
        """What a NaN or infinite gradient does: "propagate", "skip" the step, or "raise" FloatingPointError."""
        return self._tail.nonfinite

    @nonfinite.setter
    def nonfinite(self, value: str) -> None:
        self._set_tail("nonfinite", value)

    @property
    def zero_grads(self) -> bool:
        """Whether a step leaves zeros in the gradients, in the pass that reads them."""
        return self._tail.zero_grads

    @zero_grads.setter
    def zero_grads(self, value: bool) -> None:
        self._set_tail("zero_grads", value)

    @property
    def stats(self) -> Stats:
        """Statistics of the latest measured step, see ``lrfast.stats``; assign True, k, "norms" or False."""
        return Stats(self, self._bindings.recorder)  # type: ignore[arg-type]

    @stats.setter
    def stats(self, value: bool | int | str) -> None:
        self._set_tail("stats", value)

    @property
    def ema(self) -> list[Array] | None:
        """Averages of the parameters, in their order; None without the keyword ``ema``. Live views."""
        averages = self._bindings.outputs.ema
        return None if averages is None else [average.view() for average in averages]

    @property
    def copy_to(self) -> list[Array] | None:
        """The arrays that parameters are copied to, in their order; None without."""
        copies = self._bindings.outputs.copies
        return None if copies is None else list(copies)

    @property
    def report(self) -> Report:
        """What the latest ``step()`` did."""
        return self._plan.report  # type: ignore[no-any-return]

    @property
    def skipped(self) -> int:
        """Steps skipped so far because a gradient was not finite."""
        return int(self._plan.skipped)

    @contextmanager
    def use_ema(self) -> Iterator[None]:
        """Inside, parameters and averages have changed places, for an evaluation with the averages.

        Raises ValueError without the keyword ``ema``; ``step()`` inside raises RuntimeError.
        """
        averages = self._bindings.outputs.ema
        if averages is None:
            raise ValueError("use_ema: expected an optimizer made with ema=..., got one without")
        self._plan.acquire("parameters and averages have changed places until the block of use_ema() ends")
        try:
            self._bindings.check_params()
            swapped = False
            try:
                with interrupt_deferred():
                    _swap(self._bindings.params, averages)
                    swapped = True
                yield
            finally:
                if swapped:
                    with interrupt_deferred():
                        _swap(self._bindings.params, averages)
        finally:
            self._plan.release()

    def _set_tail(self, name: str, value: Any) -> None:
        changed = self._tail.with_option(name, value)
        self._plan.acquire()
        try:
            before, self._bindings.tail = self._bindings.tail, changed
            try:
                if changed.zero_grads and self._bindings.grads is not None:
                    self._bindings.check_grads(self._bindings.grads)
                    self._bindings.check_overlap(self._bindings.grads)
            except BaseException:
                self._bindings.tail = before
                raise
            self._tail = changed
            if name == "stats":
                start_recording(self._bindings)
            self._plan.configure()
        finally:
            self._plan.release()

    # ---- for statistics: what subclasses know, and what follows ------------------------------------------------

    @classmethod
    def _last(cls, states: Mapping[str, Array], step: int, lr: float, settings: Mapping[str, Any]) -> Array | None:
        """Update `step`, the one that made these states, with the lr that it had; None if they do not tell."""
        return None

    @classmethod
    def _rate(cls, settings: Mapping[str, Any], step: int) -> float:
        """The learning rate of update `step`, as in eta/sigma."""
        return decayed_lr(settings["lr"], settings.get("lr_decay", 0.0), step)

    @classmethod
    def _sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        """Decay of the average of squares in sigma, 1 for a sum or mean of all; NaN without sigma."""
        return math.nan

    @classmethod
    def _sharpness_limit_of(cls, settings: Mapping[str, Any]) -> float | None:
        """Largest curvature at which these settings are stable on a quadratic, where it is known."""
        return None

    def _group_of(self, i: int) -> Mapping[str, Any]:
        """Settings of the group of tensor i."""
        return next(group.settings for group in self._bindings.groups if group.first <= i < group.stop)

    def _keeps_last(self, index: int) -> bool:
        """Whether statistics have to remember the last update: not all numbers that it was made with stay the same."""
        return any(key in self._schedules[index] for key in ("betas", "eps"))

    def _n_eff(self, tensors: Sequence[int], updates: int) -> float:
        """Gradients that sigma had effectively seen after so many updates; the smallest number of these tensors."""
        since = self.updates - updates
        ages = {
            (max(0, int(self._plan.step_of(i)) - since), self._sigma_decay(group.settings))
            for group in self._bindings.groups
            for i in tensors
            if group.first <= i < group.stop
        }
        return min((_n_eff(decay, t) for t, decay in ages), default=math.nan)

    def _sharpness_limit(self, tensors: list[int], lrs: Sequence[float]) -> float | None:
        """The least of the limits that the groups of these tensors have with these learning rates, if all have one."""
        if self.clip_norm is not None or self.clip_value is not None:
            return None  # clipped gradients move less than the settings say
        limits = [
            self._sharpness_limit_of({**group.settings, "lr": lr})
            for group, lr in zip(self._bindings.groups, lrs, strict=True)
            if any(group.first <= i < group.stop for i in tensors)
        ]
        return None if None in limits else min(limits)  # type: ignore[type-var]


def _n_eff(decay: float, t: int) -> float:
    """(1+b)/(1-b) (1-b^t)/(1+b^t), which for b = 1 is t."""
    if decay == 1 or math.isnan(decay) or t == 0:
        return decay * t
    power = 1 - one_minus_power(decay, t)
    return (1 + decay) / (1 - decay) * (1 - power) / (1 + power)


def _swap(some: Sequence[Array], others: Sequence[Array]) -> None:
    for x, y in zip(some, others, strict=True):
        kept = x.copy()
        x[...] = y
        y[...] = kept
