"""Single updates of single tensors, in place: the functions of ``lrfast.reference``, checked and compiled.

Signatures, formulas and states are the reference's. Arrays are C-contiguous float32 or float64 of one dtype and shape;
``step`` >= 1 is the number of this update and the caller counts. Raises TypeError (not an array, dtype) or ValueError
(shape, strides, read-only, overlap, missing or superfluous state, number out of range) before anything is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from . import config, optim
from ._engine import checks
from ._engine.buffers import Array, lower
from ._engine.table import RULES, Rule

__all__ = sorted(optimizer._reference.__name__ for optimizer in optim.all_optimizers())


def __getattr__(name: str) -> Callable[..., None]:
    """One function per optimizer class, made when it is first asked for."""
    for optimizer in optim.all_optimizers():
        if optimizer._reference.__name__ == name:
            globals()[name] = update = _derive(optimizer)
            return update
    raise AttributeError(f"lrfast.functional has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__


def _derive(optimizer: type[optim.Optimizer]) -> Callable[..., None]:
    """The checked function of an optimizer class, with signature and docstring of its reference."""
    spec = optimizer._reference
    parameters = inspect.signature(spec).parameters.values()
    state_arguments = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][2:]
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    del defaults["step"], defaults["grad_scale"]

    @lru_cache(maxsize=64)
    def prepare(given: tuple[tuple[str, Any, type], ...]) -> tuple[Rule, dict[str, Any], int, dict[str, float]]:
        """Rule, settings, flags and numbers; the same options come again and again."""
        for name, _, _ in given:
            if name not in defaults:
                raise TypeError(f"{spec.__name__}() got an unexpected keyword argument {name!r}")
        settings = {
            n: checks.hyper_parameter(n, value) for n, value in {**defaults, **{n: v for n, v, _ in given}}.items()
        }
        complete = {**dict.fromkeys(optimizer._construction_only, 0.0), **settings}
        optimizer._check(complete, "")
        rule = RULES[optimizer._rule(optimizer._structure(complete))]
        return rule, settings, *lower(rule, settings, optimizer._renamed(settings))

    @wraps(spec)
    def update(param: Any, grad: Any, *states: Any, step: int, grad_scale: float = 1.0, **options: Any) -> None:
        if len(states) > len(state_arguments):
            raise TypeError(f"{spec.__name__}() takes {2 + len(state_arguments)} positional arguments")
        given = dict(zip(state_arguments, states, strict=False))
        for name in state_arguments:
            if name in options:
                if name in given:
                    raise TypeError(f"{spec.__name__}() got multiple values for argument {name!r}")
                given[name] = options.pop(name)
        if isinstance(options.get("betas"), list):
            options["betas"] = tuple(options["betas"])
        key = tuple((name, value, type(value)) for name, value in options.items())  # True is not 1.0
        try:
            rule, settings, flags, numbers = prepare(key)
        except TypeError:
            rule, settings, flags, numbers = prepare.__wrapped__(key)  # what cannot be hashed, or is refused again
        step, grad_scale = checks.step_number(step), checks.number("grad_scale", grad_scale)
        arguments = {name: optimizer._arguments.get(name, name) for name in rule.state_names}
        for name in state_arguments:
            needed = name in arguments.values()
            if needed != (given.get(name) is not None):
                verb = "needs" if needed else "has no"
                raise ValueError(f"{name}: {rule.name} {verb} this state, got {type(given.get(name)).__name__}")
        arrays: dict[str, Array] = {name: given[argument] for name, argument in arguments.items()}

        def check() -> None:
            checks.param("param", param)
            checks.companion("grad", grad, "param", param)
            for name, array in arrays.items():
                checks.companion(arguments[name], array, "param", param, written=True)
            buffers = [("param", param, True), ("grad", grad, False)]
            checks.overlap(buffers + [(arguments[name], array, True) for name, array in arrays.items()])

        core = config.core()
        if core is None:
            check()
            optimizer._update(param, grad, arrays, step, grad_scale, settings)
        else:
            core.update_once(rule, flags, numbers, param, grad, arrays, step, grad_scale, check)

    update.__module__ = __name__
    return update
