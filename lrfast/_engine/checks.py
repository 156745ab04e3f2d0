"""Refusals in the user's words: which tensor or number, what was expected, what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from .table import CARRIED, CONSTANTS, FLAGS, NUMBERS, RANGES

PLAIN = ("float32", "float64")
CODED = ("float32", "float64", "bfloat16", "float16")
LAST_UPDATE = 2**63 - 1

_OPTIONS = {"grad_scale": RANGES["FINITE"], "ema": RANGES["BELOW_1"], "ema_decay": RANGES["BELOW_1"]}
_RANGE_OF = {number.setting: number.range for number in NUMBERS.values()} | CONSTANTS | _OPTIONS
HOLDS_BELOW_1 = {name for name, r in _RANGE_OF.items() if r.least <= 0 and r.largest >= math.nextafter(1, 0)}
SCHEDULABLE = frozenset(number.setting.partition("[")[0] for number in NUMBERS.values() if number.schedulable)
"""Settings that may follow a schedule."""


# ---- numbers and settings ------------------------------------------------------------------------------------


def real(value: Any) -> float:
    """value as a float. Raises TypeError for what is no real number, also where float() would read or round it: text,
    truth values, complex numbers; OverflowError for what is larger than floats are.
    """
    if isinstance(value, (np.ndarray, np.generic)):
        is_number = value.dtype.kind not in "bcmMOSU" and not isinstance(value, np.void) and value.dtype.names is None
    else:
        is_number = not isinstance(value, bool) and (hasattr(value, "__float__") or hasattr(value, "__index__"))
    if not is_number:
        raise TypeError(f"expected a real number, got {value!r:.80}")
    return float(value)


def loss(label: str, value: Any) -> float:
    """Any number, also one that is not finite."""
    try:
        return real(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{label}, got {value!r:.80}") from None


def number(name: str, value: Any, where: str = "") -> float:
    """value as a float in the range that belongs to the name ("lr", "betas[0]", ...)."""
    allowed = _RANGE_OF[name]
    expected = allowed.words
    try:
        x = value if type(value) is float else real(value)
    except OverflowError:
        raise ValueError(f"{where}{name}: expected {expected}, got a larger one than floats can hold") from None
    except (TypeError, ValueError):
        hint = "; a schedule belongs into the constructor of an optimizer" if callable(value) else ""
        raise TypeError(f"{where}{name}: expected {expected}, got {value!r}{hint}") from None
    if not allowed.least <= x <= allowed.largest:
        raise ValueError(f"{where}{name}: expected {expected}, got {value!r}")
    return x


def setting(name: str, value: Any, default: Any, where: str = "") -> Any:
    """A checked setting in its plain form; of the kind of its default: number, pair of numbers, switch or choice."""
    if type(value) is float and 0 <= value < 1 and name in HOLDS_BELOW_1 and type(default) is float:
        return value  # in every range; schedules pass here on every step
    if isinstance(default, tuple):
        try:
            if isinstance(value, (Set, Mapping)):
                raise TypeError("in no order")
            first, second = value
        except (TypeError, ValueError):
            each, other = (_RANGE_OF[f"{name}[{i}]"].words for i in range(2))
            both = each.replace("a ", "two ", 1).replace("number", "numbers")
            expected = both if each == other else f"{each} and {other}"
            raise ValueError(f"{where}{name}: expected {expected}, got {value!r}") from None
        return (number(f"{name}[0]", first, where), number(f"{name}[1]", second, where))
    if isinstance(default, bool):
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{where}{name}: expected True or False, got {value!r}")
        return bool(value)
    if isinstance(default, str):
        choices = (default, FLAGS[name].value)
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{where}{name}: expected one of {choices}, got {value!r}")
        return value
    return number(name, value, where)


def groups(groups: Sequence[Any], bound: Sequence[Any]) -> None:
    """Refuses a list of groups whose members were replaced, removed or joined by others."""
    if len(groups) != len(bound) or any(mine is not group for mine, group in zip(groups, bound, strict=True)):
        raise ValueError(
            "param_groups: expected the groups that the optimizer made, got others; edit their settings, "
            "or use add_param_group"
        )


def same_objects(group: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether both hold the same objects under the same keys in the same order."""
    if len(group) != len(known):
        return False
    for (key, value), (known_key, known_value) in zip(group.items(), known.items(), strict=True):
        if value is not known_value or key != known_key:
            return False
    return True


def step_number(step: Any) -> int:
    """The number of an update: an integer from 1 to 2**63."""
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
        raise TypeError(f"step: expected an integer >= 1, got {step!r}")
    if not 1 <= step < 2**63:
        raise ValueError(f"step: expected an integer >= 1 (the number of this update), got {step!r}")
    return int(step)


