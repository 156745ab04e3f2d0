"""ASGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

from .._engine.arithmetic import Array, Moved, rounded, signed, towards
from .._engine.elementary import power
from .._engine.family import Number
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    eta: float
    keep: float  # of the parameter: 1 - lambd eta
    mu: float


def asgd(
    param: Array,
    grad: Array,
    ax: Array,
    eta: Array,
    mu: Array,
    *,
    step: int,
    lr: float = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of averaged stochastic gradient descent, in place.

    .. code-block:: text

        p    = (1 - lambd eta) p - eta x              eta = lr in update 1
        ax  += mu (p - ax)                            mu = 1 in update 1
        eta  = lr / (1 + lambd lr t)^alpha,   mu = 1 / max(1, t - t0),   for the next update

    ``ax`` is the average of the parameters. ``eta`` and ``mu`` are arrays of one float64, which mean nothing before
    update 1. Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging", PyTorch's form.
    """
    rate = lr if step == 1 else eta.item()
    since = float(step) - t0
    k = Scalars(
        grad_scale=signed(grad_scale, maximize),
        weight_decay=weight_decay,
        eta=rate,
        keep=1 - lambd * rate,
        mu=1.0 if step == 1 else mu.item(),
    )
    eta.fill(lr / power(1 + lambd * lr * float(step), alpha))
    mu.fill(1 / (since if since > 1 else 1.0))
    k = rounded(k, param)
    x = k.grad_scale * grad + k.weight_decay * param
    u = k.eta * x
    param[...] = k.keep * param - u
    ax[...] = towards(ax, param, k.mu)
    return Moved(u, None, rate)


class ASGD(Optimizer):
    """Averaged stochastic gradient descent: a rate that falls, and an average of the parameters, which is the result.

    .. code-block:: text

        p    = (1 - lambd eta) p - eta x              eta = lr in update 1
        ax  += mu (p - ax)                            mu = 1 in update 1
        eta  = lr / (1 + lambd lr t)^alpha,   mu = 1 / max(1, t - t0),   for the next update

    State: ``ax``, the average, which is p itself until update t0 + 1, and the floats ``eta`` and ``mu`` of the next
    update: an edited or scheduled lr is felt one update later. ``params`` and ``grads`` as in :class:`Optimizer`.
    Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging", as PyTorch has it.
    """

    spec = staticmethod(asgd)

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-2,
        lambd: Number = 1e-4,
        alpha: Number = 0.75,
        t0: Number = 1e6,
        weight_decay: Number = 0.0,
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
            lambd=lambd,
            alpha=alpha,
            t0=t0,
            weight_decay=weight_decay,
            maximize=maximize,
        )

    @classmethod
    def initial(cls, state: str, settings: Mapping[str, Any]) -> float | None:
        return None if state == "ax" else 1.0 if state == "mu" else float(settings["lr"])
