"""Loads a state_dict, ours or PyTorch's: checked before anything changes, and copied, so that nothing is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .._engine import adopted, checks
from . import layout
from .binding import EMA, plain_number

_FLAGS = ("maximize", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay")


def load(
    owner: Any,
    loaded: Callable[[int], None],
    base: Callable[[Any], None],
    state_dict: Mapping[str, Any],
    updates: int | None,
) -> None:
    """``base`` is that of PyTorch, with the hooks of the user; what they make of the dict is what is loaded. ``loaded``
    is told how many updates are complete."""
    seen: list[Mapping[str, Any]] = []

    def check(_: Any, final: Mapping[str, Any]) -> None:
        _check(owner, final, updates)
        seen.append(final)

    def complete(_: Any) -> None:
        loaded(_complete(owner, seen[-1], updates))

    handles = [
        owner.register_load_state_dict_pre_hook(check),
        owner.register_load_state_dict_post_hook(complete, prepend=True),
    ]
    try:
        base(state_dict)
    finally:
        for handle in handles:
            handle.remove()


def _pairs(owner: Any, saved: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Any, Tensor]]:
    """(saved group, its key of a parameter, the parameter)."""
    return [
        (group, key, p)
        for group, own in zip(saved["param_groups"], owner.param_groups, strict=False)
        for key, p in zip(group["params"], own["params"], strict=False)
    ]


def _settings(family: Any, group: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a saved group, with defaults for what it has not."""
    defaults = adopted.settings_of(family)
    return {**defaults, **{key: plain_number(group[key]) for key in defaults if key in group}}


def _check(owner: Any, saved: Mapping[str, Any], updates: int | None) -> None:
    """Raises TypeError or ValueError for what is another optimizer's, or of other shapes."""
    family, twin = owner.family, owner.family.torch_twin
    for i, group in enumerate(saved["param_groups"]):
        where = f"state_dict: param_groups[{i}]: "
        own = {key: value for key, value in owner.defaults.items() if key not in _FLAGS}
        for key, value in own.items():
            if key not in group and not isinstance(value, bool) and key not in twin.absent:
                raise ValueError(f"{where}expected the option {key!r} of {family.__name__}: another optimizer")
        for key, mark in twin.marks.items():
            if group.get(key, mark) != mark:
                raise ValueError(f"{where}expected {key}={mark} of {family.__name__}, got {group[key]}")
        numbers = {key: plain_number(x) for key, x in group.items() if key not in ("params", "param_names")}
        adopted.checked(family, {**numbers, **dict.fromkeys(("foreach", "fused"))}, 0)
    counted = updates is not None or "updates" in saved
    for group, key, p in _pairs(owner, saved):
        entry = saved["state"].get(key)
        if not entry:
            continue
        label = f"state_dict: state[{key}]"
        arrays, carried = adopted.names(family, _settings(family, group))
        for name in (*arrays, *carried):
            value = entry.get(name)
            if value is None:
                if name != "momentum_buffer":
                    raise ValueError(f"{label}: expected {name!r} of {family.__name__}, which is missing")
            elif name in carried:
                checks.carried_value(name, f"{label}[{name!r}]", value)
            elif not isinstance(value, Tensor) or value.is_complex() != p.is_complex():
                raise TypeError(f"{label}[{name!r}]: expected a tensor of numbers, got {value!r:.80}")
            elif value.shape != p.shape:
                shapes = (tuple(p.shape), tuple(value.shape))
                raise ValueError(f"{label}[{name!r}]: expected shape {shapes[0]} like its parameter, got {shapes[1]}")
        if twin.counts_steps:
            checks.count(f"{label}['step']", entry.get("step", 0))
            counted = True
    if any(owner.schedules) and not counted and saved["state"]:
        raise ValueError(
            "state_dict: expected a count of updates, because settings follow a schedule, and found none: give it, as "
            "in load_state_dict(state_dict, updates=45)"
        )


def _complete(owner: Any, saved: Mapping[str, Any], updates: int | None) -> int:
    """After PyTorch's part, which shares tensors with the dict and converts each: copies, with their precision.

    Returns the completed updates.
    """
    steps = [0]
    for group, key, p in _pairs(owner, saved):
        entry = owner.state.get(p)
        if not entry:
            continue
        original = saved["state"][key]
        counted = {"step", *adopted.names(owner.family, _settings(owner.family, group))[1]}
        for name, value in entry.items():
            if not isinstance(value, Tensor):
                continue
            if name in counted or name == EMA:
                value = original[name]  # scalars and averages keep their dtype
            if value.shape == p.shape and layout.why_not(p) is None and layout.why_not(value) is None:
                entry[name] = value.new_empty(0).new_empty(p.shape).as_strided(p.shape, p.stride()).copy_(value)
            else:
                entry[name] = value.detach().clone()
        if "step" in entry:
            steps.append(checks.count("step", entry["step"]))
    count = saved.get("updates", max(steps)) if updates is None else updates
    return checks.count("updates", count)
