"""The optimizers: one small class each, with PyTorch's names, defaults and meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Unpack

from . import reference
from ._engine.optimizer import Optimizer
from ._engine.options import TailOptions

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RAdam", "RMSprop"]

Array = reference.Array
Number = float | Callable[[int], float]
"""A hyper-parameter: a number, or a schedule s(t) of the completed updates t."""


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

    _reference = staticmethod(reference.sgd)
    _step_may_lack = True

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
        **tail: Unpack[TailOptions],
    ) -> None:
        settings = dict(
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )
        super().__init__(params, grads, settings, tail)

    @classmethod
    def _structure(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"momentum": settings["momentum"] != 0}

    @classmethod
    def _rule(cls, structure: Mapping[str, Any]) -> str:
        return "momentum" if structure["momentum"] else "sgd"

    @classmethod
    def _check(cls, settings: Mapping[str, Any], where: str) -> None:
        if settings["nesterov"] and not (settings["momentum"] > 0 and settings["dampening"] == 0):
            raise ValueError(
                f"{where}nesterov: expected momentum > 0 and dampening = 0, "
                f"got momentum={settings['momentum']}, dampening={settings['dampening']}"
            )

    @classmethod
    def _last(cls, states: Mapping[str, Array], step: int, lr: float, settings: Mapping[str, Any]) -> Array | None:
        buffer = None if settings["nesterov"] else states.get("momentum_buffer")
        return None if buffer is None else buffer.dtype.type(lr) * buffer

    @classmethod
    def _sharpness_limit_of(cls, settings: Mapping[str, Any]) -> float | None:
        if settings["momentum"] == 0:
            return None  # what the gradient says is exact, also with clipping
        if settings["nesterov"] or not settings["lr"] > 0 or settings["dampening"] >= 1:
            return None
        return float(2 * (1 + settings["momentum"]) / ((1 - settings["dampening"]) * settings["lr"]))


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

    _reference = staticmethod(reference.adagrad)
    _arguments: ClassVar[Mapping[str, str]] = {"square_avg": "sum"}
    _not_in_torch: ClassVar[Mapping[str, Any]] = {"accumulate": "sum"}
    _construction_only = ("initial_accumulator_value",)

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
        **tail: Unpack[TailOptions],
    ) -> None:
        settings = dict(
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            accumulate=accumulate,
            maximize=maximize,
        )
        super().__init__(params, grads, settings, tail)

    @classmethod
    def _structure(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: settings[key] for key in ("accumulate", "initial_accumulator_value")}

    @classmethod
    def _rule(cls, structure: Mapping[str, Any]) -> str:
        return "rmsprop" if structure["accumulate"] == "mean" else "adagrad"

    @classmethod
    def _check(cls, settings: Mapping[str, Any], where: str) -> None:
        if settings["accumulate"] == "mean" and settings["initial_accumulator_value"] != 0:
            raise ValueError(
                f"{where}initial_accumulator_value: expected 0 with accumulate='mean', "
                f"got {settings['initial_accumulator_value']}"
            )

    @classmethod
    def _initial(cls, state: str, settings: Mapping[str, Any]) -> float:
        return float(settings["initial_accumulator_value"])

    @classmethod
    def _sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return 1.0


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

    _reference = staticmethod(reference.rmsprop)
    _not_in_torch: ClassVar[Mapping[str, Any]] = {"initial": "zero"}

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
        **tail: Unpack[TailOptions],
    ) -> None:
        settings = dict(
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            initial=initial,
            maximize=maximize,
        )
        super().__init__(params, grads, settings, tail)

    @classmethod
    def _structure(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "momentum": settings["momentum"] != 0,
            "centered": settings["centered"],
            "initial": settings["initial"],
        }

    @classmethod
    def _rule(cls, structure: Mapping[str, Any]) -> str:
        centered = "_centered" if structure["centered"] else ""
        momentum = "_momentum" if structure["momentum"] else ""
        return f"rmsprop{centered}{momentum}"

    @classmethod
    def _check(cls, settings: Mapping[str, Any], where: str) -> None:
        if settings["centered"] and settings["initial"] == "first-gradient":
            raise ValueError(f"{where}initial: 'first-gradient' cannot be centered: the first variance would be 0")

    @classmethod
    def _last(cls, states: Mapping[str, Array], step: int, lr: float, settings: Mapping[str, Any]) -> Array | None:
        buffer = states.get("momentum_buffer")
        return None if buffer is None else buffer.dtype.type(lr) * buffer

    @classmethod
    def _sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["alpha"])


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

    _reference = staticmethod(reference.adam)
    _marks: ClassVar[Mapping[str, Any]] = {"decoupled_weight_decay": False}

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
        **tail: Unpack[TailOptions],
    ) -> None:
        settings = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize)
        super().__init__(params, grads, settings, tail)

    @classmethod
    def _structure(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"amsgrad": settings["amsgrad"]}

    @classmethod
    def _rule(cls, structure: Mapping[str, Any]) -> str:
        return "amsgrad" if structure["amsgrad"] else "adam"

    @classmethod
    def _last(cls, states: Mapping[str, Array], step: int, lr: float, settings: Mapping[str, Any]) -> Array | None:
        second = states.get("max_exp_avg_sq", states["exp_avg_sq"])
        numbers = reference.adam_numbers(step, lr, settings["betas"], settings["eps"])
        return reference.adam_update(states["exp_avg"], second, numbers)[0]

    @classmethod
    def _sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["betas"][1])


class AdamW(Adam):
    """AdamW: Adam whose weight decay acts on the parameter alone, not through the moments.

    .. code-block:: text

        p = (1 - lr weight_decay) p - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)

    Moments, states and sources as in :class:`Adam`, with x = grad_scale g; Loshchilov & Hutter 2019,
    arXiv:1711.05101. ``params`` and ``grads`` as in :class:`Optimizer`.
    """

    _reference = staticmethod(reference.adamw)
    _marks: ClassVar[Mapping[str, Any]] = {"decoupled_weight_decay": True}

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
        **tail: Unpack[TailOptions],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, grads=grads, **tail)

    @classmethod
    def _renamed(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        return {"weight_decay": "decoupled_weight_decay"}


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

    _reference = staticmethod(reference.radam)

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
        **tail: Unpack[TailOptions],
    ) -> None:
        settings = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )
        super().__init__(params, grads, settings, tail)

    @classmethod
    def _structure(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"decoupled_weight_decay": settings["decoupled_weight_decay"]}

    @classmethod
    def _rule(cls, structure: Mapping[str, Any]) -> str:
        return "radam"

    @classmethod
    def _renamed(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        return {"weight_decay": "decoupled_weight_decay"} if settings["decoupled_weight_decay"] else {}

    @classmethod
    def _last(cls, states: Mapping[str, Array], step: int, lr: float, settings: Mapping[str, Any]) -> Array | None:
        numbers = reference.radam_numbers(step, lr, settings["betas"], settings["eps"])
        return reference.adam_update(states["exp_avg"], states["exp_avg_sq"], numbers)[0]

    @classmethod
    def _rate(cls, settings: Mapping[str, Any], step: int) -> float:
        return reference.radam_numbers(step, settings["lr"], settings["betas"], settings["eps"]).rate

    @classmethod
    def _sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        return float(settings["betas"][1])


def all_optimizers() -> list[type[Optimizer]]:
    """The public classes of this module, in the order of their names."""
    classes = [globals()[name] for name in __all__]
    return [cls for cls in classes if cls is not Optimizer]
