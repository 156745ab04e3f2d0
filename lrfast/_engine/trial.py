"""Trials on a living optimizer, for those who look from above: its arrays, lent and put back; a twin to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from . import specification
from .arithmetic import Array
from .buffers import Buffers
from .commit import Stages, copying
from .optimizer import Optimizer
from .settings import value_at

LENT = "a trial of find_lr() or verdict() is running on this optimizer, after which all is as it was"


def adapted(optimizer: Any, loss_and_grads: Any) -> tuple[Any, Any]:
    """For the optimizer of an adapter that of lrfast below it, and what it asks for loss and gradients."""
    return optimizer.trial(loss_and_grads) if hasattr(optimizer, "trial") else (optimizer, loss_and_grads)


def adapted_gradient(optimizer: Any, gradient: Any) -> tuple[Any, Any]:
    """The same with a function of the gradients alone, which here is called with the parameters."""
    if not hasattr(optimizer, "trial"):
        return optimizer, gradient
    optimizer, loss_and_grads = optimizer.trial(lambda: gradient() or 0.0)
    return optimizer, lambda _: loss_and_grads()[1]


def params_of(optimizer: Optimizer) -> list[Array]:
    """The parameters in order."""
    return optimizer._buffers.params


def schedule_value(schedules: Mapping[str, Any], key: str, t: int) -> Any:
    """What a scheduled setting of a group is after t completed updates."""
    return value_at(schedules[key], t)


def bound_grads(optimizer: Optimizer) -> list[Array | None] | None:
    """The gradients bound at construction, if any were."""
    return optimizer._buffers.grads


def given(optimizer: Optimizer) -> Any:
    """The parameters in the form in which the optimizer got them."""
    return optimizer._form.given(optimizer._buffers.params)


def in_order(optimizer: Optimizer, grads: Any) -> list[Array | None] | None:
    """Gradients of any form that ``step`` takes, in the order of the parameters; for None the bound ones, if any."""
    buffers = optimizer._buffers
    return buffers.grads if grads is None else optimizer._form.in_order("grads", grads, len(buffers.params))


def lent(optimizer: Optimizer) -> Any:
    """Keeps an optimizer from stepping, in a with statement or by ``run(function, ...)``.

    Afterwards parameters, copies and bound gradients are as they were, whatever happened.
    """
    return optimizer._plan.held(LENT, partial(_lending, optimizer._buffers))


def _lending(buffers: Buffers) -> tuple[Stages, Stages]:
    arrays = [x for x in (*buffers.params, *(buffers.copies or ()), *(buffers.grads or ())) if x is not None]
    pairs = [(array, np.empty_like(array)) for array in arrays if array.flags.writeable]
    keep, restore = [copying(kept, array) for array, kept in pairs], [copying(array, kept) for array, kept in pairs]
    return [keep], [restore]


def follows_lr(optimizer: Optimizer) -> bool:
    """Whether updates depend on lr, later ones than the first."""
    settings, rule = dict(optimizer._settings.known[0]), optimizer._settings.rules[0]
    updates = []
    for lr in (1.0, 2.0):
        names = (*rule.state_names, *rule.carried)
        initial = {name: optimizer.initial(name, settings) for name in names}
        states = {name: np.full(1, 1.0 if x is None else x) for name, x in initial.items()}
        for step, rate in ((1, 1.0), (2, lr), (3, lr)):  # ASGD's third uses what the second has made of lr
            moved = specification.update(
                optimizer.spec, np.ones(1), np.ones(1), states, step, 1.0, {**settings, "lr": rate}
            )
        updates.append(moved.update)
    return not np.array_equal(updates[0], updates[1], equal_nan=True)


def twin(optimizer: Optimizer, *, without: str = "lr") -> Optimizer:
    """An optimizer of the same parameters and gradients with states, settings and counts of its own.

    The setting ``without`` follows no schedule in it; it keeps no averages, skips steps that are not finite, and all
    statistics are on.
    """
    optimizer._take_edits()
    settings: Mapping[str, Any] = {
        "attributes": {},
        "defaults": optimizer._settings.defaults,
        "groups": [dict(group) for group in optimizer._settings.live],
        "schedules": [{k: s for k, s in group.items() if k != without} for group in optimizer.schedules],
        "known": [dict(group) for group in optimizer._settings.known],
        "form": optimizer._form,
        "options": replace(optimizer._options, ema=None, nonfinite="skip", every=1, norms=False),
        "bound": optimizer._snapshot(),
    }
    other = object.__new__(type(optimizer))
    other.__setstate__(dict(settings))
    return other
