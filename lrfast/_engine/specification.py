"""How a specification is called: which of its arguments are states, which are settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from .arithmetic import Array, Moved, split_factor
from .commit import at_once, copying

Spec = Callable[..., Moved]
_OF_A_STEP = ("step", "grad_scale")


@cache
def state_arguments(spec: Spec) -> tuple[str, ...]:
    """Arguments for states, after param and grad."""
    parameters = inspect.signature(spec).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)[2:]


@cache
def settings_of(spec: Spec) -> Mapping[str, Any]:
    """Settings that it takes, with their defaults."""
    parameters = inspect.signature(spec).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _OF_A_STEP}


def argument_of(spec: Spec, state: str) -> str:
    """The argument for a state. One that the specification does not name takes the place of its first: what Adagrad
    calls ``sum`` is the ``square_avg`` of another rule where it is a mean."""
    names = state_arguments(spec)
    return state if state in names else names[0]


def scaled(grad: Array, grad_scale: float) -> tuple[Array, float]:
    """(gradient, factor) as a specification takes them: a factor that is denormal in the element type acts in two."""
    first, last = split_factor(grad_scale, 1.0, 2.0**1022, grad.dtype)
    return (grad if first == 1 else grad.dtype.type(first) * grad), last


def update(
    spec: Spec,
    param: Array,
    grad: Array,
    states: Mapping[str, Array],
    step: int,
    grad_scale: float,
    settings: Mapping[str, Any],
) -> Moved:
    """One update; of the settings those that it takes."""
    arrays = {argument_of(spec, name): array for name, array in states.items()}
    taken = {key: settings[key] for key in settings_of(spec)}
    grad, grad_scale = scaled(grad, grad_scale)
    return spec(param, grad, **arrays, step=step, grad_scale=grad_scale, **taken)


def update_at_once(
    spec: Spec,
    param: Array,
    grad: Array,
    states: Mapping[str, Array],
    step: int,
    grad_scale: float,
    settings: Mapping[str, Any],
) -> None:
    """The same, done wholly or not at all."""
    new, after = param.copy(), {name: state.copy() for name, state in states.items()}
    update(spec, new, grad, after, step, grad_scale, settings)
    at_once([copying(param, new), *(copying(states[name], state) for name, state in after.items())])
