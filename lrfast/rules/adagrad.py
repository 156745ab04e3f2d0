"""Adagrad: the sum of squares, and their mean, which is RMSprop's rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np

from .._engine.arithmetic import Array, Moved, decayed_lr, eps_of, rounded, signed
from .._engine.family import Number, Twin
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions
from . import rmsprop


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    lr: float  # decayed
    eps: float


def adagrad(
    param: Array,
    grad: Array,
    sum: Array,
    *,
    step: int,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    accumulate: str = "sum",
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Adagrad, in place.

    .. code-block:: text

        s += x^2,  p -= lr_t x / (sqrt(s) + eps),   lr_t = lr / (1 + (t-1) lr_decay)

    With ``accumulate="mean"`` s is the mean of all squares so far in place of their sum: the rule of RMSprop with
    alpha_t = (t-1)/t; ``sum`` then is what the optimizer calls ``square_avg``. Source: Duchi, Hazan, Singer 2011.
    """
    lr = decayed_lr(lr, lr_decay, step)
    if accumulate == "mean":
        alpha = float(step - 1) / float(step)
        mean = rmsprop.compute(lr, alpha, eps_of(eps, param), weight_decay, 0.0, maximize, grad_scale)
        return rmsprop.update(param, grad, sum, None, None, mean)
    k = Scalars(grad_scale=signed(grad_scale, maximize), weight_decay=weight_decay, lr=lr, eps=eps_of(eps, param))
    k = rounded(k, param)
    x = k.grad_scale * grad + k.weight_decay * param
    s = sum + x * x
    d = np.sqrt(s) + k.eps
    u = k.lr * x / d
    sum[...] = s
    param[...] = param - u
    return Moved(u, d, lr)


class Adagrad(Optimizer):
    """Adagrad: each element is divided by the root of all its squared gradients so far.

    .. code-block:: text

        x  = grad_scale g + weight_decay p
        s += x^2                                      accumulate="mean": s is the mean of all x^2 so far
        p -= lr_t x / (sqrt(s) + eps)                 lr_t = lr / (1 + (t-1) lr_decay)

    State: ``sum``, starting at ``initial_accumulator_value``; with ``accumulate="mean"`` ``square_avg``, which starts
    at 0 (an initial value is a ValueError). ``params`` and ``grads`` as in :class:`Optimizer`.
    Source: Duchi, Hazan & Singer 2011.
    """

    spec = staticmethod(adagrad)
    fixed = ("accumulate", "initial_accumulator_value")
    torch_twin = Twin(absent={"accumulate": "sum", "initial_accumulator_value": 0.0})

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-2,
        lr_decay: Number = 0.0,
        weight_decay: Number = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Number = 1e-10,
        *,
        accumulate: str = "sum",
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(
            params,
            grads,
            options,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            accumulate=accumulate,
            maximize=maximize,
        )

    @classmethod
    def variant(cls, settings: Mapping[str, Any]) -> str:
        return "rmsprop" if settings["accumulate"] == "mean" else "adagrad"

    @classmethod
    def check(cls, settings: Mapping[str, Any], where: str) -> None:
        if settings["accumulate"] == "mean" and settings["initial_accumulator_value"] != 0:
            raise ValueError(
                f"{where}initial_accumulator_value: expected 0 with accumulate='mean', "
                f"got {settings['initial_accumulator_value']}"
            )

    @classmethod
    def initial(cls, state: str, settings: Mapping[str, Any]) -> float:
        return float(settings["initial_accumulator_value"])

    @classmethod
    def sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return 1.0
