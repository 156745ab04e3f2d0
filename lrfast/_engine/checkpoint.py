"""state_dict and what may be loaded from one: PyTorch's layout, validated before anything is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import checks, formats, matching
from .arithmetic import Array
from .buffers import Buffers
from .family import Twin
from .further_keys import NAMES, WAYS_TO_RUN
from .settings import Settings, settings_of_all
from .table import NOT_NEGATIVE


class Shape(NamedTuple):
    """The optimizer that something is saved from or loaded into."""

    name: str
    settings: Settings
    buffers: Buffers
    twin: Twin
    scheduled: bool


class Saved(NamedTuple):
    """What a state_dict says, complete and checked, in the order of groups and parameters.

    ``settings`` per group, with what else stands there; ``averages`` is None where the optimizer has none.
    """

    settings: list[dict[str, Any]]
    steps: list[int]
    arrays: list[dict[str, Array]]
    carried: list[dict[str, float]]
    averages: Sequence[Array] | None
    updates: int


class Source(NamedTuple):
    """Whose state_dict it is: ours always has ``updates`` and every entry. ``cast``: other dtypes are converted."""

    ours: bool
    updates: int | None
    cast: bool


def write(shape: Shape, steps: Sequence[int], updates: int) -> dict[str, Any]:
    """{"state": {i: {"step": int, name: array}}, "param_groups": [{..., "params": [i, ...]}], "updates": int}.

    With averages also "ema": [array]. Arrays are copies. Of a master all is saved, as "master", however it is kept: its
    parameter comes back with it.
    """
    buffers = shape.buffers
    state = {
        i: {
            "step": step,
            **{name: array.copy() for name, array in arrays.items() if name not in _MASTERS},
            **({"master": np.array(buffers.value(i))} if _MASTERS & set(arrays) else {}),
            **{name: float(value[0]) for name, value in buffers.carried_of(i).items()},
        }
        for i, (step, arrays) in enumerate(zip(steps, buffers.states, strict=True))
    }
    groups = []
    for group, own in zip(buffers.groups, shape.settings.known, strict=True):
        plain = {key: copy.deepcopy(value) for key, value in own.items() if key not in ("params", NAMES)}
        names = {NAMES: list(own[NAMES])} if NAMES in own else {}
        groups.append({**plain, **shape.twin.marks, **names, "params": list(range(group.first, group.stop))})
    averages = {} if buffers.ema is None else {"ema": [average.copy() for average in buffers.ema]}
    return {"state": state, "param_groups": groups, "updates": updates, **averages}


_MASTERS = {*formats.MASTERS.values()}


def read(saved: Mapping[str, Any], shape: Shape, updates: Any = None, dtype: str | None = None) -> Saved:
    """Validates all of a state_dict. Raises TypeError or ValueError."""
    if dtype not in (None, "cast"):
        raise ValueError(f"dtype: expected None or 'cast', got {dtype!r}")
    _check_layout(saved)
    given = saved.get("updates") if updates is None else updates
    count = None if given is None else checks.count("state_dict: updates" if updates is None else "updates", given)
    source = Source("updates" in saved, count, dtype == "cast")
    match = matching.match(saved["param_groups"], shape.settings.known)
    settings = [_read_group(i, group, shape, source) for i, group in enumerate(match.groups)]
    entries = _by_parameter(saved["state"], match.keys)
    states = [_read_state(i, entries.get(key), shape, source) for i, key in enumerate(match.keys)]
    steps = [step for step, _, _ in states]
    if count is None:
        if shape.scheduled and not any("step" in entry for entry in entries.values()):
            raise ValueError(
                "state_dict: expected a count of updates, because settings follow a schedule, and found none, as in "
                "one of PyTorch's SGD: give it, as in load_state_dict(state_dict, updates=45)"
            )
        count = max(steps, default=0)
    elif count < max(steps, default=0):
        raise ValueError(f"state_dict: expected updates >= {max(steps)}, the largest step, got {count}")
    arrays, carried = [arrays for _, arrays, _ in states], [carried for _, _, carried in states]
    values = [own.get("master", shape.buffers.value(i)) for i, own in enumerate(arrays)]
    averages = _read_averages(saved.get("ema"), values, match.places, shape, source)
    return Saved(settings, steps, arrays, carried, averages, count)


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


# ---- groups --------------------------------------------------------------------------------------------------


def _read_group(i: int, group: Mapping[str, Any], shape: Shape, source: Source) -> dict[str, Any]:
    """The settings to write into group i, and what else was saved with them."""
    own, mine, marks = shape.settings, shape.settings.known[i], shape.twin.marks
    where = f"state_dict: param_groups[{i}]: "
    for key, mark in marks.items():
        if group.get(key, mark) != mark:
            raise ValueError(f"{where}expected {key}={mark} of {shape.name}, got {group[key]}: another optimizer")
    kept = {key: value for key, value in group.items() if not (key in own.defaults or key in marks or key in _LEFT)}
    for key in kept:
        if key not in mine and key in settings_of_all():
            raise ValueError(f"{where}{key!r} is no option of {shape.name}: another optimizer")
    said = {key: group[key] if key in group else _meant(key, group, shape, source, where) for key in own.defaults}
    settings = own.checked(said, where)
    other = own.first_of_another_state(i, settings)
    if other is not None:
        raise ValueError(f"{where}{other}: expected {mine[other]!r} as at construction, got {settings[other]!r}")
    return {**{key: copy.deepcopy(value) for key, value in kept.items()}, **settings}


_LEFT = {"params", NAMES, *WAYS_TO_RUN}  # of a saved group: not the optimizer's to say


def _meant(key: str, group: Mapping[str, Any], shape: Shape, source: Source, where: str) -> Any:
    """What it meant that a group had no such option, before there was one."""
    twin = shape.twin
    if key in twin.absent:
        return twin.absent[key]
    witness = twin.witnesses.get(key)
    is_older = witness is None or (not source.ours and (witness in group or not _LATER & set(group)))
    if shape.settings.is_flag(key) and is_older:
        return False
    raise ValueError(f"{where}expected the option {key!r} of {shape.name}, which is missing: another optimizer")


_LATER = {"maximize", *WAYS_TO_RUN}  # keys that came into groups after all flags that tell optimizers apart


# ---- states --------------------------------------------------------------------------------------------------


def _by_parameter(states: Mapping[Any, Mapping[str, Any]], keys: Sequence[Any]) -> dict[Any, Mapping[str, Any]]:
    """Entries by the keys that groups have for parameters; JSON makes strings of numbers."""
    known, found = {**{str(key): key for key in keys}, **{key: key for key in keys}}, {}
    for key, entry in states.items():
        if key not in known or known[key] in found:
            raise ValueError(f"state_dict: state[{key!r}] belongs to no parameter of its groups")
        found[known[key]] = entry
    return found


def _read_state(
    i: int, saved: Mapping[str, Any] | None, shape: Shape, source: Source
) -> tuple[int, dict[str, Array], dict[str, float]]:
    """(step, arrays, what it carries) of one tensor.

    PyTorch has no step for SGD, a float step elsewhere, and no state at all for a parameter that never had a gradient.
    """
    own, label = dict(shape.buffers.states[i]), f"state_dict: state[{i}]"
    if _MASTERS & set(own):
        own = {name: array for name, array in own.items() if name not in _MASTERS}
        own["master"] = shape.buffers.value(i)
    if saved is None and source.ours:
        raise ValueError(
            f"{label}: expected an entry for every parameter, as a state_dict with 'updates' has, and this is missing; "
            "for one of PyTorch's, leave 'updates' out and give load_state_dict(state_dict, updates=...)"
        )
    saved = saved or {}
    known = shape.buffers.carried_of(i)
    arrays: dict[str, Array] = {}
    carried: dict[str, float] = {}
    for name, value in saved.items():
        if name == "step" or value is None:
            continue
        if name in known:
            carried[name] = checks.carried_value(name, f"{label}[{name!r}]", value)
            continue
        if name not in own:
            other = "made without master=..." if name == "master" else "another optimizer"
            raise ValueError(f"{label}[{name!r}]: {shape.name} has no such state: {other}")
        arrays[name] = array = _array(f"{label}[{name!r}]", value, own[name], source.cast)
        numbers = formats.decode(array)
        if name in NOT_NEGATIVE and (numbers < 0).any():
            raise ValueError(f"{label}[{name!r}]: expected numbers >= 0, got {numbers[numbers < 0][0]}")
    if arrays and "step" not in saved and shape.twin.counts_steps:
        raise ValueError(f"{label}: expected 'step', which is missing")
    if source.cast or not source.ours:
        own.pop("master", None)  # where there is none, it is the parameter's value
    own |= {"master": arrays["master"]} if "master" in arrays else {}
    found = arrays | carried
    if (found or saved.get("step") or source.ours) and len(found) != len(own) + len(known):
        missing = next(name for name in own | known if name not in found)
        raise ValueError(f"{label}: expected the state {missing!r}, which is missing")
    uncounted = 0 if not arrays else source.updates or 1
    return checks.count(f"{label}['step']", saved.get("step", uncounted)), arrays, carried


def _read_averages(
    saved: Any, params: Sequence[Array], places: Sequence[int], shape: Shape, source: Source
) -> Sequence[Array] | None:
    """What the averages become; the numbers of the parameters where none were saved."""
    if shape.buffers.ema is None or saved is None:
        return None if shape.buffers.ema is None else params
    if not isinstance(saved, Sequence) or len(saved) != len(params):
        raise ValueError(f"state_dict: ema: expected a sequence of {len(params)} arrays")
    return [
        # An average that is wider than its parameter holds one of the parameter's type exactly.
        _array(f"state_dict: ema[{i}]", saved[i], own, source.cast or own.dtype != param.dtype)
        for i, own, param in zip(places, shape.buffers.ema, params, strict=True)
    ]


def _array(label: str, value: Any, own: Array, cast: bool) -> Array:
    """An array of a state_dict, which is NumPy's, PyTorch's or what NumPy makes one of."""
    try:
        if cast and hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.double() if value.is_floating_point() else value
        array = np.asarray(value).view()  # whose shape nobody else changes
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"{label}: expected an array of {own.dtype}, got {type(value).__name__}: {error}") from None
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    is_number = is_float or array.dtype.kind in "iu"
    if array.dtype != own.dtype and not (cast and is_number) and not _holds(array, own.dtype):
        hint = "; load_state_dict(..., dtype='cast') converts" if is_float else ""
        raise TypeError(f"{label}: expected dtype {own.dtype}, got {array.dtype}{hint}")
    if array.shape != own.shape:
        raise ValueError(f"{label}: expected shape {own.shape}, got {array.shape}")
    if array.dtype == own.dtype:
        return array
    is_integers = array.dtype == np.uint16 and formats.name_of(own.dtype) != "bfloat16"
    numbers = array if is_integers else formats.decode(array)
    with np.errstate(over="ignore", under="ignore"):
        converted = formats.encode(numbers.astype(formats.computed(own.dtype), copy=False), own.dtype)
    lost = np.isinf(formats.decode(converted)) & np.isfinite(numbers)
    if lost.any():
        raise ValueError(f"{label}: expected numbers that {own.dtype} can hold, got {numbers[lost][0]}")
    return converted


def _holds(array: Array, dtype: Any) -> bool:
    """Whether an array is what a file or a caller with another word for bfloat16 has of one of that dtype."""
    if formats.name_of(dtype) != "bfloat16" or formats.name_of(array.dtype) not in ("bfloat16", "float32"):
        return False
    numbers = formats.decode(array)
    return np.array_equal(formats.decode(formats.encode(numbers, dtype)), numbers, equal_nan=True)
