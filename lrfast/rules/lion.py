"""Lion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

from .._engine.arithmetic import Array, Moved, flush, rounded, sign_of, signed
from .._engine.family import Number, Twin
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    beta1: float
    one_minus_beta1: float
    beta2: float
    one_minus_beta2: float
    lr: float
    keep: float  # of the parameter: 1 - lr weight_decay


def lion(
    param: Array,
    grad: Array,
    exp_avg: Array,
    *,
    step: int,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Lion, in place.

    .. code-block:: text

        u = sign(beta1 m + (1 - beta1) x)             with the m before this update
        m = beta2 m + (1 - beta2) x
        p = (1 - lr weight_decay) p - lr u

    ``exp_avg`` is m; x = grad_scale g. Source: Chen et al. 2023, arXiv:2302.06675.
    """
    k = Scalars(
        grad_scale=signed(grad_scale, maximize),
        beta1=betas[0],
        one_minus_beta1=1 - betas[0],
        beta2=betas[1],
        one_minus_beta2=1 - betas[1],
        lr=lr,
        keep=1 - lr * weight_decay,
    )
    k = rounded(k, param)
    x = k.grad_scale * grad
    u = k.lr * sign_of(k.beta1 * exp_avg + k.one_minus_beta1 * x)
    exp_avg[...] = flush(k.beta2 * exp_avg + k.one_minus_beta2 * x)
    param[...] = k.keep * param - u
    return Moved(u, None, lr)


class Lion(Optimizer):
    """Lion: the sign of a momentum, so that each element moves by lr; weight decay acts on the parameter alone.

    .. code-block:: text

        x = grad_scale g
        u = sign(beta1 m + (1 - beta1) x)             with the m before this update; 0 stays 0
        m = beta2 m + (1 - beta2) x
        p = (1 - lr weight_decay) p - lr u

    State: ``exp_avg`` (m). A good lr is 3 to 10 times smaller than AdamW's, and weight_decay as much larger. ``params``
    and ``grads`` as in :class:`Optimizer`. Source: Chen et al. 2023, arXiv:2302.06675.
    """

    spec = staticmethod(lion)
    torch_twin = Twin(counts_steps=False)

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-4,
        betas: tuple[Number, Number] = (0.9, 0.99),
        weight_decay: Number = 0.0,
        *,
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(params, grads, options, lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize)

    @classmethod
    def numbers(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        return {"weight_decay": "decoupled_weight_decay"}
