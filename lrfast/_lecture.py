"""The lecture on learning rates, first claims, computed in float64 on a bowl that is long in one direction.

.. code-block:: text

    L(x, y) = (a x^2 + b y^2) / 2,   a = 0.01,  b = 200,   from (-5, 0.5); its minimum is (0, 0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import lrfast

__all__ = ["CURVATURE", "START", "Descent", "adaptive", "bouncing", "cautious", "crawling", "loss"]

Array = np.ndarray[Any, Any]

CURVATURE = np.array([0.01, 200.0])
"""(a, b): flat along x, steep along y."""
START = np.array([-5.0, 0.5])


@dataclass(frozen=True)
class Descent:
    """A run of n updates.

    ``path`` (n+1, 2): the points from the start on. ``rates`` (n, 2): what each gradient was multiplied by.
    """

    path: Array
    rates: Array

    @property
    def losses(self) -> Array:
        """L at each point of the path, shape (n+1,)."""
        return loss(self.path)

    @property
    def gradients(self) -> Array:
        """The gradient (a x, b y) at each point of the path, shape (n+1, 2)."""
        gradients: Array = CURVATURE * self.path
        return gradients

    @property
    def grad_norms(self) -> Array:
        """Its Euclidean norm, shape (n+1,)."""
        norms: Array = np.linalg.norm(self.gradients, axis=1)
        return norms

    @property
    def turning(self) -> float:
        """Share of the n updates whose gradient points against that of the update before (the first has none)."""
        used = self.gradients[:-1]
        return float(((used[1:] * used[:-1]).sum(axis=1) < 0).sum() / len(used))


def loss(points: Array) -> Array:
    """L at points of shape (..., 2)."""
    values: Array = (CURVATURE * points**2).sum(axis=-1) / 2
    return values


def bouncing() -> Descent:
    """L1 and L3: gradient descent whose rate, 0.01, is as large as the steep direction allows. 2,000 updates."""
    return _descend(lambda p, g: lrfast.SGD(p, lr=0.01, grads=g), 2_000)


def crawling() -> Descent:
    """L3: gradient descent with a rate so small, 1e-7, that nothing bounces. 100,000 updates."""
    return _descend(lambda p, g: lrfast.SGD(p, lr=1e-7, grads=g), 100_000)


def cautious() -> Descent:
    """Beside L3: gradient descent just below the rate that bounces for ever, 0.0099. 2,000 updates."""
    return _descend(lambda p, g: lrfast.SGD(p, lr=0.0099, grads=g), 2_000)


def adaptive() -> Descent:
    """L4: the rate of L1 divided by sigma, the root mean square of all gradients of that parameter so far."""
    return _descend(lambda p, g: lrfast.Adagrad(p, lr=0.01, accumulate="mean", grads=g), 2_000)


def _descend(make: Callable[[Array, Array], lrfast.Optimizer], updates: int) -> Descent:
    point, gradient = START.copy(), np.empty(2)
    optimizer = make(point, gradient)
    lr = optimizer.param_groups[0]["lr"]
    square_avg = optimizer.state[0].get("square_avg")
    path, rates = np.empty((updates + 1, 2)), np.full((updates, 2), lr)
    path[0] = point
    for t in range(updates):
        np.multiply(CURVATURE, point, out=gradient)
        optimizer.step()
        path[t + 1] = point
        if square_avg is not None:
            rates[t] = lr / np.sqrt(square_avg)
    return Descent(path, rates)
