"""Single updates of single tensors, in place: the functions of ``lrfast.reference``, checked and compiled.

Signatures, formulas and states are the reference's. Arrays are C-contiguous float32 or float64 of one dtype and shape;
``step`` >= 1 is the number of this update and the caller counts. Raises TypeError (not an array, dtype) or ValueError
(shape, strides, read-only, overlap, missing or superfluous state, number out of range) before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple

import numpy as np

from . import reference
from ._engine import backend, checks, fit, specification
from ._engine.arithmetic import Array
from ._engine.optimizer import Optimizer
from ._engine.settings import flags_of, kinds_of, numbers_of
from ._engine.table import RULES, Rule
from .rules import CLASSES

__all__ = reference.__all__


class _Prepared(NamedTuple):
    """What a choice of options comes to; ``arguments``: state -> argument of the function."""

    rule: Rule
    settings: dict[str, Any]
    flags: int
    numbers: dict[str, float]
    arguments: dict[str, str]
    is_wide: bool  # float32 does not hold a setting, of which C may know nothing: the rule may not read it


_CONSTANT = frozenset({float, int, bool, str, np.float64, np.float32, np.int64, np.bool_})


def _kind(value: Any) -> Any:
    """What tells values apart that are equal: True is not 1.0. TypeError for what may be another number later."""
    kind = type(value)
    if kind is tuple:
        return tuple(map(_kind, value))
    if kind not in _CONSTANT:
        raise TypeError
    return kind


def __getattr__(name: str) -> Callable[..., None]:
    """One function per optimizer class, made when it is first asked for."""
    for optimizer in CLASSES.values():
        if optimizer.spec.__name__ == name:
            globals()[name] = update = _derive(optimizer)
            return update
    raise AttributeError(f"lrfast.functional has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__


def _derive(optimizer: type[Optimizer]) -> Callable[..., None]:
    """The checked function of an optimizer class, with signature and docstring of its reference."""
    spec, name_of_it = optimizer.spec, optimizer.spec.__name__
    state_arguments = specification.state_arguments(spec)
    defaults = specification.settings_of(spec)
    # What only a constructor takes decides nothing here but takes part in the class's checks.
    complete = {name: 0.0 for name in kinds_of(optimizer) if name not in defaults} | dict(defaults)

    @lru_cache(maxsize=64)
    def prepare(given: tuple[tuple[str, Any, Any], ...]) -> _Prepared:
        """The same options come again and again."""
        for name, _, _ in given:
            if name not in defaults:
                raise TypeError(f"{name_of_it}() got an unexpected keyword argument {name!r}")
        values = {**defaults, **{name: value for name, value, _ in given}}
        settings = {name: checks.setting(name, value, defaults[name]) for name, value in values.items()}
        optimizer.check({**complete, **settings}, "")
        rule = RULES[optimizer.variant({**complete, **settings})]
        numbers, flags = numbers_of(rule, settings, optimizer.numbers(settings)), flags_of(settings)
        arguments = {name: specification.argument_of(spec, name) for name in (*rule.state_names, *rule.carried)}
        try:
            fit.settings(settings, np.dtype(np.float32))
            is_wide = False
        except ValueError:
            is_wide = True
        return _Prepared(rule, settings, flags, numbers, arguments, is_wide)

    @wraps(getattr(reference, name_of_it))
    def update(param: Any, grad: Any, *states: Any, step: int, grad_scale: float = 1.0, **options: Any) -> None:
        if len(states) > len(state_arguments):
            raise TypeError(f"{name_of_it}() takes {2 + len(state_arguments)} positional arguments")
        given = dict(zip(state_arguments, states, strict=False))
        for name in state_arguments:
            if name in options:
                if name in given:
                    raise TypeError(f"{name_of_it}() got multiple values for argument {name!r}")
                given[name] = options.pop(name)
        try:
            key = tuple((name, value, _kind(value)) for name, value in options.items())
            rule, settings, flags, numbers, arguments, is_wide = prepare(key)
        except TypeError:  # what is not kept, or is refused again
            key = tuple((name, value, None) for name, value in options.items())
            rule, settings, flags, numbers, arguments, is_wide = prepare.__wrapped__(key)
        step, grad_scale = checks.step_number(step), checks.number("grad_scale", grad_scale)
        wanted = arguments.values()
        for name in state_arguments:
            needed = name in wanted
            if needed != (given.get(name) is not None):
                verb = "needs" if needed else "has no"
                raise ValueError(f"{name}: {rule.name} {verb} this state, got {type(given.get(name)).__name__}")
        arrays: dict[str, Array] = {name: given[argument] for name, argument in arguments.items()}

        def check() -> None:
            checks.param("param", param)
            checks.companion("grad", grad, "param", param)
            for name, array in arrays.items():
                if name in rule.carried:
                    checks.carried(name, array)
                else:
                    checks.companion(arguments[name], array, "param", param, written=True)
            buffers = [("param", param, True), ("grad", grad, False)]
            checks.overlap(buffers + [(arguments[name], array, True) for name, array in arrays.items()])
            fit.settings({"grad_scale": grad_scale, **settings}, param.dtype)
            carried = [arrays[name].item() for name in rule.carried]
            fit.scalars(spec, rule, settings, param.dtype, step, carried=carried)

        core = backend.compiled()
        if core is None:
            check()
            with np.errstate(all="ignore"):
                specification.update_at_once(spec, param, grad, arrays, step, grad_scale, settings)
        else:
            if is_wide:
                check()
            core.update_once(rule, flags, numbers, param, grad, arrays, step, grad_scale, check)

    update.__module__ = __name__
    return update
