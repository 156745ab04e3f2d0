"""Single updates of single tensors, in place: the functions of ``lrfast.reference``, checked and compiled.

Signatures, formulas and states are the reference's. Arrays are C-contiguous float32 or float64 of one dtype and shape;
``step`` >= 1 is the number of this update and the caller counts. Raises TypeError (not an array, dtype) or ValueError
(shape, strides, read-only, overlap, missing or superfluous state, number out of range) before anything is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from . import _checks, config, optim
from ._bindings import Array, lower
from ._table import RULES

__all__ = ["adagrad", "adam", "adamw", "rmsprop", "sgd"]


def _derive(optimizer: type[optim.Optimizer]) -> Callable[..., None]:
    """The checked function of an optimizer class, with signature and docstring of its reference."""
    spec = optimizer._reference
    signature = inspect.signature(spec)
    parameters = signature.parameters.values()
    state_arguments = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][2:]
    options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("step", "grad_scale")]

    @wraps(spec)
    def update(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        param, grad = given["param"], given["grad"]
        step = _checks.step_number(given["step"])
        grad_scale = _checks.number("grad_scale", given["grad_scale"])
        settings = {name: _checks.hyper_parameter(name, given[name]) for name in options}
        complete = {**dict.fromkeys(optimizer._construction_only, 0.0), **settings}
        optimizer._check(complete, "")
        structure = optimizer._structure(complete)
        rule = RULES[optimizer._rule(structure)]

        arguments = {name: optimizer._arguments.get(name, name) for name in rule.state_names}
        for argument in state_arguments:
            needed = argument in arguments.values()
            if needed != (given[argument] is not None):
                verb = "needs" if needed else "has no"
                raise ValueError(f"{argument}: {rule.name} {verb} this state, got {type(given[argument]).__name__}")
        states: dict[str, Array] = {name: given[argument] for name, argument in arguments.items()}

        def check() -> None:
            _checks.param("param", param)
            _checks.companion("grad", grad, "param", param)
            for name, state in states.items():
                _checks.companion(arguments[name], state, "param", param, written=True)
            buffers = [("param", param, True), ("grad", grad, False)]
            _checks.overlap(buffers + [(arguments[name], state, True) for name, state in states.items()])

        core = config.core()
        if core is None:
            check()
            optimizer._update(param, grad, states, step, grad_scale, settings)
        else:
            flags, numbers = lower(rule, settings, optimizer._renamed)
            core.update_once(rule, flags, numbers, param, grad, states, step, grad_scale, check)

    return update


sgd = _derive(optim.SGD)
adagrad = _derive(optim.Adagrad)
rmsprop = _derive(optim.RMSprop)
adam = _derive(optim.Adam)
adamw = _derive(optim.AdamW)
