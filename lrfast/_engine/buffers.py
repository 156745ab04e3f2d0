"""The arrays of an optimizer, checked: parameters, gradients, states, and what else a step writes; and their memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .arithmetic import Array, Moved
from .commit import Call, copying
from .form import flatten
from .stages import copy_into
from .table import Rule

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_PAGE = 4096  # bytes
_LARGE = 32_768  # bytes: from here on a page more does not matter
_OUTPUT_SLOT = 3  # where averages and updates lie beside their parameter, in quarter pages


class Group(NamedTuple):
    """Tensors first .. stop, updated by one row of the table; ``spec`` is its specification in NumPy."""

    first: int
    stop: int
    rule: Rule
    spec: Callable[..., Moved]


@dataclass
class Snapshot:
    """All arrays of an optimizer as they are, in the order of its parameters, and its counters.

    States and averages may be fewer than the parameters: the rest is made.
    """

    params: list[Any]
    labels: list[str]
    grads: list[Any] | None
    copies: list[Any] | None
    ema: list[Array] = field(default_factory=list)
    states: list[dict[str, Array]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # completed updates of each tensor
    carried: list[list[float]] = field(default_factory=list)  # what each tensor carries from step to step
    updates: int = 0  # completed steps of the optimizer
    skipped: int = 0

    def join(self, grads: Any, copies: Any) -> None:
        """Completes what belongs to parameters that were appended, with what came with their group."""
        if (grads is None) != (self.grads is None):
            expected = (
                "none, because no gradients were" if self.grads is None else "those of the group, because all are"
            )
            raise ValueError(f"grads: expected {expected} bound at construction")
        if (copies is None) != (self.copies is None):
            raise ValueError("copy_to: expected arrays for the group exactly if the optimizer has them")
        if self.grads is not None:
            self.grads = [*self.grads, *flatten("grads", grads)[0]]
        if self.copies is not None:
            self.copies = [*self.copies, *flatten("copy_to", copies)[0]]
            if len(self.copies) != len(self.params):
                count = len(self.params)
                raise ValueError(f"copy_to: expected {count} arrays, one per parameter, got {len(self.copies)}")
        self.steps = [*self.steps, *[0] * (len(self.params) - len(self.steps))]


class Buffers:
    """Checked arrays. Raises TypeError or ValueError that names the array.

    ``ema``, ``copies`` and ``last`` are None where there are none; ``last`` holds the latest update of each tensor
    while statistics compare with it.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        bound: Snapshot,
        initial: Callable[[int, str], float | None],
        *,
        averages: bool,
        ema_dtype: str | None,
        zero_grads: bool,
    ) -> None:
        """``initial(group, state)``: what a new state is filled with, None: its parameter; ``ema_dtype``: that of
        averages, if it is another than their parameter's."""
        for label, param in zip(bound.labels, bound.params, strict=True):
            checks.param(label, param)
        self.groups = groups
        self.params: list[Array] = bound.params
        self.labels = bound.labels
        self.grads: list[Array | None] | None = bound.grads
        self.states = list(bound.states)
        for index, group in enumerate(groups):
            self.states += [
                {name: new_state(param, initial(index, name), k) for k, name in enumerate(group.rule.states) if name}
                for param in self.params[max(group.first, len(self.states)) : group.stop]
            ]
        self.carried = np.zeros((len(self.params), 4))
        """What each tensor carries from step to step, in the order of ``Rule.carried``; advanced by the plans."""
        for index, group in enumerate(groups):
            for k, name in enumerate(group.rule.carried):
                self.carried[group.first : group.stop, k] = initial(index, name)
        if bound.carried:
            self.carried[: len(bound.carried)] = bound.carried
        self.copies: list[Array] | None = None
        self.copy_dtypes: list[str] = []
        if bound.copies is not None:
            self.copies = list(bound.copies)
            self.copy_dtypes = [self._check_copy(i, copy) for i, copy in enumerate(self.copies)]
        self._copy_places = [(copy.ctypes.data, copy.dtype) for copy in self.copies or []]
        self.ema: list[Array] | None = None
        if averages:
            new = self.params[len(bound.ema) :]
            self.ema = bound.ema + [average_array(param, param, ema_dtype) for param in new]
        self.last: list[Array] | None = None
        self._places = [(p.ctypes.data, p.shape, p.dtype) for p in self.params]
        if self.grads is not None:
            self.check_grads(self.grads, zero_grads)
        self.check_overlap(self.grads or [], zero_grads)

    def made_last(self, wanted: bool) -> list[Array] | None:
        """Memory of the latest updates: that which is there, new one, or none."""
        if wanted and self.last is None:
            return [state_array(param, 0.0, _OUTPUT_SLOT) for param in self.params]
        return self.last if wanted else None

    def carried_of(self, i: int, carried: Array | None = None) -> dict[str, Array]:
        """Views of one element by name of what tensor i carries, or of an array like that."""
        rule = next(group.rule for group in self.groups if group.first <= i < group.stop)
        carried = self.carried if carried is None else carried
        return {name: carried[i, k : k + 1] for k, name in enumerate(rule.carried)}

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

    def refreshing_copies(self, params: Sequence[Array] | None = None) -> list[Call]:
        """What makes copies hold the parameters, or other arrays in their place, which are rounded now."""
        copies = self.copies or []
        fresh = [np.empty_like(copy) for copy in copies]
        with np.errstate(all="ignore"):
            for param, copy, name in zip(params or self.params, fresh, self.copy_dtypes, strict=False):
                copy_into(copy, param, name)
        return [copying(copy, content) for copy, content in zip(copies, fresh, strict=True)]

    # ---- checks ----------------------------------------------------------------------------------------------

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
        for i, (copy, place) in enumerate(zip(self.copies or [], self._copy_places, strict=True)):
            self._check_copy(i, copy)
            if (copy.ctypes.data, copy.dtype) != place:
                raise ValueError(f"copy_to[{i}]: expected the array as it was bound; do not resize or retype it")

    def _check_copy(self, i: int, copy: Any) -> str:
        """The type of a copy: "float32", "float16" or "bfloat16"."""
        label, param = f"copy_to[{i}]", self.params[i]
        if type(copy) not in (np.ndarray, np.memmap):
            raise TypeError(f"{label}: expected a plain numpy array, got {type(copy).__name__}")
        name = "bfloat16" if copy.dtype == np.uint16 else copy.dtype.name
        if name not in ("float32", "float16", "bfloat16") or not copy.dtype.isnative:
            expected = "float32, float16, bfloat16 or uint16 (its bits)"
            raise TypeError(f"{label}: expected dtype {expected}, got {copy.dtype}")
        if copy.shape != param.shape:
            raise ValueError(f"{label}: expected shape {param.shape} like {self.labels[i]}, got {copy.shape}")
        if not (copy.flags.c_contiguous and copy.flags.aligned and copy.flags.writeable):
            raise ValueError(f"{label}: expected a C-contiguous, aligned, writable array")
        return name

    def check_grads(self, grads: Sequence[Array | None], written: bool) -> None:
        """Refuses gradients that do not fit their parameters, one by one; ``written``: they will be zeroed."""
        if not isinstance(grads, (list, tuple)) or len(grads) != len(self.params):
            count = len(grads) if isinstance(grads, (list, tuple)) else type(grads).__name__
            raise ValueError(f"grads: expected {len(self.params)} arrays, one per parameter, got {count}")
        for i, grad in enumerate(grads):
            if grad is not None:
                checks.companion(self.grad_label(i), grad, self.labels[i], self.params[i], written=written)

    def check_overlap(self, grads: Sequence[Array | None], written: bool) -> None:
        """Refuses memory shared between any two arrays of which one is written."""
        found = [(label, param, True) for label, param in zip(self.labels, self.params, strict=True)]
        for i, states in enumerate(self.states):
            found += [(f"state[{i}][{name!r}]", array, True) for name, array in states.items()]
        for kind, arrays in (("ema[{}]", self.ema), ("copy_to[{}]", self.copies), ("last update {}", self.last)):
            found += [(kind.format(i), array, True) for i, array in enumerate(arrays or [])]
        found += [(self.grad_label(i), grad, written) for i, grad in enumerate(grads) if grad is not None]
        checks.overlap(found)

    def grad_label(self, i: int) -> str:
        """The gradient of params[i] in the user's words."""
        return self.labels[i].replace("params", "grads", 1)

    # ---- what a step says of them ----------------------------------------------------------------------------

    def not_finite(self, i: int, count: int) -> FloatingPointError:
        """For nonfinite="raise"; i: the first tensor, count: elements of all."""
        return FloatingPointError(
            f"{self.grad_label(i)}: expected finite gradients, got {count} elements in all that are not"
        )

    def square_not_finite(
        self, i: int, grad: Array, grad_scale: float, clip_value: float | None, clip_factor: float
    ) -> FloatingPointError:
        """The same where it is the square of a gradient that is not finite."""
        largest = abs(grad_scale) * float(np.max(np.abs(grad)))
        largest = clip_factor * (largest if clip_value is None else min(largest, clip_value))
        return FloatingPointError(
            f"{self.grad_label(i)}: expected gradients whose squares are finite in {grad.dtype}, got one of "
            f"{largest:.3g} once scaled and clipped, close to where averages of squares become infinite for ever; set "
            "clip_norm or clip_value, or lower the scale of the loss"
        )

    def overflowed(self, i: int, count: int) -> FloatingPointError:
        """For nonfinite="raise" after a step; i: the first tensor, count: elements of all."""
        return FloatingPointError(
            f"{self.labels[i]}: expected finite averages of squares, got {count} elements in all whose the step, which "
            "was completed, has made infinite: they will not move again; go back to a checkpoint and lower "
            "weight_decay or clip the gradients"
        )


