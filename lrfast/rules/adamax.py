"""Adamax."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import numpy as np

from .._engine.arithmetic import Array, Moved, eps_of, flush, larger, rounded, signed, towards
from .._engine.elementary import one_minus_power
from .._engine.family import Number
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    one_minus_beta1: float
    beta2: float
    lr: float  # with the bias correction of m: lr / c1
    eps: float


def adamax(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_inf: Array,
    *,
    step: int,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Adamax, in place.

    .. code-block:: text

        m += (1 - beta1) (x - m)
        s  = max(beta2 s, |x| + eps)
        p -= (lr / c1) m / s,    c1 = 1 - beta1^t

    ``exp_avg`` is m, ``exp_inf`` s. Source: Kingma & Ba 2015, arXiv:1412.6980, section 7.1.
    """
    k = Scalars(
        grad_scale=signed(grad_scale, maximize),
        weight_decay=weight_decay,
        one_minus_beta1=1 - betas[0],
        beta2=betas[1],
        lr=lr / one_minus_power(betas[0], step),
        eps=eps_of(eps, param),
    )
    k = rounded(k, param)
    x = k.grad_scale * grad + k.weight_decay * param
    m = flush(towards(exp_avg, x, k.one_minus_beta1))
    d = larger(np.abs(x) + k.eps, k.beta2 * exp_inf)
    u = k.lr * m / d
    exp_avg[...] = m
    exp_inf[...] = d
    param[...] = param - u
    return Moved(u, d, lr)


class Adamax(Optimizer):
    """Adamax: a moving average of gradients divided by the largest of them so far, which fades.

    .. code-block:: text

        x  = grad_scale g + weight_decay p
        m += (1 - beta1) (x - m)
        s  = max(beta2 s, |x| + eps)
        p -= (lr / c1) m / s,    c1 = 1 - beta1^t

    State: ``exp_avg`` (m), ``exp_inf`` (s). ``params`` and ``grads`` as in :class:`Optimizer`.
    Source: Kingma & Ba 2015, arXiv:1412.6980, section 7.1; eps as in PyTorch.
    """

    spec = staticmethod(adamax)

    def __init__(
        self,
        params: Any,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(
            params, grads, options, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize
        )
