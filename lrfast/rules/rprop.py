"""Rprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np

from .._engine.arithmetic import Array, Moved, rounded, sign_of, signed
from .._engine.family import Number
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    etaminus: float
    etaplus: float
    step_size_min: float
    step_size_max: float
    keep: float  # s = keep s + lr: 0 and lr at t = 1, then 1 and 0
    lr: float


def rprop(
    param: Array,
    grad: Array,
    prev: Array,
    step_size: Array,
    *,
    step: int,
    lr: float = 1e-2,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50.0),
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Rprop, in place.

    .. code-block:: text

        x prev > 0   s *= etas[1]
        x prev < 0   s *= etas[0],  x = 0             s within step_sizes; at step 1 s = lr
        p -= sign(x) s,  prev = x

    ``step_size`` is s. x = grad_scale g: there is no weight decay. Source: Riedmiller & Braun 1993; PyTorch's variant.
    """
    k = Scalars(
        grad_scale=signed(grad_scale, maximize),
        etaminus=etas[0],
        etaplus=etas[1],
        step_size_min=step_sizes[0],
        step_size_max=step_sizes[1],
        keep=0.0 if step == 1 else 1.0,
        lr=lr if step == 1 else 0.0,
    )
    k = rounded(k, param)
    x = k.grad_scale * grad
    agreement = x * prev
    eta = np.where(agreement > 0, k.etaplus, np.where(agreement < 0, k.etaminus, param.dtype.type(1)))
    size = (k.keep * step_size + k.lr) * eta
    enough = np.where(size < k.step_size_min, k.step_size_min, size)
    limited = np.where(enough > k.step_size_max, k.step_size_max, enough)
    followed = np.where(agreement < 0, param.dtype.type(0), x)
    u = sign_of(followed) * limited
    prev[...] = followed
    step_size[...] = limited
    param[...] = param - u
    return Moved(u, 1 / limited, 1.0)


class Rprop(Optimizer):
    """Rprop: only the signs of gradients count; each element has a step size that grows while its sign stays.

    .. code-block:: text

        x = grad_scale g                              there is no weight decay
        x prev > 0   s *= etas[1]
        x prev < 0   s *= etas[0],  x = 0             s within step_sizes; at a tensor's first update s = lr
        p -= sign(x) s,  prev = x

    State: ``prev``, ``step_size`` (s). ``lr`` is where step sizes begin, and has no effect after a tensor's first
    update, so that a schedule of it has none either. For gradients of whole data sets: those of batches change their
    signs by chance. ``params`` and ``grads`` as in :class:`Optimizer`. Raises ValueError for step_sizes of which the
    first is larger. Source: Riedmiller & Braun 1993; PyTorch's variant, without weight backtracking.
    """

    spec = staticmethod(rprop)

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-2,
        etas: tuple[Number, Number] = (0.5, 1.2),
        step_sizes: tuple[Number, Number] = (1e-6, 50.0),
        *,
        maximize: bool = False,
        grads: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        super().__init__(params, grads, options, lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)

    @classmethod
    def initial(cls, state: str, settings: Mapping[str, Any]) -> float:
        return float(settings["lr"]) if state == "step_size" else 0.0

    @classmethod
    def check(cls, settings: Mapping[str, Any], where: str) -> None:
        smallest, largest = settings["step_sizes"]
        if smallest > largest:
            raise ValueError(f"{where}step_sizes: expected the smallest, then the largest, got {smallest}, {largest}")
