"""Refusals in the user's words: which tensor or number, what was expected, what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

_AT_LEAST_0 = ("a finite number >= 0", lambda x: math.isfinite(x) and x >= 0)
_BELOW_1 = ("a number in [0, 1)", lambda x: 0 <= x < 1)
_FINITE = ("a finite number", math.isfinite)

_NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lr": _AT_LEAST_0,
    "momentum": _AT_LEAST_0,
    "dampening": _FINITE,
    "weight_decay": _AT_LEAST_0,
    "lr_decay": _AT_LEAST_0,
    "initial_accumulator_value": _AT_LEAST_0,
    "eps": _AT_LEAST_0,
    "alpha": _BELOW_1,
    "betas[0]": _BELOW_1,
    "betas[1]": _BELOW_1,
    "grad_scale": _FINITE,
}
SCHEDULABLE = frozenset(_NUMBERS) - {"grad_scale", "initial_accumulator_value"} | {"betas"}
"""Settings that may follow a schedule."""

_CHOICES = {"accumulate": ("sum", "mean"), "initial": ("zero", "first-gradient")}
_SWITCHES = ("nesterov", "centered", "amsgrad", "decoupled_weight_decay", "maximize")


# ---- hyper-parameters ----------------------------------------------------------------------------------------


def number(name: str, value: Any, where: str = "") -> float:
    """value as a float in the range that belongs to the name ("lr", "betas[0]", ...)."""
    expected, accepts = _NUMBERS[name]
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError(f"{where}{name}: expected {expected}, got {value!r}")
    try:
        x = float(value)
    except OverflowError:
        raise ValueError(f"{where}{name}: expected {expected}, got a larger one than floats can hold") from None
    except (TypeError, ValueError):
        hint = "; a schedule belongs into the constructor of an optimizer" if callable(value) else ""
        raise TypeError(f"{where}{name}: expected {expected}, got {value!r}{hint}") from None
    if not accepts(x):
        raise ValueError(f"{where}{name}: expected {expected}, got {value!r}")
    return x


def hyper_parameter(name: str, value: Any, where: str = "") -> Any:
    """A checked option of an optimizer in its plain form: float, pair of floats, bool or str."""
    if type(value) is float and 0 <= value < 1 and name in _NUMBERS:
        return value  # in every range; schedules pass here on every step
    if name == "betas":
        try:
            first, second = value
        except (TypeError, ValueError):
            raise ValueError(f"{where}betas: expected two numbers in [0, 1), got {value!r}") from None
        return (number("betas[0]", first, where), number("betas[1]", second, where))
    if name in _SWITCHES:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{where}{name}: expected True or False, got {value!r}")
        return bool(value)
    if name in _CHOICES:
        if not isinstance(value, str) or value not in _CHOICES[name]:
            raise ValueError(f"{where}{name}: expected one of {_CHOICES[name]}, got {value!r}")
        return value
    return number(name, value, where)


def step_number(step: Any) -> int:
    """The number of an update: an integer from 1 to 2**63."""
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
        raise TypeError(f"step: expected an integer >= 1, got {step!r}")
    if not 1 <= step < 2**63:
        raise ValueError(f"step: expected an integer >= 1 (the number of this update), got {step!r}")
    return int(step)


def count(label: str, value: Any) -> int:
    """A whole number from 0 to 2**63: int, float or 0-d array, as checkpoints hold them."""
    try:
        exact = value.item() if hasattr(value, "item") else value
        whole = int(exact)
        if not isinstance(exact, (bool, str, bytes)) and whole == exact and 0 <= whole < 2**63:
            return whole
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{label}: expected an integer >= 0, got {value!r}")


# ---- arrays --------------------------------------------------------------------------------------------------


def param(label: str, x: Any) -> None:
    """A parameter: writable, C-contiguous, aligned, float32 or float64."""
    _buffer(label, x, "make it contiguous before the model uses it, since a copy would lose the update")
    if not x.flags.writeable:
        raise ValueError(f"{label}: expected a writable array, which is updated in place; got a read-only one")


def companion(label: str, x: Any, param_label: str, param: np.ndarray, *, written: bool = False) -> None:
    """A gradient or state: like its parameter in dtype and shape."""
    _buffer(label, x, "pass np.ascontiguousarray of it")
    if x.dtype != param.dtype:
        raise TypeError(f"{label}: expected dtype {param.dtype} like {param_label}, got {x.dtype}")
    if x.shape != param.shape:
        raise ValueError(f"{label}: expected shape {param.shape} like {param_label}, got {x.shape}")
    if written and not x.flags.writeable:
        raise ValueError(f"{label}: expected a writable array, got a read-only one")


def _buffer(label: str, x: Any, cure: str) -> None:
    if not isinstance(x, np.ndarray):
        kind = type(x).__module__.partition(".")[0]
        hint = "; pass tensor.detach().numpy(), which shares its memory" if kind == "torch" else ""
        raise TypeError(f"{label}: expected a numpy array, got {type(x).__name__}{hint}")
    if type(x) not in (np.ndarray, np.memmap):
        raise TypeError(f"{label}: expected a plain numpy array, got {type(x).__name__}; pass np.asarray of it")
    if x.dtype not in DTYPES or not x.dtype.isnative:
        order = "" if x.dtype.isnative else " of foreign byte order"
        raise TypeError(f"{label}: expected dtype float32 or float64, got {x.dtype}{order}")
    if not x.flags.c_contiguous:
        raise ValueError(f"{label}: expected a C-contiguous array, got strides {x.strides} for shape {x.shape}; {cure}")
    if not x.flags.aligned:
        raise ValueError(f"{label}: expected memory aligned to {x.itemsize} bytes, got address {x.ctypes.data:#x}")


def overlap(buffers: Iterable[tuple[str, np.ndarray, bool]]) -> None:
    """Refuses memory that two buffers (label, array, written) share if one of them is written."""
    spans = sorted(
        ((x.ctypes.data, x.ctypes.data + x.nbytes, written, label) for label, x, written in buffers if x.nbytes),
        key=lambda span: span[:2],
    )
    last = last_written = (0, 0, False, "")
    for span in spans:
        begin, end, written, label = span
        for earlier in (last_written, last if written else last_written):
            if begin < earlier[1]:
                raise ValueError(
                    f"{label}: expected memory of its own, but it overlaps {earlier[3]}, and "
                    f"{label if written else earlier[3]} is written"
                )
        last = span if end > last[1] else last
        last_written = span if written and end > last_written[1] else last_written


# ---- collections of arrays -----------------------------------------------------------------------------------


def flatten(kind: str, arrays: Any) -> tuple[list[Any], list[str], list[Any] | None]:
    """An array, a mapping or a sequence as (list, labels, keys of the mapping); kind is "params" or "grads"."""
    if isinstance(arrays, np.ndarray):
        return [arrays], [kind], None
    if isinstance(arrays, Mapping):
        keys = list(arrays)
        return list(arrays.values()), [f"{kind}[{key!r}]" for key in keys], keys
    if isinstance(arrays, (str, bytes)) or not isinstance(arrays, Iterable):
        raise TypeError(f"{kind}: expected an array, a sequence or a mapping of arrays, got {type(arrays).__name__}")
    items = list(arrays)
    return items, [f"{kind}[{i}]" for i in range(len(items))], None