def another_update(updates: int) -> None:
    """Refuses to count further than a checkpoint can say."""
    if updates >= LAST_UPDATE:
        raise ValueError(f"step: expected fewer than {LAST_UPDATE} completed updates, got {updates}")


def count(label: str, value: Any) -> int:
    """A whole number from 0 to 2**63: int, float or 0-d array, as checkpoints hold them."""
    try:
        exact = value.item() if hasattr(value, "item") else value
        whole = int(exact)
        if not isinstance(exact, (bool, str, bytes)) and whole == exact and 0 <= whole <= LAST_UPDATE:
            return whole
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{label}: expected an integer >= 0, got {value!r}")


# ---- arrays --------------------------------------------------------------------------------------------------


def param(label: str, x: Any, dtypes: Sequence[str] = PLAIN) -> None:
    """A parameter: writable, C-contiguous, aligned, of one of these dtypes."""
    _buffer(label, x, "make it contiguous before the model uses it, since a copy would lose the update", dtypes)
    if not x.flags.writeable:
        raise ValueError(f"{label}: expected a writable array, which is updated in place; got a read-only one")


def companion(label: str, x: Any, param_label: str, param: np.ndarray, *, written: bool = False) -> None:
    """A gradient or state: like its parameter in dtype and shape."""
    _buffer(label, x, "pass np.ascontiguousarray of it", PLAIN)
    if x.dtype != param.dtype:
        raise TypeError(f"{label}: expected dtype {param.dtype} like {param_label}, got {x.dtype}")
    _like(label, x, param_label, param, written)


def grad(
    label: str, x: Any, param_label: str, param: np.ndarray, *, dtypes: Sequence[str] = CODED, written: bool = False
) -> None:
    """A gradient of an optimizer: like its parameter in shape, and float64 where that is."""
    _buffer(label, x, "pass np.ascontiguousarray of it", dtypes)
    if (x.dtype == np.float64) != (param.dtype == np.float64):
        raise TypeError(f"{label}: expected dtype {param.dtype} like {param_label}, got {x.dtype}")
    _like(label, x, param_label, param, written)


def _like(label: str, x: Any, param_label: str, param: np.ndarray, written: bool) -> None:
    if x.shape != param.shape:
        raise ValueError(f"{label}: expected shape {param.shape} like {param_label}, got {x.shape}")
    if written and not x.flags.writeable:
        raise ValueError(f"{label}: expected a writable array, got a read-only one")


def carried(label: str, x: Any) -> None:
    """A number that a tensor carries from step to step: one float64 in a writable array of its own."""
    if type(x) is not np.ndarray or x.dtype != np.float64 or not x.dtype.isnative:
        raise TypeError(f"{label}: expected an array of one float64, got {_kind_of(x)}")
    if x.size != 1 or not (x.flags.writeable and x.flags.aligned):
        raise ValueError(f"{label}: expected a writable array of one float64, got shape {x.shape}")
    carried_value(label, label, x)


def carried_value(name: str, label: str, value: Any) -> float:
    """A number that a tensor carries, as checkpoints hold it: float or 0-d array."""
    allowed = CARRIED[name]
    try:
        x = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError):
        x = math.nan
    if isinstance(value, (bool, str, bytes)) or not allowed.least <= x <= allowed.largest:
        raise ValueError(f"{label}: expected {allowed.words}, got {value!r}")
    return x


def _kind_of(x: Any) -> str:
    return f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__


def _buffer(label: str, x: Any, cure: str, dtypes: Sequence[str]) -> None:
    if not isinstance(x, np.ndarray):
        kind = type(x).__module__.partition(".")[0]
        hint = "; pass tensor.detach().numpy(), which shares its memory" if kind == "torch" else ""
        raise TypeError(f"{label}: expected a numpy array, got {type(x).__name__}{hint}")
    if type(x) not in (np.ndarray, np.memmap):
        raise TypeError(f"{label}: expected a plain numpy array, got {type(x).__name__}; pass np.asarray of it")
    if x.dtype.name not in dtypes or not x.dtype.isnative:
        order = "" if x.dtype.isnative else " of foreign byte order"
        hint = ""
        if dtypes == PLAIN and x.dtype.name in CODED:
            hint = "; the optimizer classes take it"
        elif x.dtype == np.uint16:
            hint = "; uint16='bfloat16' says that uint16 are the bits of bfloat16"
        raise TypeError(f"{label}: expected dtype {', '.join(dtypes[:-1])} or {dtypes[-1]}, got {x.dtype}{order}{hint}")
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
