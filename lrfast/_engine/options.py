"""What surrounds an update in a step, as options of an optimizer: clipping, zeroing, averages, copies, statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from . import checks, fit, formats
from .averages import Decay, checked_decay
from .further_keys import WAYS_TO_RUN, way_to_run


class StepOptions(TypedDict, total=False):
    """Keywords of every optimizer; see :class:`lrfast.Optimizer`."""

    clip_norm: float | None
    clip_value: float | None
    nonfinite: str
    zero_grads: bool
    ema: Decay | None
    ema_dtype: Any
    copy_to: Any
    master: str | None
    uint16: str | None
    stats: bool | int | str
    foreach: bool | None
    fused: bool | None
    capturable: bool | None
    differentiable: bool | None


@dataclass(frozen=True)
class Options:
    """Checked.

    ``master`` is that of parameters of 16 bits, ``uint16`` what arrays of uint16 are, None for nothing;
    ``ema`` is the decay or its schedule, ``ema_dtype`` None for the parameter's; ``every``: all statistics on every so
    many updates, 0 for none.
    """

    clip_norm: float | None = None
    clip_value: float | None = None
    nonfinite: str = "propagate"
    zero_grads: bool = False
    ema: Decay | None = None
    ema_dtype: str | None = None
    master: str | None = None
    uint16: str | None = None
    every: int = 0
    norms: bool = False

    @classmethod
    def of(cls, keywords: StepOptions, owner: str, settings: Iterable[str]) -> Options:
        """Those of a constructor, all but ``copy_to``; owner and its settings are for the error."""
        options = cls()
        for name, value in keywords.items():
            if name in WAYS_TO_RUN:
                way_to_run(name, value, "")
            if name == "copy_to" or name in WAYS_TO_RUN:
                continue
            if name not in _CHECKS and name != "stats":
                known = ", ".join([*settings, "grads", *StepOptions.__annotations__])
                raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}; it has {known}")
            options = options.changed(name, value)
        return options

    def changed(self, name: str, value: Any) -> Options:
        """A copy in which one option of the user, ``stats`` among them, is another."""
        if name == "stats":
            every, norms = _checked_stats(value)
            return replace(self, every=every, norms=norms)
        if name == "ema_decay":
            return replace(self, ema=checked_decay(name, value))
        return replace(self, **{name: _CHECKS[name](name, value)})

    def check_fit(self, params: Iterable[Any]) -> None:
        """Refuses bounds that the tensors do not hold."""
        dtype = fit.narrowest(params)
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                fit.number(name, getattr(self, name), dtype)


@dataclass(frozen=True)
class Report:
    """What the latest ``step()`` did.

    ``grad_norm``: norm of all gradients times grad_scale, NaN if it was not computed (``clip_norm`` and ``nonfinite``
    need it); ``clip_factor``: what they were multiplied with for ``clip_norm``, min(1, clip_norm / (limited_norm +
    1e-6)); ``skipped``: whether nothing was updated because a gradient, or its square, was not finite; ``updated``:
    number of tensors updated; ``limited_norm``: norm of what ``clip_value`` left of the gradients, without it
    ``grad_norm``, NaN without ``clip_norm``; ``overflowed``: elements whose sum or average of squares this step
    has made infinite, so that they will not move again, counted with ``nonfinite="skip"`` or ``"raise"``, which refuse
    where a gradient alone is to blame.
    """

    grad_norm: float = math.nan
    clip_factor: float = 1.0
    skipped: bool = False
    updated: int = 0
    limited_norm: float = math.nan
    overflowed: int = 0


def _optional(accepts: Callable[[float], bool], expected: str) -> Callable[[str, Any], float | None]:
    def check(name: str, value: Any) -> float | None:
        if value is None:
            return None
        try:
            number = checks.real(value)
        except OverflowError:
            raise ValueError(f"{name}: expected None or {expected}, got a larger one than floats can hold") from None
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected None or {expected}, got {value!r}") from None
        if not accepts(number):
            raise ValueError(f"{name}: expected None or {expected}, got {value!r}")
        return number

    return check


def _checked_policy(name: str, value: Any) -> str:
    policies = ("propagate", "skip", "raise")
    if not isinstance(value, str) or value not in policies:
        raise ValueError(f"{name}: expected one of {policies}, got {value!r}")
    return value


def _one_of(*words: str) -> Callable[[str, Any], str | None]:
    def check(name: str, value: Any) -> str | None:
        if value is not None and (not isinstance(value, str) or value not in words):
            raise ValueError(f"{name}: expected None or {' or '.join(map(repr, words))}, got {value!r}")
        return value

    return check


def _checked_switch(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def _checked_dtype(name: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name}: expected None or 'float64', got {value!r}") from None
    if dtype != np.float64:
        raise ValueError(f"{name}: expected None (the dtype of each parameter) or 'float64', got {value!r}")
    return "float64"


def _checked_stats(value: Any) -> tuple[int, bool]:
    """(every, norms)."""
    if isinstance(value, str) and value == "norms":
        return 1, True
    if isinstance(value, (bool, np.bool_)):
        return int(value), False
    if isinstance(value, (int, np.integer)) and value >= 1:
        return int(value), False
    raise ValueError(f"stats: expected True, False, 'norms' or a number of updates >= 1, got {value!r}")


_POSITIVE = _optional(lambda x: math.isfinite(x) and x > 0, "a finite number > 0")
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "clip_norm": _POSITIVE,
    "clip_value": _POSITIVE,
    "nonfinite": _checked_policy,
    "zero_grads": _checked_switch,
    "ema": lambda name, value: None if value is None else checked_decay(name, value),
    "ema_dtype": _checked_dtype,
    "master": _one_of(*formats.MASTERS),
    "uint16": _one_of("bfloat16"),
}
