"""The extreme eigenvalues of the Hessian from differences of gradients, to tell a minimum from a saddle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._engine import formats
from .._engine.arithmetic import Array
from .._engine.extra import import_extra
from .._engine.optimizer import Optimizer
from .._engine.trial import given, in_order, lent, params_of

__all__ = ["extreme_curvatures"]

_TOLERANCE = 1e-3  # of the largest: where an eigenvalue counts as 0


def extreme_curvatures(optimizer: Optimizer, gradient: Callable[[Any], Any]) -> tuple[float, float, float]:
    """The smallest and the largest eigenvalue of the Hessian of the loss, and what their error may be.

    .. code-block:: text

        H v = (g(p + h v) - g(p - h v)) / 2h     |v| = 1,  h = eps^(1/3) (1 + |p|)

    eps is the spacing of the coarsest dtype among the parameters. h balances the rounding of g against its third
    derivative. With ``maximize`` it is the Hessian of the negative objective. Parameters and bound gradients are
    restored, also after an error. Raises ModuleNotFoundError without SciPy.
    """
    with import_extra("verdict(gradient=...)", "SciPy"):
        from scipy.sparse.linalg import LinearOperator, eigsh

    params = params_of(optimizer)
    for param in params:
        if formats.is_coded(param.dtype):
            raise TypeError(
                f"gradient: expected parameters of float32 or float64, to differentiate by, got {param.dtype}"
            )
    signs = [-1.0 if group["maximize"] else 1.0 for group in optimizer.param_groups for _ in group["params"]]
    start = [param.astype(np.float64) for param in params]
    size = sum(param.size for param in params)
    norm = np.sqrt(sum(float(np.vdot(p, p)) for p in start))
    h = max(np.finfo(param.dtype).eps for param in params) ** (1 / 3) * (1 + norm)

    def gradient_at(direction: Array, scale: float) -> Array:
        offset = 0
        for param, value in zip(params, start, strict=True):
            param[...] = value + scale * direction[offset : offset + param.size].reshape(param.shape)
            offset += param.size
        arrays = in_order(optimizer, gradient(given(optimizer)))
        if arrays is None:
            raise ValueError("gradient: expected gradients like those that step takes, got None and none are bound")
        flat = [
            np.zeros(p.size) if g is None else sign * np.ravel(g).astype(np.float64)
            for p, g, sign in zip(params, arrays, signs, strict=True)
        ]
        return np.concatenate(flat)

    def product(vector: Array) -> Array:
        direction = np.ravel(vector) / np.linalg.norm(vector)
        change = gradient_at(direction, h) - gradient_at(direction, -h)
        curved: Array = change / (2 * h) * np.linalg.norm(vector)
        return curved

    def extremes() -> tuple[float, float]:
        if size == 1:
            only = float(product(np.ones(1))[0])
            return only, only
        hessian = LinearOperator((size, size), matvec=product, dtype=np.float64)
        begin = np.random.default_rng(0).standard_normal(size)
        ends = (
            eigsh(hessian, 1, which=end, v0=begin, tol=_TOLERANCE, return_eigenvectors=False) for end in ("SA", "LA")
        )
        smallest, largest = (float(end[0]) for end in ends)
        return smallest, largest

    smallest, largest = lent(optimizer).run(extremes)
    return smallest, largest, _TOLERANCE * max(abs(smallest), abs(largest))
