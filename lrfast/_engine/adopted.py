"""Optimizers over memory of somebody else, for adapters to other libraries: arrays, states and counts are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from . import form, formats, threads
from .arithmetic import Array
from .buffers import Snapshot, average_array, made_states
from .further_keys import NAMES
from .optimizer import Optimizer
from .options import Options
from .settings import Settings, kinds_of, value_at
from .table import RULES

__all__ = [
    "Count",
    "Tensor",
    "adopt",
    "carried",
    "checked",
    "names",
    "progress",
    "settings_of",
    "states",
    "step",
    "value_at",
]


class Tensor(NamedTuple):
    """A parameter, its label in errors, and what it has of its state: arrays and numbers by name, completed updates."""

    param: Array
    label: str
    state: Mapping[str, Any]
    step: int
    average: Array | None


class Count(NamedTuple):
    """Completed and skipped steps of an optimizer."""

    updates: int = 0
    skipped: int = 0


def settings_of(family: type[Optimizer]) -> dict[str, Any]:
    """The settings of a class, with their defaults."""
    hashable: Any = family
    return dict(kinds_of(hashable))


def checked(family: type[Optimizer], group: Mapping[str, Any], t: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a group after t updates in their plain form, and schedules. Raises TypeError or ValueError."""
    settings = Settings(family, settings_of(family))
    settings.append({key: value for key, value in group.items() if key not in ("params", NAMES)}, 0, t)
    return {key: settings.live[0][key] for key in settings.defaults}, settings.schedules[0]


def names(family: type[Optimizer], settings: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """What the state of a tensor has with these settings: arrays, and numbers that it carries from step to step."""
    rule = RULES[family.variant(settings)]
    return [name for name in rule.states if name], rule.carried


def adopt(
    family: type[Optimizer],
    groups: Sequence[tuple[Mapping[str, Any], int]],
    tensors: Sequence[Tensor],
    options: Options,
    copies: Sequence[Array] | None,
    count: Count,
) -> Optimizer:
    """An optimizer of groups (settings, number of tensors); what is missing of states and averages is made.

    Raises TypeError or ValueError; nothing of what is given was written then.
    """
    settings = Settings(family, settings_of(family))
    states, carried, first = [], [], 0
    for group, size in groups:
        settings.append(group, size, count.updates)
        rule = settings.rules[-1]
        for tensor in tensors[first : first + size]:
            given, initial = tensor.state, partial(family.initial, settings=settings.live[-1])
            states.append(made_states(tensor.param, rule, initial, options.master, given))
            numbers = [given.get(name, family.initial(name, settings.live[-1])) for name in rule.carried]
            carried.append([*numbers, *[0.0] * (4 - len(numbers))])
        first += size
    averages = [
        average_array(tensor.param, formats.value(tensor.param, state), options.ema_dtype)
        if tensor.average is None
        else tensor.average
        for tensor, state in zip(tensors, states, strict=True)
    ]
    bound = Snapshot(
        params=[tensor.param for tensor in tensors],
        labels=[tensor.label for tensor in tensors],
        grads=None,
        copies=None if copies is None else list(copies),
        ema=averages if options.ema is not None else [],
        states=states,
        steps=[tensor.step for tensor in tensors],
        carried=carried,
        updates=count.updates,
        skipped=count.skipped,
    )
    optimizer = object.__new__(family)
    optimizer._become(optimizer._bound(settings, options, form.Form(False, None, True), bound))
    return optimizer


def progress(optimizer: Optimizer) -> Array:
    """Completed updates of each tensor, live."""
    array: Array = optimizer._plan.progress
    return array


def carried(optimizer: Optimizer) -> Array:
    """What tensors carry from step to step, a row each, live."""
    return optimizer._buffers.carried


def states(optimizer: Optimizer) -> list[dict[str, Array]]:
    """The arrays of each tensor's state, live."""
    return optimizer._buffers.states


def step(optimizer: Optimizer, grads: list[Array | None], grad_scale: float, n: int) -> None:
    """A step on n threads."""
    before, n = threads.get_num_threads(), min(n, threads._MAX_THREADS)
    if n == before:
        return optimizer.step(grads, grad_scale=grad_scale)
    threads.set_num_threads(n)
    try:
        return optimizer.step(grads, grad_scale=grad_scale)
    finally:
        threads.set_num_threads(before)
