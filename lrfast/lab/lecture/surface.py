"""Landscapes with two parameters on which the lecture walks, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..._engine.arithmetic import Array

__all__ = ["CRESCENT", "LONG_BOWL", "SADDLE", "WIDE_BOWL", "Surface", "bowl"]


@dataclass(frozen=True)
class Surface:
    """A loss L(x, y) with its gradient. Points have the shape (..., 2), losses (...), gradients (..., 2)."""

    loss: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    start: tuple[float, float]
    minimum: tuple[float, float]


def bowl(a: float, b: float) -> Surface:
    """L = (a x^2 + b y^2) / 2 from (-5, 0.5): flat along x, steep along y. With b < 0 (0, 0) is a saddle."""
    curvature = np.array([a, b])
    return Surface(
        loss=lambda p: (curvature * p * p).sum(axis=-1) / 2,
        gradient=lambda p: curvature * p,
        start=(-5.0, 0.5),
        minimum=(0.0, 0.0),
    )


def _crescent_loss(p: Array) -> Array:
    x, y = p[..., 0], p[..., 1]
    off = y - x * x
    loss: Array = 100 * off * off + (1 - x) * (1 - x)
    return loss


def _crescent_gradient(p: Array) -> Array:
    x, y = p[..., 0], p[..., 1]
    off = y - x * x
    gradient = np.empty_like(p)
    gradient[..., 0] = -400 * x * off - 2 * (1 - x)
    gradient[..., 1] = 200 * off
    return gradient


LONG_BOWL = bowl(0.01, 200.0)
"""Of L1 to L4 and L6."""
WIDE_BOWL = bowl(0.01, 100.0)
"""Of L7 and L8."""
SADDLE = bowl(1.0, -1.0)
CRESCENT = Surface(_crescent_loss, _crescent_gradient, start=(-1.5, 2.5), minimum=(1.0, 1.0))
"""100 (y - x^2)^2 + (1 - x)^2: a valley as curved as a crescent (Rosenbrock 1960)."""
