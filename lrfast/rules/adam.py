"""Adam, AMSGrad and AdamW; their loop also serves RAdam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np

from .._engine.arithmetic import (
    Array,
    Moved,
    eps_of,
    flush,
    larger,
    need,
    rounded,
    signed,
    towards,
)
from .._engine.elementary import one_minus_power
from .._engine.family import Number, Twin
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    one_minus_beta1: float
    beta2: float
    one_minus_beta2: float
    lr: float  # with its bias correction: lr / c1
    per_root: float  # bias correction of the root: 1 / sqrt(c2)
    eps: float
    keep: float  # of the parameter: 1 - lr decoupled_weight_decay


def compute(
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled_weight_decay: float,
    maximize: bool,
    grad_scale: float,
) -> Scalars:
    """Those of update ``step``."""
    return Scalars(
        grad_scale=signed(grad_scale, maximize),
        weight_decay=weight_decay,
        one_minus_beta1=1 - betas[0],
        beta2=betas[1],
        one_minus_beta2=1 - betas[1],
        lr=lr / one_minus_power(betas[0], step),
        per_root=1 / math.sqrt(one_minus_power(betas[1], step)),
        eps=eps,
        keep=1 - lr * decoupled_weight_decay,
    )


def update(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None,
    scalars: Scalars,
    rate: float,
) -> Moved:
    """The loop of the family: it keeps the largest v where there is a ``max_exp_avg_sq``."""
    k = rounded(scalars, param)
    x = k.grad_scale * grad + k.weight_decay * param
    m = flush(towards(exp_avg, x, k.one_minus_beta1))
    v = flush(k.beta2 * exp_avg_sq + k.one_minus_beta2 * x * x)
    largest = v if max_exp_avg_sq is None else larger(max_exp_avg_sq, v)
    # RAdam does not always divide: per_root is 0 then, and v may be infinite.
    d = np.sqrt(largest) * k.per_root + k.eps if k.per_root > 0 else np.full_like(v, k.eps)
    u = k.lr * m / d
    exp_avg[...] = m
    exp_avg_sq[...] = v
    if max_exp_avg_sq is not None:
        max_exp_avg_sq[...] = largest
    param[...] = k.keep * param - u
    return Moved(u, d, rate)


def adam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Adam, in place.

    .. code-block:: text

        m += (1 - beta1) (x - m)
        v  = beta2 v + (1 - beta2) x^2
        p -= (lr / c1) m / (sqrt(v) / sqrt(c2) + eps),    ci = 1 - betai^t

    ``exp_avg`` is m, ``exp_avg_sq`` v. ``amsgrad`` divides by the root of the largest v so far,
    ``max_exp_avg_sq``. Sources: Kingma & Ba 2015, arXiv:1412.6980; Reddi et al. 2018, arXiv:1904.09237.
    """
    need("max_exp_avg_sq", max_exp_avg_sq, amsgrad)
    scalars = compute(step, lr, betas, eps_of(eps, param), weight_decay, 0.0, maximize, grad_scale)
    return update(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, scalars, lr)


def adamw(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of AdamW, in place: Adam on the gradient alone, and p shrinks by itself.

    .. code-block:: text

        p = (1 - lr weight_decay) p - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)

    States as in :func:`adam`. Source: Loshchilov & Hutter 2019, arXiv:1711.05101.
    """
    need("max_exp_avg_sq", max_exp_avg_sq, amsgrad)
    scalars = compute(step, lr, betas, eps_of(eps, param), 0.0, weight_decay, maximize, grad_scale)
    return update(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq, scalars, lr)


class Adam(Optimizer):
    """Adam: a moving average of gradients divided by the root of a moving average of their squares.

    .. code-block:: text

        x  = grad_scale g + weight_decay p
        m += (1 - beta1) (x - m)
        v  = beta2 v + (1 - beta2) x^2
        p -= (lr / c1) m / (sqrt(v) / sqrt(c2) + eps),    ci = 1 - betai^t

    State: ``exp_avg`` (m), ``exp_avg_sq`` (v); with ``amsgrad`` also ``max_exp_avg_sq``, the largest v so far, by
    whose root m is divided instead. ``params`` and ``grads`` as in :class:`Optimizer`.
    Sources: Kingma & Ba 2015, arXiv:1412.6980; Reddi et al. 2018, arXiv:1904.09237 (amsgrad).
    """

    spec = staticmethod(adam)
    fixed = ("amsgrad",)
    torch_twin = Twin(marks={"decoupled_weight_decay": False}, witnesses={"amsgrad": "fused"})  # RAdam has neither

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(
            params,
            grads,
            options,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
        )

    @classmethod
    def variant(cls, settings: Mapping[str, Any]) -> str:
        return "amsgrad" if settings["amsgrad"] else "adam"

    @classmethod
    def sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["betas"][1])


class AdamW(Adam):
    """AdamW: Adam whose weight decay acts on the parameter alone, not through the moments.

    .. code-block:: text

        p = (1 - lr weight_decay) p - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)

    Moments, states and sources as in :class:`Adam`, with x = grad_scale g; Loshchilov & Hutter 2019,
    arXiv:1711.05101. ``params`` and ``grads`` as in :class:`Optimizer`.
    """

    spec = staticmethod(adamw)
    torch_twin = Twin(marks={"decoupled_weight_decay": True}, witnesses={"amsgrad": "fused"})

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, grads=grads, **options)

    @classmethod
    def numbers(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        return {"weight_decay": "decoupled_weight_decay"}
