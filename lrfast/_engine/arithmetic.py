"""What the rules are made of: the few operations that every specification shares, in the bits of the C kernels.

The counterpart of the inline functions in ``src_c/kernels/``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
Scalars = TypeVar("Scalars", bound=tuple[float, ...])


class Moved(NamedTuple):
    """What statistics see of an update.

    ``update``: u, p moves by -u beside decoupled decay; ``denominator``: what u was divided by, None for nothing;
    ``rate``: the learning rate in eta/sigma.
    """

    update: Array
    denominator: Array | None
    rate: float


def rounded(scalars: Scalars, array: Array) -> Scalars:
    """The float64 scalars of an update, each rounded once to the element type of an array.

    Raises ValueError for one that is infinite there, all but the factor of the gradient.
    """
    k: Any = type(scalars)(*map(array.dtype.type, scalars))
    if not all(map(math.isfinite, k[1:])):
        name = next(name for name, x in zip(k._fields[1:], k[1:], strict=True) if not math.isfinite(x))
        raise ValueError(
            f"lr: expected a rate with which what an update computes with is finite in {array.dtype}, "
            f"got {name} = {getattr(scalars, name):.4g}; use a smaller one"
        )
    return k  # type: ignore[no-any-return]


def eps_of(eps: float, array: Array) -> float:
    """What is added to roots: eps, but the root of the smallest normal number for 0, so that 0 / 0 is 0."""
    return eps if eps != 0 else math.sqrt(np.finfo(array.dtype).smallest_normal)


def signed(grad_scale: float, maximize: bool) -> float:
    """The factor of the gradient."""
    return -grad_scale if maximize else grad_scale


def split_factor(scale: float, clip_factor: float, lifted_factor: float, dtype: np.dtype[Any]) -> tuple[float, float]:
    """scale * clip_factor in two parts, which multiply gradients one after the other.

    The first is 1 but where the whole would be denormal in the element type, or 0 without being that. lifted_factor:
    clip_factor times 2^1022, also where that itself is denormal or 0.
    """
    smallest = float(np.finfo(dtype).smallest_normal)
    lifted = scale * lifted_factor
    whole = lifted * 2.0**-1022 if clip_factor < 2.0**-1022 else scale * clip_factor
    if not abs(whole) < smallest or lifted == 0:
        return 1.0, whole
    return lifted * (2.0**-1022 / smallest), smallest


def decayed_lr(lr: float, lr_decay: float, step: int) -> float:
    """lr of update `step` under lr_decay."""
    return lr / (1 + (step - 1) * lr_decay)


def towards(start: Array, end: Array, weight: Any) -> Array:
    """(1 - weight) start + weight end, exact at both ends."""
    difference = end - start
    near: Array = start + weight * difference if weight < 0.5 else end - (type(weight)(1) - weight) * difference
    return near


def flush(x: Array) -> Array:
    """+0 in place of what is below the smallest normal number, so that denormals never slow a run down."""
    return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x.dtype.type(0), x)


def not_negative(x: Array) -> Array:
    """+0 in place of what is below 0; NaN stays."""
    return np.where(x < 0, x.dtype.type(0), x)


def larger(x: Array, y: Array) -> Array:
    """The larger of both; NaN if either is."""
    return np.where((x >= y) | np.isnan(x), x, y)


def sign_of(x: Array) -> Array:
    """1 or -1; NaN and zeros stay."""
    return np.where(x > 0, x.dtype.type(1), np.where(x < 0, x.dtype.type(-1), x))


def need(name: str, state: Array | None, needed: bool) -> None:
    """Raises ValueError for a state that the variant lacks, or has no use for."""
    if needed and state is None:
        raise ValueError(f"{name}: this variant needs the state {name}, got None")
    if not needed and state is not None:
        raise ValueError(f"{name}: this variant has no state {name}, got an array")
