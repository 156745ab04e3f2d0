"""RAdam: Adam's loop with other numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from .._engine.arithmetic import Array, Moved, eps_of
from .._engine.elementary import one_minus_power
from .._engine.family import Number
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions
from . import adam


def length(beta2: float, c2: float, t: float) -> float:
    """rho. Where beta2^t is near 1 its terms cancel; there it is their series in d = 1 - beta2 and y = -t ln(beta2)."""
    d = 1 - beta2
    y = t * d * (1 + d * (1 / 2 + d * (1 / 3 + d / 4)))
    if y >= 2**-8:
        return 2 / d - 1 - 2 * t * (1 - c2) / c2
    return (
        t
        - t * y * (1 / 6 - y * y * (1 / 360 - y * y / 15120))
        + d * (1 / 6 + d * (1 / 12 + d * (19 / 360 + d * (3 / 80))))
    )


def radam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of RAdam, in place: Adam that trusts its second moment only as far as its variance is known.

    .. code-block:: text

        rho_inf = 2 / (1 - beta2) - 1,  rho = rho_inf - 2 t beta2^t / c2,    m, v, ci as in Adam
        rho > 5     p -= (lr / c1) r sqrt(c2) m / (sqrt(v) + eps)
                    r  = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        otherwise   p -= (lr / c1) m        (whatever v is)

    ``exp_avg`` is m, ``exp_avg_sq`` v. ``decoupled_weight_decay`` shrinks p by itself, as in :func:`adamw`.
    Source: Liu et al. 2020, arXiv:1908.03265; PyTorch's threshold, 5.
    """
    coupled, decoupled = (0.0, weight_decay) if decoupled_weight_decay else (weight_decay, 0.0)
    scalars = adam.compute(step, lr, betas, eps_of(eps, param), coupled, decoupled, maximize, grad_scale)
    c2 = one_minus_power(betas[1], step)
    rho_inf = 2 / (1 - betas[1]) - 1
    rho = length(betas[1], c2, float(step))
    rate = lr
    if rho > 5:
        r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        rate = lr * (r * math.sqrt(c2))
        scalars = scalars._replace(lr=scalars.lr * (r * math.sqrt(c2)), per_root=1.0)
    else:
        scalars = scalars._replace(per_root=0.0, eps=1.0)
    return adam.update(param, grad, exp_avg, exp_avg_sq, None, scalars, rate)


class RAdam(Optimizer):
    """RAdam: Adam that rectifies its step by how well the second moment is known, a warm-up of its own.

    .. code-block:: text

        rho_inf = 2 / (1 - beta2) - 1,  rho = rho_inf - 2 t beta2^t / c2,    m, v, ci as in Adam
        rho > 5     p -= (lr / c1) r sqrt(c2) m / (sqrt(v) + eps)
                    r  = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        otherwise   p -= (lr / c1) m

    With ``decoupled_weight_decay``, fixed at construction, p shrinks by itself as in :class:`AdamW`, otherwise decay
    is added to the gradient. State: ``exp_avg`` (m), ``exp_avg_sq`` (v). ``params`` and ``grads`` as in
    :class:`Optimizer`. Source: Liu et al. 2020, arXiv:1908.03265; PyTorch's threshold, 5.
    """

    spec = staticmethod(radam)
    fixed = ("decoupled_weight_decay",)

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
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
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )

    @classmethod
    def numbers(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        return {"weight_decay": "decoupled_weight_decay"} if settings["decoupled_weight_decay"] else {}

    @classmethod
    def sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["betas"][1])
