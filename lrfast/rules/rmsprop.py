"""RMSprop: plain, centered, with momentum; its loop also serves Adagrad's mean form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np

from .._engine.arithmetic import Array, Moved, eps_of, flush, need, not_negative, rounded, signed, towards
from .._engine.family import Number, Twin
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    alpha: float
    one_minus_alpha: float
    momentum: float
    lr: float
    eps: float


def compute(
    lr: float, alpha: float, eps: float, weight_decay: float, momentum: float, maximize: bool, grad_scale: float
) -> Scalars:
    """Those of an update with this alpha."""
    return Scalars(
        grad_scale=signed(grad_scale, maximize),
        weight_decay=weight_decay,
        alpha=alpha,
        one_minus_alpha=1 - alpha,
        momentum=momentum,
        lr=lr,
        eps=eps,
    )


def update(
    param: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None,
    momentum_buffer: Array | None,
    scalars: Scalars,
) -> Moved:
    """The loop of the family: centered where there is a ``grad_avg``, heavy where there is a ``momentum_buffer``."""
    k = rounded(scalars, param)
    x = k.grad_scale * grad + k.weight_decay * param
    v = flush(k.alpha * square_avg + k.one_minus_alpha * x * x)
    a = None if grad_avg is None else flush(towards(grad_avg, x, k.one_minus_alpha))
    d = np.sqrt(v if a is None else not_negative(np.where(np.isfinite(v), v - a * a, v))) + k.eps
    b = None if momentum_buffer is None else flush(k.momentum * momentum_buffer + x / d)
    u = k.lr * x / d if b is None else k.lr * b
    square_avg[...] = v
    if grad_avg is not None:
        grad_avg[...] = a
    if momentum_buffer is not None:
        momentum_buffer[...] = b
    param[...] = param - u
    return Moved(u, d, scalars.lr)


def rmsprop(
    param: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None = None,
    momentum_buffer: Array | None = None,
    *,
    step: int,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    initial: str = "zero",
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of RMSprop, in place.

    .. code-block:: text

        v  = alpha v + (1 - alpha) x^2        (initial="first-gradient": v = x^2 at step 1)
        a += (1 - alpha) (x - a),  d = sqrt(max(v - a^2, 0)) + eps     (centered; otherwise d = sqrt(v) + eps)
        p -= lr x / d                         (momentum: b = momentum b + x / d,  p -= lr b)

    ``square_avg`` is v, ``grad_avg`` a (needed if centered), ``momentum_buffer`` b (needed if momentum is not 0).
    Sources: Hinton 2012, lecture 6e; Graves 2013, arXiv:1308.0850 (centered).
    """
    need("grad_avg", grad_avg, centered)
    need("momentum_buffer", momentum_buffer, momentum != 0 or momentum_buffer is not None)
    if step == 1 and initial == "first-gradient":
        alpha = 0.0
    scalars = compute(lr, alpha, eps_of(eps, param), weight_decay, momentum, maximize, grad_scale)
    return update(param, grad, square_avg, grad_avg, momentum_buffer, scalars)


class RMSprop(Optimizer):
    """RMSprop: each element is divided by the root of a moving average of its squared gradients.

    .. code-block:: text

        x  = grad_scale g + weight_decay p
        v  = alpha v + (1 - alpha) x^2                initial="first-gradient": v = x^2 at a tensor's first update
        a += (1 - alpha) (x - a)                      centered
        d  = sqrt(v) + eps                            centered: sqrt(max(v - a^2, 0)) + eps
        p -= lr x / d                                 momentum: b = momentum b + x / d,  p -= lr b

    State: ``square_avg`` (v), ``grad_avg`` (a, if centered), ``momentum_buffer`` (b, if momentum is not 0). centered
    together with first-gradient is a ValueError, since its first variance is 0. ``params`` and ``grads`` as in
    :class:`Optimizer`. Sources: Hinton 2012, lecture 6e; Graves 2013, arXiv:1308.0850 (centered).
    """

    spec = staticmethod(rmsprop)
    fixed = ("centered", "initial")
    torch_twin = Twin(absent={"initial": "zero", "momentum": 0.0})

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum: Number = 0.0,
        centered: bool = False,
        *,
        initial: str = "zero",
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(
            params,
            grads,
            options,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            initial=initial,
            maximize=maximize,
        )

    @classmethod
    def variant(cls, settings: Mapping[str, Any]) -> str:
        centered = "_centered" if settings["centered"] else ""
        momentum = "_momentum" if settings["momentum"] != 0 else ""
        return f"rmsprop{centered}{momentum}"

    @classmethod
    def check(cls, settings: Mapping[str, Any], where: str) -> None:
        if settings["centered"] and settings["initial"] == "first-gradient":
            raise ValueError(f"{where}initial: 'first-gradient' cannot be centered: the first variance would be 0")

    @classmethod
    def sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["alpha"])
