"""What surrounds the update in a step, as options of the optimizer: clipping, zeroing, averages, copies, statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ._state import state_array
from .stats import Recorder

if TYPE_CHECKING:
    from ._bindings import Bindings

Array = np.ndarray[Any, Any]


class TailOptions(TypedDict, total=False):
    """Keywords of every optimizer; see :class:`lrfast.Optimizer`."""

    clip_norm: float | None
    clip_value: float | None
    nonfinite: str
    zero_grads: bool
    ema: float | None
    copy_to: Any
    stats: bool | int | str


@dataclass(frozen=True)
class Tail:
    """Checked options. ``ema`` is the decay; ``every``: all statistics on every so many updates, 0 for none."""

    clip_norm: float | None = None
    clip_value: float | None = None
    nonfinite: str = "propagate"
    zero_grads: bool = False
    ema: float | None = None
    every: int = 0
    norms: bool = False

    def with_option(self, name: str, value: Any) -> Tail:
        """A copy in which one option of the user, ``stats`` among them, is another."""
        if name == "stats":
            every, norms = _checked_stats(value)
            return replace(self, every=every, norms=norms)
        return replace(self, **{name: _CHECKS[name](name, value)})


def make_tail(options: TailOptions, owner: str, settings: Iterable[str]) -> Tail:
    """Checks the options of a constructor, all but ``copy_to``; owner and settings are for the error."""
    tail = Tail()
    for name, value in options.items():
        if name == "copy_to":
            continue
        if name not in _CHECKS and name != "stats":
            known = ", ".join([*settings, "grads", *TailOptions.__annotations__])
            raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}; it has {known}")
        tail = tail.with_option(name, value)
    return tail


@dataclass(frozen=True)
class Report:
    """What the latest ``step()`` did.

    ``grad_norm``: norm of all gradients times grad_scale, NaN if it was not computed (``clip_norm`` and ``nonfinite``
    need it); ``clip_factor``: what they were multiplied with for ``clip_norm``; ``skipped``: whether nothing was
    updated because a gradient was not finite; ``updated``: number of tensors updated.
    """

    grad_norm: float = math.nan
    clip_factor: float = 1.0
    skipped: bool = False
    updated: int = 0


@dataclass
class Outputs:
    """Arrays that a step writes beside parameters and states, in the order of the parameters.

    ``last`` is the update before this one, where statistics cannot rebuild it from the states (elsewhere None).
    """

    ema: list[Array] | None = None
    copies: list[Array] | None = None
    last: list[Array | None] | None = None
    copy_dtypes: list[str] = field(default_factory=list)
    copy_places: list[tuple[int, Any]] = field(default_factory=list)  # (address, dtype) as bound

    def buffers(self) -> list[tuple[str, Array, bool]]:
        """(label, array, written) of all of them."""
        found = [(f"ema[{i}]", array, True) for i, array in enumerate(self.ema or [])]
        found += [(f"copy_to[{i}]", array, True) for i, array in enumerate(self.copies or [])]
        return found + [(f"last update {i}", x, True) for i, x in enumerate(self.last or []) if x is not None]


def start_recording(bindings: Bindings) -> None:
    """Makes what statistics need, or drops it."""
    tail = bindings.tail
    bindings.recorder = Recorder(len(bindings.params), tail.every, tail.norms) if tail.every else None
    bindings.outputs.last = None
    bindings.last_lrs = [0.0 for _ in bindings.groups]
    if tail.every and not tail.norms:
        bindings.outputs.last = [state_array(param, 0.0, 3) for param in bindings.params]


def make_outputs(
    tail: Tail, copies: Sequence[Any] | None, params: list[Array], labels: list[str], ema: list[Array]
) -> Outputs:
    """Checks copies and continues the averages ``ema``, which may be fewer than the parameters."""
    outputs = Outputs()
    if copies is not None:
        if len(copies) != len(params):
            raise ValueError(f"copy_to: expected {len(params)} arrays, one per parameter, got {len(copies)}")
        outputs.copies = list(copies)
        outputs.copy_dtypes = [
            check_copy(f"copy_to[{i}]", copy, labels[i], params[i]) for i, copy in enumerate(outputs.copies)
        ]
        outputs.copy_places = [(copy.ctypes.data, copy.dtype) for copy in outputs.copies]
    if tail.ema is not None:
        outputs.ema = ema + [state_array(param, param, 3) for param in params[len(ema) :]]
    return outputs


def check_copy(label: str, copy: Any, param_label: str, param: Array) -> str:
    """The type of a copy: "float32", "float16" or "bfloat16". Raises TypeError or ValueError for what does not fit."""
    if type(copy) not in (np.ndarray, np.memmap):
        raise TypeError(f"{label}: expected a plain numpy array, got {type(copy).__name__}")
    name = "bfloat16" if copy.dtype == np.uint16 else copy.dtype.name
    if name not in ("float32", "float16", "bfloat16") or not copy.dtype.isnative:
        raise TypeError(f"{label}: expected dtype float32, float16, bfloat16 or uint16 (its bits), got {copy.dtype}")
    if copy.shape != param.shape:
        raise ValueError(f"{label}: expected shape {param.shape} like {param_label}, got {copy.shape}")
    if not (copy.flags.c_contiguous and copy.flags.aligned and copy.flags.writeable):
        raise ValueError(f"{label}: expected a C-contiguous, aligned, writable array")
    return name


def _optional(accepts: Callable[[float], bool], expected: str) -> Callable[[str, Any], float | None]:
    def check(name: str, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, (bool, str, bytes)):
            raise TypeError(f"{name}: expected None or {expected}, got {value!r}")
        try:
            number = float(value)
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


def _checked_switch(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


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
    "ema": _optional(lambda x: 0 <= x < 1, "a number in [0, 1)"),
}
