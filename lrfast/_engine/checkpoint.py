"""state_dict and load_state_dict: PyTorch's layout, validated before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks
from .options import start_recording

if TYPE_CHECKING:
    from .optimizer import Optimizer


def save(optimizer: Optimizer) -> dict[str, Any]:
    """{"state": {i: {"step": int, name: array}}, "param_groups": [{..., "params": [i, ...]}], "updates": int}.

    With averages also "ema": [array].
    """
    optimizer._plan.acquire()  # not while a step runs, or parameters and averages have changed places
    optimizer._plan.release()
    state = {
        i: {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in tensor.items()}
        for i, tensor in enumerate(optimizer.state)
    }
    groups = []
    first = 0
    for group in optimizer.param_groups:
        count = len(group["params"])
        settings = {key: value for key, value in group.items() if key != "params"}
        names = {} if optimizer._keys is None else {"param_names": list(optimizer._keys)}
        groups.append({**settings, **optimizer._marks, **names, "params": list(range(first, first + count))})
        first += count
    averages = {} if optimizer.ema is None else {"ema": [average.copy() for average in optimizer.ema]}
    return {"state": state, "param_groups": groups, "updates": optimizer.updates, **averages}


def load(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Validates all of it, then writes settings, states, steps and updates."""
    _check_layout(saved)
    settings = _check_groups(optimizer, saved["param_groups"])
    order = [i for group in saved["param_groups"] for i in group["params"]]
    states = [_check_state(optimizer, i, saved["state"].get(key, {})) for i, key in enumerate(order)]
    known = set(order)
    for key in saved["state"]:
        if key not in known:
            raise ValueError(f"state_dict: state[{key!r}] belongs to no parameter of its groups")
    steps = [step for step, _ in states]
    updates = checks.count("state_dict: updates", saved.get("updates", max(steps, default=0)))
    averages = _check_averages(optimizer, saved.get("ema"))

    optimizer._plan.acquire()
    try:
        for group, loaded in zip(optimizer.param_groups, settings, strict=True):
            group.update(loaded)
        for i, (_, arrays) in enumerate(states):
            for name, own in optimizer._bindings.states[i].items():
                own[...] = arrays.get(name, optimizer._initial(name, optimizer._group_of(i)))
        for own, average in zip(optimizer.ema or [], averages, strict=True):
            own[...] = average
        optimizer._plan.set_progress(steps, updates)
        start_recording(optimizer._bindings)
        optimizer._plan.configure()
    finally:
        optimizer._plan.release()


def _check_averages(optimizer: Optimizer, saved: Any) -> Sequence[np.ndarray]:
    """What the averages become; the parameters themselves where none were saved."""
    params = optimizer._bindings.params
    if optimizer.ema is None or saved is None:
        return [] if optimizer.ema is None else params
    if not isinstance(saved, Sequence) or len(saved) != len(params):
        raise ValueError(f"state_dict: ema: expected a sequence of {len(params)} arrays")
    arrays = [np.asarray(average) for average in saved]
    for i, (array, param) in enumerate(zip(arrays, params, strict=True)):
        if array.dtype != param.dtype:
            raise TypeError(f"state_dict: ema[{i}]: expected dtype {param.dtype}, got {array.dtype}")
        if array.shape != param.shape:
            raise ValueError(f"state_dict: ema[{i}]: expected shape {param.shape}, got {array.shape}")
    return arrays


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


def _check_groups(optimizer: Optimizer, groups: Any) -> list[dict[str, Any]]:
    """The settings to write, per group."""
    name = type(optimizer).__name__
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"state_dict: expected {len(optimizer.param_groups)} param_groups, got {len(groups)}")
    checked = []
    for i, (own, group) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        where = f"state_dict: param_groups[{i}]: "
        if len(group["params"]) != len(own["params"]):
            raise ValueError(f"{where}expected {len(own['params'])} parameters, got {len(group['params'])}")
        if optimizer._keys is not None and list(group.get("param_names", optimizer._keys)) != optimizer._keys:
            raise ValueError(f"{where}param_names: expected {optimizer._keys}, got {list(group['param_names'])}")
        for key, mark in optimizer._marks.items():
            if group.get(key, mark) != mark:
                raise ValueError(f"{where}expected {key}={mark} of {name}, got {group[key]}: another optimizer")
        settings = {}
        for key in optimizer.defaults:
            if key in group:
                settings[key] = checks.hyper_parameter(key, group[key], where)
            elif key in optimizer._not_in_torch:
                settings[key] = optimizer._not_in_torch[key]
            else:
                raise ValueError(f"{where}expected the option {key!r} of {name}, which is missing: another optimizer")
        for key in optimizer._schedules[i]:
            settings[key] = own[key]
        optimizer._check(settings, where)
        structure = optimizer._structure({**settings, **optimizer._schedules[i]})
        for key, value in structure.items():
            if value != optimizer._structures[i][key]:
                raise ValueError(f"{where}{key}: expected {own[key]!r} as at construction, got {settings[key]!r}")
        checked.append(settings)
    return checked


def _check_state(optimizer: Optimizer, i: int, saved: Mapping[str, Any]) -> tuple[int, dict[str, np.ndarray]]:
    """(step, arrays) of one tensor. PyTorch has no step for SGD, a float step elsewhere, and no state at all for a
    parameter that never had a gradient."""
    own = optimizer._bindings.states[i]
    arrays = {}
    for name, value in saved.items():
        label = f"state_dict: state[{i}][{name!r}]"
        if name == "step" or value is None:
            continue
        if name not in own:
            raise ValueError(f"{label}: {type(optimizer).__name__} has no such state: another optimizer")
        array = np.asarray(value)
        if array.dtype != own[name].dtype:
            raise TypeError(f"{label}: expected dtype {own[name].dtype}, got {array.dtype}")
        if array.shape != own[name].shape:
            raise ValueError(f"{label}: expected shape {own[name].shape}, got {array.shape}")
        arrays[name] = array
    if arrays and "step" not in saved and not optimizer._step_may_lack:
        raise ValueError(f"state_dict: state[{i}]: expected 'step', which is missing")
    if (arrays or saved.get("step")) and len(arrays) != len(own):
        missing = next(name for name in own if name not in arrays)
        raise ValueError(f"state_dict: state[{i}]: expected the state {missing!r}, which is missing")
    return checks.count(f"state_dict: state[{i}]['step']", saved.get("step", 1 if arrays else 0)), arrays
