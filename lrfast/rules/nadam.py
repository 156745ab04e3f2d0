"""NAdam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np

from .._engine.arithmetic import Array, Moved, eps_of, flush, rounded, signed, towards
from .._engine.elementary import one_minus_power, power
from .._engine.family import Number
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    one_minus_beta1: float
    beta2: float
    one_minus_beta2: float
    lr_now: float  # of the gradient: lr (1 - mu) / (1 - P)
    lr_ahead: float  # of the first moment: lr mu' / (1 - P mu')
    per_root: float  # bias correction of the root
    eps: float
    keep: float  # of the parameter: 1 - lr weight_decay, where it is decoupled


def momentum(beta1: float, momentum_decay: float, t: float) -> float:
    """Mu of update t."""
    return beta1 * (1 - 0.5 * power(0.96, t * momentum_decay))


def nadam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    mu_product: Array,
    *,
    step: int,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of NAdam, in place.

    .. code-block:: text

        m += (1 - beta1) (x - m)
        v  = beta2 v + (1 - beta2) x^2
        mu = beta1 (1 - 0.96^(t momentum_decay) / 2),   mu' that of t + 1,   P *= mu, P = 1 before update 1
        p -= lr ((1 - mu) / (1 - P) x + mu' / (1 - P mu') m) / (sqrt(v) / sqrt(c2) + eps),   c2 = 1 - beta2^t

    ``exp_avg`` is m, ``exp_avg_sq`` v, ``mu_product`` P: an array of one float64, which means nothing before update 1.
    ``decoupled_weight_decay`` shrinks p by itself, as in :func:`adamw`. Source: Dozat 2016, "Incorporating Nesterov
    momentum into Adam", in PyTorch's form.
    """
    coupled, decoupled = (0.0, weight_decay) if decoupled_weight_decay else (weight_decay, 0.0)
    mu, mu_next = momentum(betas[0], momentum_decay, step), momentum(betas[0], momentum_decay, step + 1)
    product = mu if step == 1 else mu_product.item() * mu
    k = Scalars(
        grad_scale=signed(grad_scale, maximize),
        weight_decay=coupled,
        one_minus_beta1=1 - betas[0],
        beta2=betas[1],
        one_minus_beta2=1 - betas[1],
        lr_now=lr * (1 - mu) / (1 - product),
        lr_ahead=lr * mu_next / (1 - product * mu_next),
        per_root=1 / math.sqrt(one_minus_power(betas[1], step)),
        eps=eps_of(eps, param),
        keep=1 - lr * decoupled,
    )
    mu_product.fill(product)
    k = rounded(k, param)
    x = k.grad_scale * grad + k.weight_decay * param
    m = flush(towards(exp_avg, x, k.one_minus_beta1))
    v = flush(k.beta2 * exp_avg_sq + k.one_minus_beta2 * x * x)
    d = np.sqrt(v) * k.per_root + k.eps
    u = (k.lr_now * x + k.lr_ahead * m) / d
    exp_avg[...] = m
    exp_avg_sq[...] = v
    param[...] = k.keep * param - u
    return Moved(u, d, lr)


class NAdam(Optimizer):
    """NAdam: Adam whose step looks ahead as Nesterov's does, with a momentum that grows towards beta1.

    .. code-block:: text

        m += (1 - beta1) (x - m)
        v  = beta2 v + (1 - beta2) x^2
        mu = beta1 (1 - 0.96^(t momentum_decay) / 2),   mu' that of t + 1,   P *= mu, P = 1 before update 1
        p -= lr ((1 - mu) / (1 - P) x + mu' / (1 - P mu') m) / (sqrt(v) / sqrt(c2) + eps),   c2 = 1 - beta2^t

    With ``decoupled_weight_decay``, fixed at construction, p shrinks by itself as in :class:`AdamW`, otherwise decay
    is added to the gradient. State: ``exp_avg`` (m), ``exp_avg_sq`` (v), and the float ``mu_product`` (P). ``params``
    and ``grads`` as in :class:`Optimizer`. Source: Dozat 2016, "Incorporating Nesterov momentum into Adam", as PyTorch
    has it.
    """

    spec = staticmethod(nadam)
    fixed = ("decoupled_weight_decay",)

    def __init__(
        self,
        params: Any,
        lr: Number = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum_decay: Number = 4e-3,
        decoupled_weight_decay: bool = False,
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
            momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )

    @classmethod
    def numbers(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        return {"weight_decay": "decoupled_weight_decay"} if settings["decoupled_weight_decay"] else {}

    @classmethod
    def initial(cls, state: str, settings: Mapping[str, Any]) -> float:
        return 1.0 if state == "mu_product" else 0.0

    @classmethod
    def sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["betas"][1])
