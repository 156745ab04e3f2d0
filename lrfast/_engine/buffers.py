"""What a plan works on: parameters, states and gradients in one flat order, and the groups that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks
from .table import Rule
from .options import Outputs, Tail, check_copy
from ..reference import Moved
from ..stats import Recorder

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Group:
    """Tensors first .. stop that share a rule and the settings of a parameter group.

    ``settings`` is the live dict of ``param_groups``; ``update(param, grad, states, step, grad_scale, settings)`` is
    one update by the reference, ``last(states, step, lr, settings)`` the update that made these states, or None,
    ``rate(settings, step)`` the learning rate in eta/sigma. ``keeps_last``: statistics have to remember the last
    update.
    """

    settings: dict[str, Any]
    rule: Rule
    update: Callable[..., Moved]
    last: Callable[..., Array | None]
    rate: Callable[..., float]
    first: int
    stop: int
    keeps_last: bool


class Bindings:
    """Checked arrays of an optimizer. Raises TypeError or ValueError that names the array."""

    def __init__(
        self,
        param_groups: list[dict[str, Any]],
        groups: Sequence[Group],
        params: list[Array],
        labels: list[str],
        states: list[dict[str, Array]],
        grads: list[Array | None] | None,
        tail: Tail,
        outputs: Outputs,
    ) -> None:
        self.tail = tail
        self.outputs = outputs
        self.recorder: Recorder | None = None
        self.last_lrs = [0.0 for _ in groups]  # lr of the step before, per group, for statistics
        self.param_groups = param_groups
        self.groups = groups
        self.params = params
        self.labels = labels
        self.states = states
        self.grads = grads
        self._places = [(p.ctypes.data, p.shape, p.dtype) for p in params]
        if grads is not None:
            self.check_grads(grads)
        self.check_overlap(grads or [])

    def runs(self) -> list[tuple[int, int, int]]:
        """(group, first, stop) of consecutive tensors of one group and one dtype."""
        runs = []
        for index, group in enumerate(self.groups):
            first = group.first
            for i in range(group.first, group.stop):
                if i + 1 == group.stop or self.params[i + 1].dtype != self.params[i].dtype:
                    runs.append((index, first, i + 1))
                    first = i + 1
        return runs

    def check_groups(self) -> None:
        """Refuses a list of groups whose members were replaced, removed or joined by others."""
        if len(self.param_groups) != len(self.groups) or any(
            mine is not group.settings for mine, group in zip(self.param_groups, self.groups, strict=True)
        ):
            raise ValueError(
                "param_groups: expected the groups that the optimizer made, got others; edit their settings, "
                "or use add_param_group"
            )

    def choose_grads(self, grads: Sequence[Array | None] | None) -> Sequence[Array | None]:
        """The gradients of a step: those bound at construction, or those given to it, never both."""
        if grads is None and self.grads is None:
            raise ValueError("grads: expected gradients, because none were bound at construction; got None")
        if grads is not None and self.grads is not None:
            raise ValueError("grads: expected None, because gradients were bound at construction; got some")
        return self.grads if grads is None else grads  # type: ignore[return-value]

    def check_params(self) -> None:
        """Refuses parameters that were resized, reshaped, re-typed or locked after binding."""
        for label, param, place in zip(self.labels, self.params, self._places, strict=True):
            checks.param(label, param)
            now = (param.ctypes.data, param.shape, param.dtype)
            if now != place:
                raise ValueError(
                    f"{label}: expected the array as it was bound (shape {place[1]}, {place[2]}, address "
                    f"{place[0]:#x}), got shape {now[1]}, {now[2]}, address {now[0]:#x}; do not resize bound arrays"
                )

    def check_copies(self) -> None:
        """Refuses copies that were resized, re-typed or locked after binding."""
        copies, places = self.outputs.copies or [], self.outputs.copy_places
        for i, (copy, place) in enumerate(zip(copies, places, strict=True)):
            check_copy(f"copy_to[{i}]", copy, self.labels[i], self.params[i])
            if (copy.ctypes.data, copy.dtype) != place:
                raise ValueError(f"copy_to[{i}]: expected the array as it was bound; do not resize or retype it")

    def check_grads(self, grads: Sequence[Array | None]) -> None:
        """Refuses gradients that do not fit their parameters, one by one."""
        if not isinstance(grads, (list, tuple)) or len(grads) != len(self.params):
            count = len(grads) if isinstance(grads, (list, tuple)) else type(grads).__name__
            raise ValueError(f"grads: expected {len(self.params)} arrays, one per parameter, got {count}")
        for i, grad in enumerate(grads):
            if grad is not None:
                checks.companion(
                    self.grad_label(i), grad, self.labels[i], self.params[i], written=self.tail.zero_grads
                )

    def check_overlap(self, grads: Sequence[Array | None]) -> None:
        """Refuses memory shared between any two arrays of which one is written."""
        buffers = [(label, param, True) for label, param in zip(self.labels, self.params, strict=True)]
        for i, states in enumerate(self.states):
            buffers += [(f"state[{i}][{name!r}]", array, True) for name, array in states.items()]
        buffers += self.outputs.buffers()
        written = self.tail.zero_grads
        buffers += [(self.grad_label(i), grad, written) for i, grad in enumerate(grads) if grad is not None]
        checks.overlap(buffers)

    def grad_label(self, i: int) -> str:
        """The gradient of params[i] in the user's words."""
        return self.labels[i].replace("params", "grads", 1)


def lower(rule: Rule, settings: Mapping[str, Any], renamed: Mapping[str, str]) -> tuple[int, dict[str, float]]:
    """Settings of a parameter group as (flags, numbers) of the C API.

    ``renamed`` maps a setting to the number that it stands for where the names differ.
    """
    flags = 0
    numbers: dict[str, float] = {}
    for key, value in settings.items():
        if key in _FLAGS:
            expected, bit = _FLAGS[key]
            flags |= bit if value == expected else 0
        elif not isinstance(value, bool):
            names = names_of(key, renamed)
            values = value if isinstance(value, tuple) else (value,)
            numbers.update((name, x) for name, x in zip(names, values, strict=False) if name in rule.defaults)
    return flags, numbers


def names_of(key: str, renamed: Mapping[str, str]) -> tuple[str, ...]:
    """The numbers of the C API that one setting stands for."""
    return ("beta1", "beta2") if key == "betas" else (renamed.get(key, key),)


# Setting, the value that sets the flag, and the flag of lrfast.h.
_FLAGS = {
    "maximize": (True, 1),
    "nesterov": (True, 2),
    "initial": ("first-gradient", 4),
    "accumulate": ("mean", 8),
}
