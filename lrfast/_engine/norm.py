"""Phase 1 of a step, which only reads: norm of the gradients, whether they and their squares are finite, clip factor.

The counterpart of ``src_c/norm.c``, with the same bits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np

from .arithmetic import Array, split_factor
from .options import Options
from .stages import clamp, count_nonfinite, sum_squares

CLIP_EPS = 1e-6
LARGE, SMALL, FEWEST_SQUARES = 2.0**600, 2.0**-600, 2.0**-900
HALF = 2.0**511


class Norm:
    """What a step knows of its gradients before the update of any.

    The caller hands over every tensor by ``add``, on any threads, then calls ``finish``; while that says so, once more:
    sums of squares that overflowed, or are so small that squares have lost bits, are made anew in units of 2^600 or
    2^-600. Afterwards ``grad_norm``, ``limited_norm``, ``clip_factor`` and ``nonfinite``, a count per tensor, are what
    the C core reports; ``lifted_factor`` is the clip factor times 2^1022.
    """

    def __init__(self, options: Options, grads: Sequence[Array | None], grad_scale: float) -> None:
        self.grad_norm = self.limited_norm = math.nan
        self.clip_factor, self.lifted_factor = 1.0, 2.0**1022
        self.nonfinite = [0] * len(grads)
        self._options, self._scale = options, grad_scale
        self._is_limited = options.clip_value is not None and options.clip_norm is not None
        self._has_doubles = any(grad is not None and grad.dtype == np.float64 for grad in grads)
        self._sums, self._limited_sums = [0.0] * len(grads), [0.0] * len(grads)
        self._unit = self._limited_unit = 1.0

    @property
    def is_needed(self) -> bool:
        """Whether anything asks for it."""
        return self._options.clip_norm is not None or self._options.nonfinite != "propagate"

    def add(self, i: int, grad: Array) -> None:
        """Looks at the gradient of tensor i."""
        self._sums[i] = sum_squares(grad, self._unit)
        if self._is_limited:
            self._limited_sums[i] = sum_squares(self.limit(grad), self._limited_unit)
        if self._options.nonfinite != "propagate":
            self.nonfinite[i] = count_nonfinite(grad, self._scale)

    def finish(self) -> bool:
        """Adds up; whether all tensors have to come once more."""
        total, limited = _in_order(self._sums), _in_order(self._limited_sums)
        if self._has_doubles and self._unit == 1 and self._limited_unit == 1:
            self._unit, self._limited_unit = _better_unit(total), _better_unit(limited) if self._is_limited else 1.0
            if self._unit != 1 or self._limited_unit != 1:
                return True
        self.grad_norm = _norm_of(math.sqrt(total), self._scale, self._unit)
        if self._options.clip_norm is not None and not any(self.nonfinite):
            if self._is_limited:
                self._set_clip_factor(self._options.clip_norm, math.sqrt(limited), 1.0, self._limited_unit)
            else:
                self._set_clip_factor(self._options.clip_norm, math.sqrt(total), self._scale, self._unit)
        return False

    def limit(self, grad: Array) -> Array:
        """The gradient after grad_scale and clip_value, which there has to be."""
        assert self._options.clip_value is not None
        first, last = split_factor(self._scale, 1.0, 2.0**1022, grad.dtype)
        if first != 1:
            grad = grad.dtype.type(first) * grad
        return clamp(grad, last, self._options.clip_value)

    def used(self, grad: Array) -> tuple[Array, float]:
        """(gradient, factor) as the rule takes them."""
        scale = self._scale
        if self._options.clip_value is not None:
            grad, scale = self.limit(grad), 1.0
        first, last = split_factor(scale, self.clip_factor, self.lifted_factor, grad.dtype)
        return (grad if first == 1 else grad.dtype.type(first) * grad), last

    def has_finite_square(self, grad: Array) -> bool:
        """Whether what the rule gets of a gradient has squares that are all finite."""
        used, factor = self.used(grad)
        x = grad.dtype.type(factor) * used
        return bool(np.isfinite(x * x).all())

    def _set_clip_factor(self, clip_norm: float, root: float, scale: float, unit: float) -> None:
        """PyTorch's min(1, clip_norm / (norm + 1e-6)), NaN for a norm that is NaN; also where float64 cannot hold it,
        or, of finite gradients, the norm."""
        norm = self.limited_norm = _norm_of(root, scale, unit)
        too_large = norm > sys.float_info.max
        divisor = (_norm_of(root, scale, unit / HALF) if too_large else norm / HALF) + CLIP_EPS / HALF
        factor = clip_norm / divisor / HALF if too_large else clip_norm / (norm + CLIP_EPS)
        self.clip_factor = factor if factor < 1 or math.isnan(factor) else 1.0
        if self.clip_factor != 1:
            self.lifted_factor = clip_norm * HALF / divisor


def _in_order(sums: Sequence[float]) -> float:
    """The sum, one after the other, as the C core adds up."""
    total = 0.0
    for value in sums:
        total += value
    return total


def _better_unit(total: float) -> float:
    """The unit in which a sum of squares should have been made."""
    return LARGE if total > sys.float_info.max else SMALL if total < FEWEST_SQUARES else 1.0


def _norm_of(root: float, scale: float, unit: float) -> float:
    """|scale| unit root, without overflow or underflow on the way."""
    size = abs(scale)
    return root * unit * size if (size < 1) == (unit < 1) else size * unit * root
