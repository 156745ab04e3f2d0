"""state_dict and what may be loaded from one: PyTorch's layout, validated before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .arithmetic import Array
from .buffers import Buffers
from .family import Twin
from .settings import Settings


class Shape(NamedTuple):
    """The optimizer that something is saved from or loaded into."""

    name: str
    settings: Settings
    buffers: Buffers
    keys: list[Any] | None  # names of the parameters
    twin: Twin


class Saved(NamedTuple):
    """What a state_dict says, complete and checked, in the order of groups and parameters.

    ``averages`` is None where the optimizer has none.
    """

    settings: list[dict[str, Any]]
    steps: list[int]
    arrays: list[dict[str, Array]]
    averages: Sequence[Array] | None
    updates: int


def write(shape: Shape, steps: Sequence[int], updates: int) -> dict[str, Any]:
    """{"state": {i: {"step": int, name: array}}, "param_groups": [{..., "params": [i, ...]}], "updates": int}.

    With averages also "ema": [array]. Arrays are copies.
    """
    buffers = shape.buffers
    state = {
        i: {"step": step, **{name: array.copy() for name, array in arrays.items()}}
        for i, (step, arrays) in enumerate(zip(steps, buffers.states, strict=True))
    }
    names = {} if shape.keys is None else {"param_names": list(shape.keys)}
    groups = []
    for group, settings in zip(buffers.groups, shape.settings.live, strict=True):
        plain = {key: value for key, value in settings.items() if key != "params"}
        groups.append({**plain, **shape.twin.marks, **names, "params": list(range(group.first, group.stop))})
    averages = {} if buffers.ema is None else {"ema": [average.copy() for average in buffers.ema]}
    return {"state": state, "param_groups": groups, "updates": updates, **averages}


def read(saved: Mapping[str, Any], shape: Shape) -> Saved:
    """Validates all of a state_dict. Raises TypeError or ValueError."""
    _check_layout(saved)
    settings = _read_groups(saved["param_groups"], shape)
    order = [i for group in saved["param_groups"] for i in group["params"]]
    states = [_read_state(i, saved["state"].get(key, {}), shape) for i, key in enumerate(order)]
    known = set(order)
    for key in saved["state"]:
        if key not in known:
            raise ValueError(f"state_dict: state[{key!r}] belongs to no parameter of its groups")
    steps = [step for step, _ in states]
    updates = checks.count("state_dict: updates", saved.get("updates", max(steps, default=0)))
    return Saved(settings, steps, [arrays for _, arrays in states], _read_averages(saved.get("ema"), shape), updates)


def _check_layout(saved: Any) -> None:
    """Mappings where there are to be mappings."""
    for key, kind in (("state", Mapping), ("param_groups", Sequence)):
        if not isinstance(saved, Mapping) or not isinstance(saved.get(key), kind):
            raise ValueError(f"state_dict: expected a mapping with a {kind.__name__.lower()} under the key {key!r}")
    for i, group in enumerate(saved["param_groups"]):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), Sequence):
            raise ValueError(f"state_dict: param_groups[{i}]: expected a mapping with a sequence 'params'")
    for i, state in saved["state"].items():
        if not isinstance(state, Mapping):
            raise ValueError(f"state_dict: state[{i}]: expected a mapping, got {type(state).__name__}")


def _read_groups(groups: Any, shape: Shape) -> list[dict[str, Any]]:
    """The settings to write, per group."""
    own = shape.settings
    if len(groups) != len(own.live):
        raise ValueError(f"state_dict: expected {len(own.live)} param_groups, got {len(groups)}")
    found = []
    for i, (mine, group) in enumerate(zip(own.live, groups, strict=True)):
        where = f"state_dict: param_groups[{i}]: "
        if len(group["params"]) != len(mine["params"]):
            raise ValueError(f"{where}expected {len(mine['params'])} parameters, got {len(group['params'])}")
        if shape.keys is not None and list(group.get("param_names", shape.keys)) != shape.keys:
            raise ValueError(f"{where}param_names: expected {shape.keys}, got {list(group['param_names'])}")
        for key, mark in shape.twin.marks.items():
            if group.get(key, mark) != mark:
                raise ValueError(f"{where}expected {key}={mark} of {shape.name}, got {group[key]}: another optimizer")
        settings = {}
        for key in own.defaults:
            if key not in group and key not in shape.twin.absent:
                raise ValueError(
                    f"{where}expected the option {key!r} of {shape.name}, which is missing: another optimizer"
                )
            settings[key] = group.get(key, shape.twin.absent.get(key))
        settings = own.checked({**settings, **{key: mine[key] for key in own.schedules[i]}}, where)
        other = own.first_of_another_state(i, settings)
        if other is not None:
            raise ValueError(f"{where}{other}: expected {mine[other]!r} as at construction, got {settings[other]!r}")
        found.append(settings)
    return found


def _read_state(i: int, saved: Mapping[str, Any], shape: Shape) -> tuple[int, dict[str, Array]]:
    """(step, arrays) of one tensor. PyTorch has no step for SGD, a float step elsewhere, and no state at all for a
    parameter that never had a gradient."""
    own = shape.buffers.states[i]
    arrays = {}
    for name, value in saved.items():
        label = f"state_dict: state[{i}][{name!r}]"
        if name == "step" or value is None:
            continue
        if name not in own:
            raise ValueError(f"{label}: {shape.name} has no such state: another optimizer")
        arrays[name] = _array(label, value, own[name])
    if arrays and "step" not in saved and shape.twin.counts_steps:
        raise ValueError(f"state_dict: state[{i}]: expected 'step', which is missing")
    if (arrays or saved.get("step")) and len(arrays) != len(own):
        missing = next(name for name in own if name not in arrays)
        raise ValueError(f"state_dict: state[{i}]: expected the state {missing!r}, which is missing")
    return checks.count(f"state_dict: state[{i}]['step']", saved.get("step", 1 if arrays else 0)), arrays


def _read_averages(saved: Any, shape: Shape) -> Sequence[Array] | None:
    """What the averages become; the parameters themselves where none were saved."""
    params = shape.buffers.params
    if shape.buffers.ema is None or saved is None:
        return None if shape.buffers.ema is None else params
    if not isinstance(saved, Sequence) or len(saved) != len(params):
        raise ValueError(f"state_dict: ema: expected a sequence of {len(params)} arrays")
    return [_array(f"state_dict: ema[{i}]", x, p) for i, (x, p) in enumerate(zip(saved, params, strict=True))]


def _array(label: str, value: Any, own: Array) -> Array:
    array = np.asarray(value).view()  # whose shape nobody else changes
    if array.dtype != own.dtype:
        raise TypeError(f"{label}: expected dtype {own.dtype}, got {array.dtype}")
    if array.shape != own.shape:
        raise ValueError(f"{label}: expected shape {own.shape}, got {array.shape}")
    return array
