"""Walks over a surface with an optimizer of lrfast, every step recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import lrfast

from ..._engine.arithmetic import Array
from .surface import Surface

__all__ = ["Descent", "descend"]


@dataclass(frozen=True)
class Descent:
    """A run of n updates from one start (...: nothing) or from k starts at once (...: k).

    ``path`` (n+1, ..., 2): the points from the start on. ``rates`` (n, ..., 2): eta/sigma, by which each gradient was
    multiplied; for optimizers without sigma eta. ``monitor`` followed the run if that was asked for.
    """

    surface: Surface
    path: Array
    rates: Array
    monitor: lrfast.Monitor | None = None

    @property
    def updates(self) -> int:
        """n."""
        return len(self.rates)

    @property
    def losses(self) -> Array:
        """L at each point of the path, shape (n+1, ...)."""
        return self.surface.loss(self.path)

    @property
    def gradients(self) -> Array:
        """The gradient at each point of the path, shape (n+1, ..., 2)."""
        return self.surface.gradient(self.path)

    @property
    def grad_norms(self) -> Array:
        """Its Euclidean norm, shape (n+1, ...)."""
        norms: Array = np.linalg.norm(self.gradients, axis=-1)
        return norms

    @property
    def turning(self) -> float:
        """Share of the n updates whose gradient points against that of the update before (the first has none)."""
        used = self.gradients[:-1]
        return float(((used[1:] * used[:-1]).sum(axis=-1) < 0).sum() / len(used))


def descend(
    surface: Surface,
    make: Callable[..., lrfast.Optimizer],
    updates: int,
    start: Any = None,
    *,
    monitored: bool = False,
    **settings: Any,
) -> Descent:
    """``updates`` updates by ``make(point, grads=gradient, **settings)``, a class of lrfast.

    ``start``, of shape (2,) or (k, 2), stands in for the start of the surface; k starts are walked at once, which is
    the same as one by one because these optimizers treat each element by itself. ``monitored``: a Monitor follows the
    run, which has to be from one start.
    """
    point = np.array(surface.start if start is None else start, np.float64)
    gradient = np.empty_like(point)
    optimizer = make(point, grads=gradient, **settings)
    monitor = lrfast.Monitor(optimizer) if monitored else None
    group, state = optimizer.param_groups[0], optimizer.state[0]
    square_avg = state.get("square_avg", state.get("sum"))
    path, rates = np.empty((updates + 1, *point.shape)), np.empty((updates, *point.shape))
    path[0] = point
    with np.errstate(all="ignore"):  # some diverge, which is what they are here for
        for t in range(updates):
            gradient[...] = surface.gradient(point)
            optimizer.step()
            if monitor is not None:
                monitor.update(float(surface.loss(path[t])))
            path[t + 1] = point
            rates[t] = group["lr"] if square_avg is None else group["lr"] / np.sqrt(square_avg)
    return Descent(surface, path, rates, monitor)
