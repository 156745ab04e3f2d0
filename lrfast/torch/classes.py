"""The optimizers: PyTorch's constructors, lrfast's rules."""

from __future__ import annotations

from typing import Any, TypeAlias, Unpack

from torch import Tensor

from .. import optim
from .._engine.family import Number
from .base import Keywords, Optimizer

Rate: TypeAlias = Number | Tensor
Pair: TypeAlias = tuple[Rate, Rate]
Flag: TypeAlias = bool | None


class SGD(Optimizer):
    """``torch.optim.SGD`` in one pass: formula in :class:`lrfast.SGD`, keywords in :class:`Optimizer`.

    State: ``momentum_buffer``, no ``step``.
    """

    family = optim.SGD

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        momentum: Number = 0,
        dampening: Number = 0,
        weight_decay: Rate = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: Flag = None,
        differentiable: bool = False,
        fused: Flag = None,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                dampening=dampening,
                weight_decay=weight_decay,
                nesterov=nesterov,
                maximize=maximize,
                foreach=foreach,
                differentiable=differentiable,
                fused=fused,
            ),
            options,
        )


class Adagrad(Optimizer):
    """``torch.optim.Adagrad`` in one pass: formula in :class:`lrfast.Adagrad`, keywords in :class:`Optimizer`.

    State: ``step``, ``sum``, from construction on.
    """

    family = optim.Adagrad
    begins_with_state = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        lr_decay: Number = 0,
        weight_decay: Number = 0,
        initial_accumulator_value: float = 0,
        eps: Number = 1e-10,
        foreach: Flag = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: Flag = None,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                lr_decay=lr_decay,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                eps=eps,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                fused=fused,
            ),
            options,
        )

    def share_memory(self) -> None:
        """Moves the sums into memory that processes share, as PyTorch's does."""
        for state in self.state.values():
            state["sum"].share_memory_()


class RMSprop(Optimizer):
    """``torch.optim.RMSprop`` in one pass: formula in :class:`lrfast.RMSprop`, keywords in :class:`Optimizer`.

    State: ``step``, ``square_avg``, ``momentum_buffer``, ``grad_avg``.
    """

    family = optim.RMSprop

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        momentum: Number = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: Flag = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                alpha=alpha,
                eps=eps,
                weight_decay=weight_decay,
                momentum=momentum,
                centered=centered,
                capturable=capturable,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
            ),
            options,
        )


class Adam(Optimizer):
    """``torch.optim.Adam`` in one pass: formula in :class:`lrfast.Adam`, keywords in :class:`Optimizer`.

    State: ``step``, ``exp_avg``, ``exp_avg_sq``, ``max_exp_avg_sq``.
    """

    family = optim.Adam

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: Pair = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        amsgrad: bool = False,
        *,
        foreach: Flag = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Flag = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        if decoupled_weight_decay:
            raise ValueError("decoupled_weight_decay: expected False, got True; use AdamW")
        self._begin(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                amsgrad=amsgrad,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
            ),
            options,
        )


class AdamW(Adam):
    """``torch.optim.AdamW`` in one pass: formula in :class:`lrfast.AdamW`, keywords in :class:`Optimizer`.

    State as in :class:`Adam`.
    """

    family = optim.AdamW

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: Pair = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: Flag = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Flag = None,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                amsgrad=amsgrad,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
            ),
            options,
        )


class NAdam(Optimizer):
    """``torch.optim.NAdam`` in one pass: formula in :class:`lrfast.NAdam`, keywords in :class:`Optimizer`.

    State: ``step``, ``mu_product`` (in float64), ``exp_avg``, ``exp_avg_sq``.
    """

    family = optim.NAdam

    def __init__(
        self,
        params: Any,
        lr: Rate = 2e-3,
        betas: Pair = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        momentum_decay: Number = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: Flag = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                momentum_decay=momentum_decay,
                decoupled_weight_decay=decoupled_weight_decay,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
            ),
            options,
        )


class RAdam(Optimizer):
    """``torch.optim.RAdam`` in one pass: formula in :class:`lrfast.RAdam`, keywords in :class:`Optimizer`.

    State: ``step``, ``exp_avg``, ``exp_avg_sq``.
    """

    family = optim.RAdam

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: Pair = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: Flag = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                decoupled_weight_decay=decoupled_weight_decay,
                foreach=foreach,
                maximize=maximize,
                capturable=capturable,
                differentiable=differentiable,
            ),
            options,
        )


class Adamax(Optimizer):
    """``torch.optim.Adamax`` in one pass: formula in :class:`lrfast.Adamax`, keywords in :class:`Optimizer`.

    State: ``step``, ``exp_avg``, ``exp_inf``.
    """

    family = optim.Adamax

    def __init__(
        self,
        params: Any,
        lr: Rate = 2e-3,
        betas: Pair = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        foreach: Flag = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                capturable=capturable,
            ),
            options,
        )


class Adadelta(Optimizer):
    """``torch.optim.Adadelta`` in one pass: formula in :class:`lrfast.Adadelta`, keywords in :class:`Optimizer`.

    State: ``step``, ``square_avg``, ``acc_delta``.
    """

    family = optim.Adadelta

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0,
        foreach: Flag = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                rho=rho,
                eps=eps,
                weight_decay=weight_decay,
                foreach=foreach,
                capturable=capturable,
                maximize=maximize,
                differentiable=differentiable,
            ),
            options,
        )


class Rprop(Optimizer):
    """``torch.optim.Rprop`` in one pass: formula in :class:`lrfast.Rprop`, keywords in :class:`Optimizer`.

    State: ``step``, ``prev``, ``step_size``.
    """

    family = optim.Rprop

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        etas: Pair = (0.5, 1.2),
        step_sizes: Pair = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: Flag = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                etas=etas,
                step_sizes=step_sizes,
                capturable=capturable,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
            ),
            options,
        )


class ASGD(Optimizer):
    """``torch.optim.ASGD`` in one pass: formula in :class:`lrfast.ASGD`, keywords in :class:`Optimizer`.

    State: ``step``, ``eta``, ``mu`` (in float64), ``ax``.
    """

    family = optim.ASGD

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        lambd: Number = 1e-4,
        alpha: Number = 0.75,
        t0: Number = 1e6,
        weight_decay: Number = 0,
        foreach: Flag = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                lambd=lambd,
                alpha=alpha,
                t0=t0,
                weight_decay=weight_decay,
                foreach=foreach,
                maximize=maximize,
                differentiable=differentiable,
                capturable=capturable,
            ),
            options,
        )


class Lion(Optimizer):
    """Lion in one pass: formula in :class:`lrfast.Lion`, keywords in :class:`Optimizer`.

    PyTorch has none. State: ``exp_avg``.
    """

    family = optim.Lion

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-4,
        betas: Pair = (0.9, 0.99),
        weight_decay: Number = 0,
        *,
        maximize: bool = False,
        foreach: Flag = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Flag = None,
        **options: Unpack[Keywords],
    ) -> None:
        self._begin(
            params,
            dict(
                lr=lr,
                betas=betas,
                weight_decay=weight_decay,
                maximize=maximize,
                foreach=foreach,
                capturable=capturable,
                differentiable=differentiable,
                fused=fused,
            ),
            options,
        )
