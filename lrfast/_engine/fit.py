"""Numbers fit the tensor: refusals of what float64 holds and the element type of the tensors does not.

The counterpart of what ``src_c/check.c`` refuses for its type. A group's numbers have to fit the narrowest type of its
tensors, options that of all. A rate or a decay that rounds to 0 is 0; what is a divisor or a bound is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import formats, specification
from .arithmetic import Array, Moved
from .table import ELEMENTS, Rule

_DIVISORS_AND_BOUNDS = ("grad_scale", "clip_norm", "clip_value", "initial_accumulator_value")
HARMLESS = 2.0**32  # below it in size, what is made of several numbers fits every type

Type = np.dtype[Any]
_HOLDS = {np.dtype(name): element for name, element in ELEMENTS.items()}


def narrowest(arrays: Iterable[Any]) -> Type:
    """The type of which a number for all of some arrays has to be; what is no array is refused elsewhere."""
    found = any(isinstance(x, np.ndarray) and x.dtype != np.float64 for x in arrays)
    return np.dtype(np.float32 if found else np.float64)


def number(name: str, value: float, dtype: Type, where: str = "") -> None:
    """Refuses a number that is infinite in the type, or lost there. It is in its range."""
    holds, size = _HOLDS[dtype], abs(value)
    if size > holds.largest:
        raise ValueError(
            f"{where}{name}: expected a number that {dtype} holds, which ends at {holds.largest:.4g}, got {value!r}"
        )
    if name == "eps" and 0 < value < holds.least_eps:
        raise ValueError(
            f"{where}{name}: expected 0 or a number >= {holds.least_eps:g} for {dtype}, since the squares of smaller "
            f"gradients vanish there, got {value!r}; scale gradients up by grad_scale, or use float64"
        )
    if name in _DIVISORS_AND_BOUNDS and 0 < size < holds.smallest:
        raise ValueError(
            f"{where}{name}: expected a number that {dtype} does not round to 0, {holds.smallest:.4g} or more in size, "
            f"got {value!r}"
        )


def settings(given: Mapping[str, Any], dtype: Type, where: str = "") -> None:
    """The same for all numbers of a group."""
    for name, value in _numbers(given):
        number(name, value, dtype, where)


def scalars(
    spec: Callable[..., Moved],
    rule: Rule,
    given: Mapping[str, Any],
    dtype: Type,
    step: int,
    where: str = "",
    carried: Sequence[float] = (),
) -> None:
    """Refuses settings of which update ``step`` would compute with an infinite number: it is made, of no elements.

    ``carried``: what the tensor carries; 0 where that is not known yet.
    """
    if not any(abs(value) >= HARMLESS for value in [*carried, *(value for _, value in _numbers(given))]):
        return
    nothing = np.empty(0, dtype)
    states = dict.fromkeys(rule.state_names, nothing)
    states |= {name: np.array([*carried[i : i + 1], 0.0][:1]) for i, name in enumerate(rule.carried)}
    with np.errstate(all="ignore"):
        try:
            specification.update(spec, nothing, nothing, states, step, 1.0, given)
        except ValueError as error:
            raise ValueError(f"{where}update {step}: {error}") from None


def step(
    buffers: Any,
    given: Sequence[Mapping[str, Any]],
    grads: Sequence[Array | None],
    steps: Sequence[int],
    grad_scale: float,
) -> None:
    """Refuses the next update of all tensors with a gradient, after so many ``steps`` of each; given: per group."""
    number("grad_scale", grad_scale, narrowest(buffers.params))
    for index, group in enumerate(buffers.groups):
        count = len(group.rule.carried)
        todo = {
            (formats.computed(buffers.params[i].dtype), steps[i] + 1, tuple(buffers.carried[i, :count].tolist()))
            for i in range(group.first, group.stop)
            if grads[i] is not None
        }
        for dtype, number_of_it, carried in sorted(todo, key=str):
            scalars(group.spec, group.rule, given[index], dtype, number_of_it, f"group {index}: ", carried)


def _numbers(given: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Those of settings, among whatever else a group holds."""
    for key, value in given.items():
        parts = [(f"{key}[{i}]", part) for i, part in enumerate(value)] if isinstance(value, tuple) else [(key, value)]
        yield from ((name, x) for name, x in parts if isinstance(x, (int, float)) and not isinstance(x, bool))
