"""An optimizer of lrfast over the memory of tensors: bound once, and again when anything has moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._engine import adopted, checks
from .._engine.arithmetic import Array
from .._engine.optimizer import Optimizer
from .._engine.options import Options
from . import layout
from .reader import reader_of

EMA = "ema"
"""The average of a parameter, in its state."""


class Binding:
    """The parameters of an optimizer that are updated here, and the ``engine`` that does it.

    ``others`` are those that cannot be, with the reason. ``previous`` knows counts that a tensor of float32 does not.
    Raises TypeError or ValueError for a state that does not fit its parameter.
    """

    def __init__(
        self,
        family: type[Optimizer],
        groups: list[dict[str, Any]],
        state: dict[Any, Any],
        options: Options,
        copies: list[Tensor] | None,
        elsewhere: Iterable[Tensor],
        count: adopted.Count,
        previous: Binding | None,
    ) -> None:
        self.family, self.state, self.groups = family, state, groups
        self.keys = [key for key in adopted.settings_of(family) if all(key in group for group in groups)]
        labelled = list(_labelled(groups))
        excluded = {id(p) for p in elsewhere}
        self.others: list[tuple[str, Tensor, str]] = []
        self.params: list[Tensor] = []
        self.labels: list[str] = []
        self.places: list[int] = []  # among all parameters
        sizes = [0] * len(groups)
        for place, (index, label, p) in enumerate(labelled):
            reason = "it is updated elsewhere" if id(p) in excluded else layout.why_not(p)
            if reason is None:
                self.params.append(p)
                self.labels.append(label)
                self.places.append(place)
                sizes[index] += 1
            else:
                self.others.append((label, p, reason))
        self._said = [self._values(group) for group in groups]
        plain = [dict(zip(self.keys, map(plain_number, said), strict=True)) for said in self._said]
        per_tensor = [index for index, size in enumerate(sizes) for _ in range(size)]
        names = [adopted.names(family, {**adopted.settings_of(family), **settings}) for settings in plain]
        self._names = [names[index] for index in per_tensor]
        known = {} if previous is None else dict(zip(map(id, previous.params), previous.counts(), strict=True))
        tensors = [self._tensor(i, known.get(id(p)), options) for i, p in enumerate(self.params)]
        arrays = None
        if copies is not None:
            if len(copies) != len(labelled):
                raise ValueError(f"copy_to: expected {len(labelled)} tensors, one per parameter, got {len(copies)}")
            pairs = [(f"copy_to[{at}]", copies[at]) for at in self.places]
            arrays = [layout.bits_of_copy(x, name, p) for (name, x), p in zip(pairs, self.params, strict=True)]
        self.engine = adopted.adopt(family, list(zip(plain, sizes, strict=True)), tensors, options, arrays, count)
        self._progress, self._carried = adopted.progress(self.engine), adopted.carried(self.engine)
        self._arrays = adopted.states(self.engine)
        self.reader = reader_of(self.params, groups)
        self._waiting = [i for i in range(len(self.params)) if not self._is_published(i)]
        if options.ema is not None:
            for p, average in zip(self.params, self.engine.ema or [], strict=True):
                if EMA not in state[p]:
                    state[p][EMA] = layout.tensor_over(average, p)
        self._watch()

    # ---- settings --------------------------------------------------------------------------------------------

    def _values(self, group: Mapping[str, Any]) -> list[Any]:
        return [group[key] for key in self.keys]

    def take_settings(self) -> bool:
        """Tells the engine what groups say now; False: there must be another one, for a state that there was not."""
        for group, said, own in zip(self.groups, self._said, self.engine.param_groups, strict=True):
            values = [group[key] for key in self.keys]
            if values == said and Tensor not in map(type, values):
                continue
            plain = dict(zip(self.keys, map(plain_number, values), strict=True))
            if self.family.__name__ == "SGD" and (plain["momentum"] == 0) != (own["momentum"] == 0):
                return False  # PyTorch's, too, begins a buffer when there is momentum
            for key, value in plain.items():
                if own[key] != value:
                    own[key] = value
            said[:] = values
        return True

    # ---- gradients -------------------------------------------------------------------------------------------

    def refused_gradients(self) -> Iterable[tuple[str, Tensor, str]]:
        """(label, parameter, reason) of gradients that cannot be read in place."""
        for label, p in zip(self.labels, self.params, strict=True):
            if p.grad is not None and (reason := layout.why_no_gradient(p.grad, p)) is not None:
                yield label.replace("params", "grads", 1), p, reason
        for label, p, reason in self.others:
            if p.grad is not None:
                yield label, p, reason

    def has_more_gradients(self) -> bool:
        """Whether there are gradients of parameters that are not updated here."""
        return any(p.grad is not None for _, p, _ in self.others)

    def slowly_read(self) -> list[Array | None]:
        """An array over each gradient; a copy of one that is a view of negative numbers."""
        grads = [p.grad for p in self.params]
        return [None if g is None else layout.view(g.resolve_neg()) for g in grads]

    # ---- state -----------------------------------------------------------------------------------------------

    def counts(self) -> list[tuple[int, list[float]]]:
        """Completed updates of each tensor, and the numbers that it carries."""
        return list(zip(self._progress.tolist(), self._carried.tolist(), strict=True))

    def finish(self, grads: list[Array | None]) -> None:
        """After a step: what it made is in the state, and graphs that saved parameters know that these have changed."""
        if self._waiting:
            self._publish()
        self.reader.count_up()
        changed = [p for p, g in zip(self.params, grads, strict=True) if g is not None]
        torch.autograd.graph.increment_version(changed)

    def _tensor(self, i: int, known: tuple[int, list[float]] | None, options: Options) -> adopted.Tensor:
        """What a parameter has of its state."""
        p, label, (arrays, carried) = self.params[i], self.labels[i], self._names[i]
        entry = self.state.get(p) or {}
        given: dict[str, Any] = {}
        for name in arrays:
            if entry.get(name) is not None:
                entry[name] = state_like(entry[name], p, f"state of {label}: {name}")
                given[name] = layout.view(entry[name])
        for k, name in enumerate(carried):
            if entry.get(name) is not None:
                value = checks.carried_value(name, f"state of {label}: {name}", entry[name])
                entry[name] = scalar_tensor(entry[name], value, torch.float64)
                given[name] = _finer(None if known is None else known[1][k], value, entry[name])
        average = None
        if options.ema is not None and entry.get(EMA) is not None:
            dtype = torch.float64 if options.ema_dtype == "float64" else p.dtype
            entry[EMA] = state_like(entry[EMA], p, f"state of {label}: {EMA}", dtype)
            average = layout.view(entry[EMA])
        if not self.family.torch_twin.counts_steps:
            step = 0 if arrays and not given else 1 if known is None else known[0]
        elif entry.get("step") is None:
            step = 0
        else:
            value = checks.count(f"state of {label}: step", entry["step"])
            entry["step"] = scalar_tensor(entry["step"], value, scalar_dtype())
            step = int(_finer(None if known is None else known[0], value, entry["step"]))
        return adopted.Tensor(layout.view(p), label, given, step, average)

    def _is_published(self, i: int) -> bool:
        arrays, carried = self._names[i]
        entry = self.state.get(self.params[i]) or {}
        counted = ["step"] if self.family.torch_twin.counts_steps else []
        return all(entry.get(name) is not None for name in (*counted, *arrays, *carried))

    def _publish(self, *, all_of_them: bool = False) -> None:
        """The states of tensors that have had their first update are theirs now."""
        waiting = []
        for i in self._waiting:
            if not (all_of_them or self._progress[i] > 0):
                waiting.append(i)
                continue
            p, (_, carried) = self.params[i], self._names[i]
            entry = self.state[p]
            if self.family.torch_twin.counts_steps and entry.get("step") is None:
                entry["step"] = torch.zeros((), dtype=scalar_dtype())
            for name in carried:
                if entry.get(name) is None:
                    entry[name] = torch.zeros((), dtype=torch.float64)
            for name, array in self._arrays[i].items():
                if entry.get(name) is None:
                    entry[name] = layout.tensor_over(array, p)
        if len(waiting) < len(self._waiting):
            self._waiting = waiting
            self._watch()

    def publish_all(self) -> None:
        """The states of all parameters, also of those that had no gradient yet."""
        self._publish(all_of_them=True)

    def _watch(self) -> None:
        mine = {id(p): i for i, p in enumerate(self.params)}
        entries, values, tensors, scalars = [], [], [], []
        base, stride = self._progress.ctypes.data, self._progress.strides[0]
        for key, entry in self.state.items():
            entries.append(entry)
            i = mine.get(id(key))
            values.append(None if i is None else tuple(entry.values()))
            if i is None:
                continue
            if self.family.torch_twin.counts_steps and entry.get("step") is not None:
                scalars.append((entry["step"], base + i * stride, True))
            arrays, carried = self._names[i]
            for k, name in enumerate(carried):
                if entry.get(name) is not None:
                    scalars.append((entry[name], self._carried[i].ctypes.data + 8 * k, False))
            tensors += [entry[name] for name in (*arrays, EMA) if entry.get(name) is not None]
        self.reader.watch(entries, values, tensors, scalars)


def _labelled(groups: list[dict[str, Any]]) -> Iterable[tuple[int, str, Tensor]]:
    """(group, label, parameter) of all parameters in order."""
    i = 0
    for index, group in enumerate(groups):
        names = group.get("param_names")
        for k, p in enumerate(group["params"]):
            yield index, f"params[{names[k]!r}]" if names is not None and k < len(names) else f"params[{i}]", p
            i += 1


def plain_number(value: Any) -> Any:
    """A setting without tensors. Raises ValueError for those of more than one element."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"expected a tensor of one element as a setting, got shape {tuple(value.shape)}")
        return value.item()
    if isinstance(value, (tuple, list)):
        return tuple(map(plain_number, value))
    return value


