"""What surrounds the update, as attributes of every optimizer: clipping, averages, copies, statistics, reports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from . import averages
from .arithmetic import Array
from .buffers import Buffers
from .commit import Call, at_once, setting
from .family import Family
from .options import Options, Report
from .recorder import Recorder
from .settings import Settings
from .statistics import Stats, effective_gradients


class Surroundings(Family):
    """Base of :class:`Optimizer`, where its keywords are described."""

    _settings: Settings
    _options: Options
    _buffers: Buffers
    _plan: Any
    _recorder: Recorder | None
    _scheduled: bool

    @property
    def updates(self) -> int:
        """Completed ``step()`` calls: the t of every schedule."""
        return int(self._plan.updates)

    @property
    def clip_norm(self) -> float | None:
        """Largest norm of all gradients together: they are scaled by min(1, clip_norm / (norm + 1e-6)). None: off."""
        return self._options.clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        self._set_option("clip_norm", value)

    @property
    def clip_value(self) -> float | None:
        """Each gradient is limited to -clip_value .. clip_value, before ``clip_norm``. None: off."""
        return self._options.clip_value

    @clip_value.setter
    def clip_value(self, value: float | None) -> None:
        self._set_option("clip_value", value)

    @property
    def nonfinite(self) -> str:
        """What a NaN or infinite gradient, or square of one, does: "propagate", "skip" the step, or "raise"
        FloatingPointError."""
        return self._options.nonfinite

    @nonfinite.setter
    def nonfinite(self, value: str) -> None:
        self._set_option("nonfinite", value)

    @property
    def zero_grads(self) -> bool:
        """Whether a step leaves zeros in the gradients, in the pass that reads them."""
        return self._options.zero_grads

    @zero_grads.setter
    def zero_grads(self, value: bool) -> None:
        self._set_option("zero_grads", value)

    @property
    def stats(self) -> Stats:
        """Statistics of the latest measured step, see ``lrfast.stats``; assign True, k, "norms" or False."""
        return Stats(self._recorder, self._n_eff, self._sharpness_limit)

    @stats.setter
    def stats(self, value: bool | int | str) -> None:
        self._set_option("stats", value)

    @property
    def ema(self) -> list[Array] | None:
        """Averages of the parameters, in their order; None without the keyword ``ema``. Live views.

        Inside ``use_ema``, those of their parameter's dtype hold the parameters.
        """
        averages = self._buffers.ema
        return None if averages is None else [average.view() for average in averages]

    @property
    def ema_decay(self) -> averages.Decay | None:
        """The decay of the averages, a number or a schedule; either may be assigned. None without averages."""
        return self._options.ema

    @ema_decay.setter
    def ema_decay(self, value: averages.Decay) -> None:
        if self._options.ema is None:
            raise ValueError("ema_decay: expected an optimizer made with ema=..., got one without")
        self._set_option("ema_decay", value)

    @property
    def copy_to(self) -> list[Array] | None:
        """The arrays that hold the rounded parameters, in their order; None without."""
        copies = self._buffers.copies
        return None if copies is None else list(copies)

    @property
    def report(self) -> Report:
        """What the latest ``step()`` did."""
        return self._plan.report  # type: ignore[no-any-return]

    @property
    def skipped(self) -> int:
        """Steps skipped so far because a gradient was not finite."""
        return int(self._plan.skipped)

    def params_changed(self) -> None:
        """Say that something else than a step has written parameters: a checkpoint of the model, an average.

        The parameter wins: its master becomes what it is, where it is no longer what that rounds to; remainders of
        ``master="split"`` become 0, all but those of a parameter that is again what ``load_state_dict`` had made of it.
        Moments stay; ``copy_to`` is refreshed. With ``master="float32"`` the next step would see it by itself.
        """
        self._plan.held().run(self._follow_params)

    def _follow_params(self) -> None:
        buffers = self._buffers
        buffers.check_params()
        buffers.check_copies()
        at_once(buffers.following_params(self.updates))

    def use_ema(self) -> AbstractContextManager[Any]:
        """``with optimizer.use_ema(): ...``: inside, parameters and averages have changed places, for an evaluation.

        Copies are rounded averages there. Averages of another dtype (``ema_dtype``) stay where they are, and the
        parameters are kept aside. Afterwards all have the bits that they had. Raises ValueError without the keyword
        ``ema``; ``step()`` inside raises RuntimeError.
        """
        if self._buffers.ema is None:
            raise ValueError("use_ema: expected an optimizer made with ema=..., got one without")
        held: AbstractContextManager[Any] = self._plan.held(
            "parameters and averages have changed places until the block of use_ema() ends",
            partial(averages.in_place_of_params, self._buffers),
        )
        return held

    def _set_option(self, name: str, value: Any) -> None:
        self._plan.held().run(self._set_checked_option, name, value)

    def _set_checked_option(self, name: str, value: Any) -> None:
        options, buffers, recorder = self._options.changed(name, value), self._buffers, self._recorder
        options.check_fit(buffers.params)
        if options.zero_grads and buffers.grads is not None:
            buffers.check_grads(buffers.grads, written=True)
            buffers.check_overlap(buffers.grads, written=True)
        if name == "stats":
            recorder = recorder_of(options, buffers)
        calls = recording(options, recorder, buffers, self._plan)
        scheduled = self._settings.is_scheduled or callable(options.ema)
        at_once([*calls, *setting(self, {"_options": options, "_recorder": recorder, "_scheduled": scheduled})])

    def _n_eff(self, tensors: Sequence[int], updates: int, settings: Sequence[Mapping[str, Any]]) -> float:
        """Gradients that sigma had effectively seen after so many updates; the smallest number of these tensors."""
        since, progress = self.updates - updates, self._plan.progress
        ages = {
            (max(0, int(progress[i]) - since), self.sigma_decay(then))
            for first, stop, then in self._settings_then(settings)
            for i in tensors
            if first <= i < stop
        }
        return min((effective_gradients(decay, t) for t, decay in ages), default=math.nan)

    def _sharpness_limit(self, tensors: Sequence[int], settings: Sequence[Mapping[str, Any]]) -> float | None:
        """The least of the limits that the groups of these tensors have with these settings, if all have one."""
        if self.clip_norm is not None or self.clip_value is not None:
            return None  # clipped gradients move less than the settings say
        limits = [
            self.sharpness_limit(then)
            for first, stop, then in self._settings_then(settings)
            if any(first <= i < stop for i in tensors)
        ]
        return None if None in limits else min(limits)  # type: ignore[type-var]

    def _settings_then(self, recorded: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """The tensors of each group and its settings of a step; those of now where none were recorded."""
        for i, group in enumerate(self._buffers.groups):
            then = recorded[i] if i < len(recorded) else {}
            yield group.first, group.stop, {**self._settings.live[i], **then}


def recorder_of(options: Options, buffers: Buffers) -> Recorder | None:
    """Statistics from the beginning, or none."""
    return Recorder(len(buffers.params), options.every, options.norms) if options.every else None


def recording(options: Options, recorder: Recorder | None, buffers: Buffers, plan: Any) -> list[Call]:
    """What tells a plan its options, and makes or drops memory that they ask for."""
    last = buffers.made_last(options.every > 0 and not options.norms)
    return [*setting(buffers, {"last": last}), partial(plan.configure, options, recorder)]
