"""Adadelta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np

from .._engine.arithmetic import Array, Moved, eps_of, flush, rounded, signed
from .._engine.family import Number
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    rho: float
    one_minus_rho: float
    lr: float
    eps: float


def adadelta(
    param: Array,
    grad: Array,
    square_avg: Array,
    acc_delta: Array,
    *,
    step: int,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Adadelta, in place.

    .. code-block:: text

        v  = rho v + (1 - rho) x^2
        u  = sqrt(a + eps) / sqrt(v + eps) x
        a  = rho a + (1 - rho) u^2
        p -= lr u

    ``square_avg`` is v, ``acc_delta`` a. Source: Zeiler 2012, arXiv:1212.5701.
    """
    k = Scalars(
        grad_scale=signed(grad_scale, maximize),
        weight_decay=weight_decay,
        rho=rho,
        one_minus_rho=1 - rho,
        lr=lr,
        eps=eps if eps != 0 else eps_of(0.0, param) * eps_of(0.0, param),
    )
    k = rounded(k, param)
    x = k.grad_scale * grad + k.weight_decay * param
    v = flush(k.rho * square_avg + k.one_minus_rho * x * x)
    factor = np.sqrt(acc_delta + k.eps) / np.sqrt(v + k.eps)
    delta = factor * x
    u = k.lr * delta
    square_avg[...] = v
    acc_delta[...] = flush(k.rho * acc_delta + k.one_minus_rho * delta * delta)
    param[...] = param - u
    return Moved(u, 1 / factor, lr)


class Adadelta(Optimizer):
    """Adadelta: each step has the size of the past steps, relative to the gradient's size, in units of the parameter.

    .. code-block:: text

        x  = grad_scale g + weight_decay p
        v  = rho v + (1 - rho) x^2
        u  = sqrt(a + eps) / sqrt(v + eps) x
        a  = rho a + (1 - rho) u^2
        p -= lr u

    State: ``square_avg`` (v), ``acc_delta`` (a). ``params`` and ``grads`` as in :class:`Optimizer`.
    Source: Zeiler 2012, arXiv:1212.5701.
    """

    spec = staticmethod(adadelta)

    def __init__(
        self,
        params: Any,
        lr: Number = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(params, grads, options, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)

    @classmethod
    def sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["rho"])
