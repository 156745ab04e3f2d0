"""The machinery under every optimizer class: groups, schedules, state, one call into the plan per step."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from .. import config
from . import checkpoint, checks
from .buffers import Array, Bindings, Group, lower, names_of
from .state import State, state_array
from .table import RULES, Rule
from .options import TailOptions, make_outputs, make_tail, start_recording
from .tailed import Tailed
from ..reference import Moved

_REBUILT = ("_bindings", "_plan", "_scheduled", "_written", "state")  # attributes that _bind makes


class Optimizer(Tailed):
    """Base of all optimizers; use one of its subclasses.

    Attributes
    ----------
    param_groups
        List of dicts with ``"params"`` (a tuple of arrays) and the settings, plain numbers. They may be edited between
        steps: ``optimizer.param_groups[0]["lr"] = 1e-4``.
    schedules
        Per group, the settings that follow a schedule; read-only.
    state
        ``state[i]`` is the state of the i-th parameter across groups: live arrays under PyTorch's names, and
        ``"step"``, its completed updates.
    updates
        Completed ``step()`` calls, the t of every schedule.
    defaults
        Settings of groups that do not say otherwise.

    Parameters
    ----------
    params
        An array, a sequence of arrays, a mapping name -> array, or a list of groups ``{"params": ..., "lr": ...}``.
        C-contiguous float32 or float64 arrays, which are updated in place. Tensors may differ in dtype and shape.
    grads
        None, or gradients to bind: a bare array for a bare array, a mapping for a mapping, otherwise a flat sequence
        across all groups. Each has the dtype and shape of its parameter. A None among them skips that tensor.

    clip_norm, clip_value, nonfinite, zero_grads, ema, copy_to, stats
        Keywords of every optimizer for what surrounds the update and happens in the same pass. Order: gradient *
        grad_scale, sign (maximize), norm, finiteness, clip_value, clip_norm, coupled decay, update; then statistics,
        averages, copies, zeroing. All but ema and copy_to are attributes that may be changed between steps, too.

        - ``clip_norm=c``: gradients of all groups are scaled by min(1, c / (norm + 1e-6)), norm over all of them.
        - ``clip_value=c``: each gradient is limited to -c .. c.
        - ``nonfinite="propagate"|"skip"|"raise"``: what a NaN or infinite gradient does. A skipped step leaves
          parameters, states and counters alone (with zero_grads gradients become 0); "raise" is FloatingPointError.
        - ``zero_grads=True``: gradients are 0 after the step; they must be writable and not shared.
        - ``ema=decay``: averages ``optimizer.ema`` += (1 - decay) (parameter - average) after each update, starting as
          copies; ``with optimizer.use_ema():`` swaps them in. Part of ``state_dict``.
        - ``copy_to=arrays``: like params, of dtype float32, float16, bfloat16 (ml_dtypes) or uint16 (the bits of
          bfloat16); hold the rounded parameters after each update.
        - ``stats=True|k|"norms"``: statistics on every, or every k-th, update; see ``lrfast.stats``.

    Every number among the hyper-parameters may be a schedule, that is any callable s(t) of the completed updates t.

    Raises TypeError (not an array, wrong dtype) or ValueError (shape, strides, read-only, overlap, hyper-parameter
    out of range), always before anything is written.
    """

    # What a subclass declares: its reference, what its states are called there, which marks go into a state_dict to
    # tell it from a twin with the same settings.
    _reference: ClassVar[Callable[..., None]]
    _arguments: ClassVar[Mapping[str, str]] = {}  # state -> argument of the reference
    _marks: ClassVar[Mapping[str, Any]] = {}
    _not_in_torch: ClassVar[Mapping[str, Any]] = {}  # setting -> what PyTorch's twin means
    _step_may_lack: ClassVar[bool] = False  # PyTorch's twin counts no steps
    _construction_only: ClassVar[tuple[str, ...]] = ()  # settings that the update does not read

    state: tuple[State, ...]

    def __init__(self, params: Any, grads: Any, settings: Mapping[str, Any], tail: TailOptions) -> None:
        self.defaults = dict(settings)
        self._tail = make_tail(tail, type(self).__name__, self.defaults)
        self._param_groups: list[dict[str, Any]] = []
        self._schedules: list[dict[str, Any]] = []
        self._structures: list[dict[str, Any]] = []
        self._keys: list[Any] | None = None
        self._bare = isinstance(params, np.ndarray)
        self._takes_list = not self._bare and not isinstance(params, Mapping)
        labels: list[str] = []
        arrays: list[Any] = []
        items, names, keys = checks.flatten("params", params)
        if not items:
            raise ValueError("params: expected at least one array, got none")
        if isinstance(params, Mapping) and "params" in params and not isinstance(params["params"], np.ndarray):
            raise TypeError("params: expected a list of groups, got a single group; put it into a list")
        if any(isinstance(item, dict) for item in items) and keys is None:
            for group in items:
                self._append_group(group, arrays, labels)
        else:
            self._keys = keys
            self._append_settings({}, len(items))
            arrays, labels = items, names
        copies = self._flatten("copy_to", tail.get("copy_to"), len(arrays))
        self._bind(arrays, labels, self._flatten("grads", grads, len(arrays)), copies, [], [], [0] * len(arrays), 0)

    # ---- what subclasses decide ------------------------------------------------------------------------------

    @classmethod
    def _structure(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What of the settings decides which states exist or what numbers mean; a schedule counts as nonzero."""
        return {}

    @classmethod
    def _rule(cls, structure: Mapping[str, Any]) -> str:
        """The row of the table that updates tensors of this structure."""
        raise TypeError("Optimizer is a base class: use SGD, Adam, ...")

    @classmethod
    def _renamed(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        """Setting -> number of the C API, where their names differ; depends on nothing but the structure."""
        return {}

    @classmethod
    def _check(cls, settings: Mapping[str, Any], where: str) -> None:
        """Refuses combinations; single settings are in range already."""

    @classmethod
    def _initial(cls, state: str, settings: Mapping[str, Any]) -> float:
        """What a new state is filled with."""
        return 0.0

    @classmethod
    def _update(
        cls,
        param: Array,
        grad: Array,
        states: Mapping[str, Array],
        step: int,
        grad_scale: float,
        settings: Mapping[str, Any],
    ) -> Moved:
        """One update by the reference."""
        arguments = {cls._arguments.get(name, name): array for name, array in states.items()}
        options = {key: v for key, v in settings.items() if key != "params" and key not in cls._construction_only}
        with np.errstate(all="ignore"):
            moved: Moved = cls._reference.__wrapped__(  # type: ignore[attr-defined]
                param, grad, **arguments, step=step, grad_scale=grad_scale, **options
            )
        return moved

    # ---- public ----------------------------------------------------------------------------------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Settings per group; see :class:`Optimizer`."""
        return self._param_groups

    @property
    def schedules(self) -> tuple[Mapping[str, Any], ...]:
        """Per group, the settings that follow a schedule, as given to the constructor; read-only."""
        return tuple(MappingProxyType(schedules) for schedules in self._schedules)

    def step(self, grads: Any = None, *, grad_scale: float = 1.0) -> None:
        """Update every parameter that has a gradient, in place.

        ``grads`` as in the constructor, in the order of the parameters; None where they were bound. Gradients are
        multiplied by ``grad_scale`` first, and only read unless ``zero_grads`` says otherwise. Raises TypeError or
        ValueError before anything is written, RuntimeError if another thread is in ``step()`` of this optimizer.
        """
        if grads is not None and not (type(grads) is list and self._takes_list):
            grads = self._flatten("grads", grads, len(self.state))
        self._plan.step(grads, grad_scale)

    def zero_grad(self) -> None:
        """Fill the bound gradients with 0. Raises ValueError if none are bound or one is read-only."""
        grads = self._bindings.grads
        if grads is None:
            raise ValueError("zero_grad: expected gradients bound at construction, got none")
        for i, grad in enumerate(grads):
            if grad is not None and not grad.flags.writeable:
                raise ValueError(f"{self._bindings.grad_label(i)}: expected a writable array, got a read-only one")
        for grad in grads:
            if grad is not None:
                grad.fill(0)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Append a group ``{"params": ..., "lr": ..., ...}``; with bound gradients also ``"grads"``.

        Its tensors start at step 0; schedules see the ``updates`` of this optimizer.
        """
        if not isinstance(group, Mapping):
            raise TypeError(f"add_param_group: expected a group like {{'params': ..., 'lr': ...}}, got {group!r:.80}")
        group = dict(group)
        copies = group.pop("copy_to", None)
        if self._bare or self._keys is not None:
            raise ValueError("add_param_group: expected an optimizer made from a sequence or groups of parameters")
        grads = group.pop("grads", None)
        plan, old = self._plan, self._bindings
        plan.acquire()
        try:
            plan.refresh_changed()
            arrays, labels, new_grads = list(old.params), list(old.labels), old.grads
            before = (len(self._param_groups), len(arrays))
            self._append_group(group, arrays, labels)
            if (grads is None) != (old.grads is None):
                expected = (
                    "none, because no gradients were" if grads is not None else "those of the group, because all are"
                )
                raise ValueError(f"grads: expected {expected} bound at construction")
            if old.grads is not None:
                new_grads = [*old.grads, *checks.flatten("grads", grads)[0]]
            if (copies is None) != (old.outputs.copies is None):
                raise ValueError("copy_to: expected arrays for the group exactly if the optimizer has them")
            if old.outputs.copies is not None:
                copies = [*old.outputs.copies, *checks.flatten("copy_to", copies)[0]]
            steps = [plan.step_of(i) for i in range(before[1])] + [0] * (len(arrays) - before[1])
            self._bind(arrays, labels, new_grads, copies, old.outputs.ema or [], old.states, steps, self.updates)
        except BaseException:
            for groups in (self._param_groups, self._schedules, self._structures):
                del groups[len(old.groups) :]
            raise
        finally:
            plan.release()

    def state_dict(self) -> dict[str, Any]:
        """Copies of all states and settings, in PyTorch's layout, and ``"updates"``. Schedules are not in it."""
        return checkpoint.save(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy a ``state_dict`` into the existing arrays; also one of the PyTorch optimizer of the same name.

        Raises TypeError (dtype) or ValueError (another optimizer, number of tensors, shape, structural option)
        before anything is written. Scheduled settings stay scheduled.
        """
        checkpoint.load(self, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self._plan.acquire()  # not while a step runs, or parameters and averages have changed places
        self._plan.release()
        return self._snapshot()

    def _snapshot(self) -> dict[str, Any]:
        """All that makes a twin: attributes, and what is bound, as they are and not copied."""
        bindings = self._bindings
        attributes = {k: v for k, v in self.__dict__.items() if k not in _REBUILT}
        steps = [self._plan.step_of(i) for i in range(len(bindings.params))]
        arrays = (bindings.params, bindings.labels, bindings.grads, bindings.outputs.copies, bindings.outputs.ema or [])
        bound = (*arrays, bindings.states, steps, self.updates, self.skipped)
        return {"attributes": attributes, "bound": bound}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved["attributes"])
        params, labels, grads, copies, ema, states, steps, updates, skipped = saved["bound"]
        aligned = [
            {name: state_array(param, array, slot) for slot, (name, array) in enumerate(arrays.items())}
            for param, arrays in zip(params, states, strict=True)
        ]
        ema = [state_array(param, average, 3) for param, average in zip(params, ema, strict=False)]
        self._bind(params, labels, grads, copies, ema, aligned, steps, updates)
        self._plan.skipped = skipped

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for i, group in enumerate(self._param_groups):
            settings = {k: self._schedules[i].get(k, v) for k, v in group.items() if k != "params"}
            lines.append(
                f"  group {i}: {len(group['params'])} tensors, " + ", ".join(f"{k}={v}" for k, v in settings.items())
            )
        return "\n".join([*lines, ")"])

    # ---- groups and schedules --------------------------------------------------------------------------------

    def _append_group(self, group: Any, arrays: list[Any], labels: list[str]) -> None:
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"params: expected groups like {{'params': ..., 'lr': ...}}, got {group!r:.80}")
        items, _, _ = checks.flatten("params", group["params"])
        self._append_settings({key: value for key, value in group.items() if key != "params"}, len(items))
        labels += [f"params[{len(arrays) + i}]" for i in range(len(items))]
        arrays += items

    def _append_settings(self, own: Mapping[str, Any], count: int) -> None:
        where = f"group {len(self._param_groups)}: "
        for key in own:
            if key not in self.defaults:
                raise ValueError(f"{where}unknown option {key!r}; {type(self).__name__} has {', '.join(self.defaults)}")
        settings = {**self.defaults, **own}
        scheduled = {key: value for key, value in settings.items() if _is_scheduled(key, value)}
        t = self.updates if "_plan" in self.__dict__ else 0  # a group may join later
        for key, schedule in scheduled.items():
            settings[key] = _value_at(key, schedule, t)
        for key, value in settings.items():
            settings[key] = checks.hyper_parameter(key, value, where)
        self._check(settings, where)
        self._param_groups.append({"params": (None,) * count, **settings})
        self._schedules.append(scheduled)
        self._structures.append(self._structure({**settings, **scheduled}))

    def _refresh(self, index: int) -> tuple[int, dict[str, float]]:
        """Validates edited settings of a group; returns them as flags and numbers of the C API."""
        group, where = self._param_groups[index], f"group {index}: "
        written = self._written[index]
        for key in ("params", *self.defaults):
            if key not in group:
                raise ValueError(f"{where}expected the option {key!r}, which was removed from param_groups")
        for key in group:
            if key not in written:
                raise ValueError(f"{where}unknown option {key!r}; {type(self).__name__} has {', '.join(self.defaults)}")
        if group["params"] is not written["params"]:
            raise ValueError(f"{where}params cannot be replaced; make a new optimizer or use add_param_group")
        checked = {key: checks.hyper_parameter(key, group[key], where) for key in self.defaults}
        for key in self._schedules[index]:
            if checked[key] != written[key]:
                raise ValueError(
                    f"{where}{key} follows a schedule and cannot be edited, got {group[key]!r}; to go on without it, "
                    "load the state_dict into a new optimizer"
                )
        structure = self._structure({**checked, **self._schedules[index]})
        for key, value in structure.items():
            if value != self._structures[index][key]:
                raise ValueError(
                    f"{where}{key} decides which state exists or what it means and cannot change after construction; "
                    f"got {group[key]!r}"
                )
        self._check(checked, where)
        changed = any(checked.get(key) != written.get(key) for key in ("betas", "eps", "nesterov"))
        if changed and self._bindings.recorder is not None:
            start_recording(self._bindings)  # the last update can no longer be rebuilt
            self._plan.configure()
        group.update(checked)
        self._written[index] = dict(group)
        return lower(self._rule_of(index), checked, self._renamed(checked))

    def _apply_schedules(self) -> None:
        """Writes the values of update t into the groups; all are checked before the first is written."""
        plan = self._plan
        t = plan.updates
        values = []
        for i, key, schedule, names in self._scheduled:
            value = schedule(t) if callable(schedule) else _value_at(key, schedule, t)
            try:
                values.append((i, key, checks.hyper_parameter(key, value), names))
            except (TypeError, ValueError) as error:
                raise type(error)(f"group {i}, schedule at t={t}: {error}") from None
        for written in self._written:
            if written.get("nesterov"):  # the one option that restricts numbers
                merged = [dict(group) for group in self._param_groups]
                for i, key, value, _ in values:
                    merged[i][key] = value
                for i, settings in enumerate(merged):
                    self._check(settings, f"group {i}, schedule at t={t}: ")
                break
        for i, key, value, names in values:
            plan.assign(i, key, value, names)
            self._written[i][key] = value

    # ---- binding ---------------------------------------------------------------------------------------------

    def _rule_of(self, index: int) -> Rule:
        return RULES[self._rule(self._structures[index])]

    def _flatten(self, kind: str, grads: Any, count: int) -> list[Any] | None:
        """kind: "grads" or "copy_to"."""
        if grads is None:
            return None
        items, _, keys = checks.flatten(kind, grads)
        shape = "a bare array" if self._bare else "a sequence" if self._keys is None else "a mapping"
        if self._bare != isinstance(grads, np.ndarray) or (keys is None) != (self._keys is None):
            raise TypeError(f"{kind}: expected {shape} like params, got {type(grads).__name__}")
        if self._keys is not None:
            for key in self._keys:
                if key not in grads:
                    raise ValueError(f"{kind}[{key!r}]: missing{'; pass None to skip a tensor' * (kind == 'grads')}")
            for key in grads:
                if key not in self._keys:
                    raise ValueError(f"{kind}[{key!r}]: there is no parameter of that name")
            items = [grads[key] for key in self._keys]
        if len(items) != count:
            raise ValueError(f"{kind}: expected {count} arrays, one per parameter, got {len(items)}")
        return items

    def _bind(
        self,
        arrays: list[Any],
        labels: list[str],
        grads: list[Any] | None,
        copies: list[Any] | None,
        ema: list[Array],
        states: list[dict[str, Array]],
        steps: Sequence[int],
        updates: int,
    ) -> None:
        """Checks all arrays, makes the states that ``states`` does not have yet, and the plan; then takes them over."""
        for label, param in zip(labels, arrays, strict=True):
            checks.param(label, param)
        groups: list[Group] = []
        states = list(states)
        first = 0
        for index, settings in enumerate(self._param_groups):
            stop = first + len(settings["params"])
            if all(param is None for param in settings["params"]):
                settings["params"] = tuple(arrays[first:stop])
            rule = self._rule_of(index)
            groups.append(
                Group(settings, rule, self._update, self._last, self._rate, first, stop, self._keeps_last(index))
            )
            states += [
                {n: state_array(param, self._initial(n, settings), k) for k, n in enumerate(rule.states) if n}
                for param in arrays[max(first, len(states)) : stop]
            ]
            first = stop
        outputs = make_outputs(self._tail, copies, arrays, labels, ema)
        bindings = Bindings(self._param_groups, groups, arrays, labels, states, grads, self._tail, outputs)
        start_recording(bindings)
        scheduled = [
            (i, key, schedule, names_of(key, self._renamed(self._param_groups[i])))
            for i, group in enumerate(self._schedules)
            for key, schedule in group.items()
        ]
        written = self.__dict__.get("_written")
        self._written = [dict(group) for group in self._param_groups]
        try:
            plan = config.plan_class()(bindings, weakref.ref(self), bool(scheduled), steps, updates)
        except BaseException:
            self.__dict__["_written"] = written
            raise
        plan.skipped = self._plan.skipped if "_plan" in self.__dict__ else 0
        self._bindings, self._scheduled, self._plan = bindings, scheduled, plan
        self.state = tuple(State(bindings, plan, i) for i in range(len(arrays)))


def _is_scheduled(key: str, value: Any) -> bool:
    if key not in checks.SCHEDULABLE:
        return False
    return callable(value) or (key == "betas" and isinstance(value, Sequence) and any(callable(b) for b in value))


def _value_at(key: str, schedule: Any, t: int) -> Any:
    """The value of a scheduled setting after t completed updates."""
    if key == "betas" and isinstance(schedule, Sequence):
        return tuple(beta(t) if callable(beta) else beta for beta in schedule)
    return schedule(t)
