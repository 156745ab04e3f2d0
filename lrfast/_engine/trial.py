"""What a diagnosis may do with an optimizer: look at its arrays, move them for a while, and try steps on a twin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .arithmetic import Array
from .optimizer import Optimizer, _value_at

__all__ = ["bound_grads", "given", "in_order", "params_of", "restored", "schedule_value", "twin"]


def params_of(optimizer: Optimizer) -> list[Array]:
    """The parameters of all groups, in order."""
    return list(optimizer._bindings.params)


def bound_grads(optimizer: Optimizer) -> list[Array | None] | None:
    """The gradients that were bound at construction, in the order of the parameters; None if none were."""
    grads = optimizer._bindings.grads
    return None if grads is None else list(grads)


def given(optimizer: Optimizer) -> Any:
    """The parameters in the form in which the optimizer got them: a bare array, a mapping, otherwise a list."""
    params = params_of(optimizer)
    if optimizer._bare:
        return params[0]
    return params if optimizer._keys is None else dict(zip(optimizer._keys, params, strict=True))


def in_order(optimizer: Optimizer, grads: Any) -> list[Array | None] | None:
    """Gradients of any form that ``step`` takes, in the order of the parameters; for None those that are bound.

    None if there are none. Raises TypeError or ValueError for what ``step`` would refuse by its form.
    """
    return bound_grads(optimizer) if grads is None else optimizer._flatten("grads", grads, len(optimizer.state))


@contextmanager
def restored(optimizer: Optimizer) -> Iterator[None]:
    """Afterwards, also after an error, parameters, copies and bound gradients are the same bits as before."""
    touched = (*params_of(optimizer), *(optimizer.copy_to or ()), *(bound_grads(optimizer) or ()))
    arrays = [array for array in touched if array is not None and array.flags.writeable]
    saved = [array.copy() for array in arrays]
    try:
        yield
    finally:
        for array, value in zip(arrays, saved, strict=True):
            array[...] = value


@contextmanager
def twin(optimizer: Optimizer, *, without: str = "lr") -> Iterator[Optimizer]:
    """An optimizer of the same parameters and gradients with states, settings and counts of its own, no schedule of
    the setting ``without``, all statistics on, no averages, and steps skipped where a gradient is not finite.

    Inside, ``optimizer`` itself cannot step; afterwards the arrays that both share are as they were.
    """
    optimizer._plan.acquire()
    try:
        optimizer._plan.refresh_changed()
        saved = optimizer._snapshot()
        attributes = saved["attributes"]
        attributes["_param_groups"] = [dict(group) for group in optimizer.param_groups]
        attributes["_schedules"] = [
            {key: schedule for key, schedule in schedules.items() if key != without}
            for schedules in optimizer.schedules
        ]
        attributes["_tail"] = replace(optimizer._tail, ema=None, nonfinite="skip", every=1, norms=False)
        other = object.__new__(type(optimizer))
        other.__setstate__(saved)
        with restored(optimizer):
            yield other
    finally:
        optimizer._plan.release()


def schedule_value(schedules: Mapping[str, Any], key: str, t: int) -> Any:
    """The value that a scheduled setting of a group, whose schedules these are, has after t completed updates."""
    return _value_at(key, schedules[key], t)
