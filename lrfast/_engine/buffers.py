"""The arrays of an optimizer, checked: parameters, gradients, states, and what else a step writes; and their memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from . import checks, formats
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
        master: str | None,
        uint16: str | None,
    ) -> None:
        """``initial(group, state)``: what a new state is filled with, None: its parameter; ``ema_dtype``: that of
        averages, if it is another than parameters are computed in; ``master``, ``uint16``: as in Options."""
        self.dtypes = checks.CODED if uint16 is None else (*checks.CODED, "uint16")
        for label, param in zip(bound.labels, bound.params, strict=True):
            checks.param(label, param, self.dtypes)
        if master is not None:
            _check_master(master, bound)
        self.groups = groups
        self.params: list[Array] = bound.params
        self.labels = bound.labels
        self.grads: list[Array | None] | None = bound.grads
        self.states = list(bound.states)
        for index, group in enumerate(groups):
            self.states += [
                made_states(param, group.rule, partial(initial, index), master)
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
            first = len(bound.ema)
            new = self.params[first:]
            self.ema = bound.ema + [
                average_array(param, self.value(i), ema_dtype) for i, param in enumerate(new, first)
            ]
        self.last: list[Array] | None = None
        self._loaded: dict[int, tuple[int, int]] = {}  # updates, and hash of the parameter, when a master was loaded
        self._places = [(p.ctypes.data, p.shape, p.dtype) for p in self.params]
        if self.grads is not None:
            self.check_grads(self.grads, zero_grads)
        self.check_overlap(self.grads or [], zero_grads)

    def made_last(self, wanted: bool) -> list[Array] | None:
        """Memory of the latest updates: that which is there, new one, or none."""
        if wanted and self.last is None:
            return [state_array(p, 0.0, _OUTPUT_SLOT, formats.computed(p.dtype)) for p in self.params]
        return self.last if wanted else None

    def value(self, i: int) -> Array:
        """The numbers of parameter i: it, or what it was rounded from."""
        return formats.value(self.params[i], self.states[i])

    def carried_of(self, i: int, carried: Array | None = None) -> dict[str, Array]:
        """Views of one element by name of what tensor i carries, or of an array like that."""
        rule = next(group.rule for group in self.groups if group.first <= i < group.stop)
        carried = self.carried if carried is None else carried
        return {name: carried[i, k : k + 1] for k, name in enumerate(rule.carried)}

    def restoring(
        self, i: int, saved: Mapping[str, Array], initial: Callable[[str], float | None], updates: int
    ) -> list[Call]:
        """What gives tensor i the states of a checkpoint after so many updates, and its parameter what the master there
        rounds to.

        Where there is none, states begin anew, and a master is what the parameter is. Raises ValueError for a parameter
        that somebody has written, and that belongs to another master than this.
        """
        param, states = self.params[i], self.states[i]
        value = saved.get("master", param)
        own = [name for name in states if name not in formats.MASTERS.values()]
        calls = [
            copying(states[name], saved[name] if name in saved else _start(initial(name), value, states[name].dtype))
            for name in own
        ]
        if len(own) < len(states):
            kept, masters = formats.stored(formats.decode(value), param, states)
            written = "master" in states and formats.differs(param, states["master"]).any()
            if written and formats.differs(param, masters["master"]).any():
                raise ValueError(
                    f"{self.labels[i]}: expected the parameter that belongs to the master in the state_dict, got "
                    "another, which was written since the last step: load both from one checkpoint, or the optimizer "
                    "first"
                )
            calls += [copying(param, kept), *(copying(states[name], master) for name, master in masters.items())]
            calls.append(partial(self._loaded.__setitem__, i, (updates, hash(kept.tobytes()))))
        return calls

    def following_params(self, updates: int) -> list[Call]:
        """What makes masters, after so many updates, and copies follow parameters that somebody has written.

        Halves are left alone where the parameter is what was loaded with them: then its checkpoint was loaded after
        theirs.
        """
        calls, values = list[Call](), [self.value(i) for i in range(len(self.params))]
        for i, (param, states) in enumerate(zip(self.params, self.states, strict=True)):
            if "master" in states:
                calls.append(copying(states["master"], values[i]))
            elif "remainder" in states and self._loaded.get(i) != (updates, hash(param.tobytes())):
                calls.append(copying(states["remainder"], 0))
                values[i] = formats.decode(param)
        return [*calls, *self.refreshing_copies(values)]

    def runs(self) -> list[tuple[int, int, int]]:
        """(group, first, stop) of consecutive tensors of one group that are computed in one type."""
        runs = []
        for index, group in enumerate(self.groups):
            first = group.first
            for i in range(group.first, group.stop):
                types = [formats.computed(param.dtype) for param in self.params[i : min(i + 2, group.stop)]]
                if types[0] != types[-1] or i + 1 == group.stop:
                    runs.append((index, first, i + 1))
                    first = i + 1
        return runs

    def refreshing_copies(self, params: Sequence[Array | None] | None = None) -> list[Call]:
        """What makes copies hold the parameters, or other arrays in their place, which are rounded now."""
        copies = self.copies or []
        fresh = [np.empty_like(copy) for copy in copies]
        with np.errstate(all="ignore"):
            for i, copy in enumerate(fresh):
                other = params[i] if params else None
                copy_into(copy, self.value(i) if other is None else formats.decode(other))
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
            checks.param(label, param, self.dtypes)
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
        name = formats.name_of(copy.dtype)
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
                label, like = self.labels[i], self.params[i]
                checks.grad(self.grad_label(i), grad, label, like, dtypes=self.dtypes, written=written)

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
        numbers = formats.decode(grad)
        largest = abs(grad_scale) * float(np.max(np.abs(numbers)))
        largest = clip_factor * (largest if clip_value is None else min(largest, clip_value))
        return FloatingPointError(
            f"{self.grad_label(i)}: expected gradients whose squares are finite in {numbers.dtype}, got one of "
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


def _check_master(master: str, bound: Snapshot) -> None:
    """Refuses parameters that cannot have such a master."""
    coded = [i for i, param in enumerate(bound.params) if formats.is_coded(param.dtype)]
    if not coded:
        raise ValueError(
            f"master: expected parameters of 16 bits, which a master holds in float32, got {bound.labels[0]} of "
            f"{bound.params[0].dtype}"
        )
    for i in coded:
        if master == "split" and formats.name_of(bound.params[i].dtype) != "bfloat16":
            raise TypeError(
                f"{bound.labels[i]}: expected bfloat16 with master='split', got {bound.params[i].dtype}; "
                "use master='float32'"
            )


def made_states(
    param: Array,
    rule: Rule,
    initial: Callable[[str], float | None],
    master: str | None,
    given: Mapping[str, Array] = MappingProxyType({}),
) -> dict[str, Array]:
    """States of a parameter as they are before the first update, or as they are given; ``initial`` as of
    :meth:`Family.initial`.

    Those of a parameter of 16 bits have its dtype, and float32 where it has a master, which is the last of them.
    """
    has_master = master is not None and formats.is_coded(param.dtype)
    dtype = formats.computed(param.dtype) if has_master else param.dtype
    states = {}
    for k, name in enumerate(rule.states):
        if name:
            is_given = name in given
            states[name] = (
                given[name] if is_given else state_array(param, _start(initial(name), param, dtype), k, dtype)
            )
    if master is not None and has_master:
        name, kind = formats.MASTERS[master], formats.SINGLE if master == "float32" else formats.BITS
        start = formats.decode(param) if master == "float32" else 0.0
        states[name] = given[name] if name in given else state_array(param, start, _OUTPUT_SLOT, kind)
    return states


def _start(initial: float | None, param: Array, dtype: formats.Type) -> Array | float:
    """What a state begins with, as an array holds it."""
    if initial is None:
        return formats.encode(formats.decode(param), dtype)
    return formats.encode(np.full((), initial, np.float32), dtype) if initial and formats.is_coded(dtype) else initial


def average_array(param: Array, content: Array, dtype: Any = None) -> Array:
    """A new array for an average of param, of that dtype, by default the content's, filled with content."""
    with np.errstate(all="ignore"):  # a signalling NaN
        return state_array(param, content, _OUTPUT_SLOT, content.dtype if dtype is None else dtype)


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
