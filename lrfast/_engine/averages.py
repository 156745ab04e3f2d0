"""Averages of the parameters: their decay, and how they take the place of the parameters for an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import checks, formats
from .arithmetic import Array
from .buffers import Buffers
from .commit import Stages, copying, exchanging

Decay = float | Callable[[int], Any]
"""A number in [0, 1), or a schedule of it."""


def checked_decay(name: str, value: Any) -> Decay:
    """A decay as the user gives it. Raises TypeError or ValueError."""
    return value if callable(value) else checks.number(name, value)


def decay_at(decay: Decay, t: int) -> float:
    """The decay of the update after t others. Raises TypeError or ValueError."""
    value = decay(t) if callable(decay) else decay
    return value if type(value) is float and 0 <= value < 1 else checks.number("ema", value, f"schedule at t={t}: ")


def in_place_of_params(buffers: Buffers) -> tuple[Stages, Stages]:
    """What puts averages into the parameters, and rounded averages into copies, and what brings all back, bit for bit.

    Averages of the type of their parameter hold the parameter meanwhile. Others stay, and the parameter is kept aside.
    """
    assert buffers.ema is not None
    buffers.check_params()
    buffers.check_copies()
    pairs = list(zip(buffers.params, buffers.ema, strict=True))
    equal = [(param, average) for param, average in pairs if param.dtype == average.dtype]
    swap = exchanging(equal, [(np.empty_like(param), np.empty_like(average)) for param, average in equal])
    with np.errstate(all="ignore"):  # an average that float32 does not have
        inside = [_as_param(average, param) for param, average in pairs]
    others = [(p, new, p.copy()) for (p, average), new in zip(pairs, inside, strict=True) if new is not average]
    lend = [*(copying(p, new) for p, new, _ in others), *buffers.refreshing_copies(inside)]
    bring_back = [*(copying(p, kept) for p, _, kept in others), *buffers.refreshing_copies()]
    return [*swap, lend], [*swap, bring_back]


def _as_param(average: Array, param: Array) -> Array:
    """An average rounded to what its parameter is; itself where it is that."""
    numbers = average.astype(formats.computed(param.dtype), copy=False)
    return formats.encode(numbers, param.dtype)
