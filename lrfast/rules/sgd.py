"""SGD, with heavy-ball or Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

from .._engine.arithmetic import Array, Moved, flush, need, rounded, signed
from .._engine.family import Number, Twin
from .._engine.optimizer import Optimizer
from .._engine.options import StepOptions


class Scalars(NamedTuple):
    """What one update computes with, in float64."""

    grad_scale: float
    weight_decay: float
    momentum: float
    one_minus_dampening: float
    lr: float  # of the buffer; without momentum, of the gradient
    grad_lr: float  # of the gradient beside the buffer: 0 but for Nesterov


def sgd(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of stochastic gradient descent, in place.

    .. code-block:: text

        momentum = 0   p -= lr x
        otherwise      b  = momentum b + (1 - dampening) x     (b = x at step 1)
                       p -= lr b                               (nesterov: p -= lr (x + momentum b))

    ``momentum_buffer`` is b, needed exactly if momentum is not 0. Sources: Polyak 1964; Sutskever et al. 2013.
    """
    need("momentum_buffer", momentum_buffer, momentum != 0 or momentum_buffer is not None)
    k = Scalars(
        grad_scale=signed(grad_scale, maximize),
        weight_decay=weight_decay,
        momentum=0.0 if step == 1 else momentum,
        one_minus_dampening=1.0 if step == 1 else 1 - dampening,
        lr=lr * momentum if nesterov and momentum_buffer is not None else lr,
        grad_lr=lr if nesterov else 0.0,
    )
    k = rounded(k, param)
    x = k.grad_scale * grad + k.weight_decay * param
    b = None if momentum_buffer is None else flush(k.momentum * momentum_buffer + k.one_minus_dampening * x)
    u = k.lr * x if b is None else k.grad_lr * x + k.lr * b
    if momentum_buffer is not None:
        momentum_buffer[...] = b
    param[...] = param - u
    return Moved(u, None, lr)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum or Nesterov's momentum.

    .. code-block:: text

        x  = grad_scale g + weight_decay p
        p -= lr x                                     momentum = 0
        b  = momentum b + (1 - dampening) x           otherwise; b = x at a tensor's first update
        p -= lr b                                     nesterov: p -= lr (x + momentum b)

    State: ``momentum_buffer`` (b), if momentum is not 0. ``params`` and ``grads`` as in :class:`Optimizer`. Raises
    ValueError for lr, momentum or weight_decay below 0 and for nesterov without momentum or with dampening.
    Sources: Polyak 1964; Sutskever et al. 2013.
    """

    spec = staticmethod(sgd)
    torch_twin = Twin(counts_steps=False)

    def __init__(
        self,
        params: Any,
        lr: Number = 1e-3,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
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
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )

    @classmethod
    def variant(cls, settings: Mapping[str, Any]) -> str:
        return "momentum" if settings["momentum"] != 0 else "sgd"

    @classmethod
    def check(cls, settings: Mapping[str, Any], where: str) -> None:
        if settings["nesterov"] and not (settings["momentum"] > 0 and settings["dampening"] == 0):
            raise ValueError(
                f"{where}nesterov: expected momentum > 0 and dampening = 0, "
                f"got momentum={settings['momentum']}, dampening={settings['dampening']}"
            )

    @classmethod
    def sharpness_limit(cls, settings: Mapping[str, Any]) -> float | None:
        if settings["momentum"] == 0:
            return None  # what the gradient says is exact, also with clipping
        if settings["nesterov"] or not settings["lr"] > 0 or settings["dampening"] >= 1:
            return None
        return float(2 * (1 + settings["momentum"]) / ((1 - settings["dampening"]) * settings["lr"]))