class State(Mapping[str, Any]):
    """State of one tensor: live arrays under PyTorch's names, and "step", its completed updates; floats that it carries
    from step to step.

    Arrays can be written into, not replaced.
    """

    def __init__(self, buffers: Buffers, plan: Any, index: int) -> None:
        self._arrays = buffers.states[index]
        self._carried = buffers.carried_of(index)
        self._plan = plan
        self._index = index

    def __getitem__(self, name: str) -> Any:
        if name == "step":
            return int(self._plan.progress[self._index])
        if name in self._carried:
            return float(self._carried[name][0])
        return self._arrays[name].view()  # whose shape and flags are the user's business

    def __iter__(self) -> Iterator[str]:
        yield "step"
        yield from self._arrays
        yield from self._carried

    def __len__(self) -> int:
        return 1 + len(self._arrays) + len(self._carried)

    def __repr__(self) -> str:
        return repr(dict(self))


def average_array(param: Array, content: Array, dtype: Any = None) -> Array:
    """A new array for an average of param, of that dtype, by default the content's, filled with content."""
    with np.errstate(all="ignore"):  # a signalling NaN
        return state_array(param, content, _OUTPUT_SLOT, content.dtype if dtype is None else dtype)


def new_state(param: Array, initial: float | None, slot: int) -> Array:
    """A state as it is before the first update; ``initial`` as :meth:`Family.initial` gives it."""
    return state_array(param, param if initial is None else initial, slot)


def state_array(param: Array, content: Array | float, slot: int, dtype: Any = None) -> Array:
    """A new array like param, aligned to cache lines, filled with content. Fresh zeros are not touched.

    Within a page, a large state begins a quarter page after param, the next one another quarter: where a load has the
    page offset of a store shortly before it, processors make it wait (measured: up to 20 % of a step).
    """
    dtype = param.dtype if dtype is None else np.dtype(dtype)
    size = param.size * dtype.itemsize
    large = size >= _LARGE
    memory = np.zeros(size + (_PAGE if large else _ALIGNMENT), np.uint8)
    address = memory.ctypes.data
    if large:
        offset = (param.ctypes.data // _ALIGNMENT * _ALIGNMENT + (slot + 1) * _PAGE // 4 - address) % _PAGE
    else:
        offset = -address % _ALIGNMENT
    array: Array = memory[offset : offset + size].view(dtype).reshape(param.shape)
    if not isinstance(content, float) or content != 0.0:
        array[...] = content
    return array