def scalar_dtype() -> torch.dtype:
    """In which PyTorch counts."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def scalar_tensor(value: Any, content: float, dtype: torch.dtype) -> Tensor:
    """A number of a state as a tensor that can be written; itself if it is one."""
    if (
        isinstance(value, Tensor)
        and layout.is_plain(type(value))
        and value.device.type == "cpu"
        and value.dtype in layout.DTYPES
    ):
        return value
    return torch.tensor(float(content), dtype=dtype)


def state_like(value: Any, param: Tensor, label: str, dtype: torch.dtype | None = None) -> Tensor:
    """A state as it is, or its elements in the order in which they lie in the parameter."""
    dtype = param.dtype if dtype is None else dtype
    if not isinstance(value, Tensor) or value.dtype != dtype or value.device.type != "cpu":
        kind = f"{value.dtype} on {value.device}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{label}: expected a tensor of {dtype} on the CPU, for its parameter; got {kind}")
    if value.shape != param.shape:
        shape = tuple(value.shape)
        raise ValueError(f"{label}: expected shape {tuple(param.shape)} like its parameter, got {shape}")
    if layout.has_layout(value, param) and layout.why_not(value) is None:
        return value
    return torch.empty_strided(param.shape, param.stride(), dtype=dtype).copy_(value.detach())


def _finer(exact: float | None, value: float, shown: Tensor) -> float:
    """A number that was counted here, if a tensor shows just that, rounded; otherwise what it shows."""
    if exact is not None and shown.dtype == torch.float32 and np.float32(exact) == np.float32(value):
        return exact
    return value
