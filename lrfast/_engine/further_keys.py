"""Keys of a group that are no settings: names, what schedulers and trainers keep there, and PyTorch's ways to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .family import Family

NAMES = "param_names"
"""Where a group has the names of its parameters, as in PyTorch."""

WAYS_TO_RUN: Mapping[str, tuple[bool | None, ...]] = {
    "foreach": (None, False),
    "fused": (None, False, True),
    "capturable": (None, False),
    "differentiable": (None, False),
}
"""Keywords of PyTorch's optimizers that say how, not what, with the values that are true here."""

OF_THE_OPTIMIZER = frozenset(
    {"clip_norm", "clip_value", "nonfinite", "zero_grads", "ema", "ema_decay", "ema_dtype", "copy_to", "stats", "grads"}
    | {"master", "uint16"}
)
"""What is said once for all groups."""

_CUTOFF = 0.85  # "initial_lr" and "max_momentum", which schedulers write, are .82 and .80 from settings
_OF_OTHER_LIBRARIES = {"learning_rate": "lr", "epsilon": "eps", "wd": "weight_decay"}


def check(further: Mapping[str, Any], family: type[Family], settings: Mapping[str, Any], where: str) -> None:
    """Refuses what would be taken for a setting, or says that updates are others than they are."""
    for key, value in further.items():
        way_to_run(key, value, where)
        if key in OF_THE_OPTIMIZER:
            raise ValueError(f"{where}{key}: expected among the optimizer's own keywords, for all groups, not in one")
        marks = family.torch_twin.marks
        if key in marks and value is not marks[key]:
            raise ValueError(f"{where}{key}: expected {marks[key]}, as {family.__name__} has it, got {value!r}")
        near = _near(key, settings)
        if near is not None and key not in marks:
            raise ValueError(
                f"{where}unknown option {key!r}; did you mean {near!r}? {family.__name__} has {', '.join(settings)}"
            )


def way_to_run(key: str, value: Any, where: str) -> None:
    """Refuses one of the WAYS_TO_RUN that does not exist here."""
    allowed = WAYS_TO_RUN.get(key, (value,))
    if not any(value is possible for possible in allowed):
        raise ValueError(
            f"{where}{key}: expected {' or '.join(map(str, allowed))}, got {value!r}; "
            "updates here are one fused pass on the CPU, outside of any graph"
        )


def names(given: Any, count: int, where: str) -> tuple[Any, ...]:
    """Checked names of ``count`` parameters: distinct, and hashable as keys of a mapping are."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or len(given) != count:
        raise ValueError(f"{where}{NAMES}: expected a sequence of {count} names, got {given!r:.80}")
    try:
        repeated = len(set(given)) < count
    except TypeError:
        raise ValueError(f"{where}{NAMES}: expected names that are hashable, got {given!r:.80}") from None
    if repeated:
        twice = next(name for i, name in enumerate(given) if name in given[:i])
        raise ValueError(f"{where}{NAMES}: expected each name once, got {twice!r} twice")
    return tuple(given)


def _near(key: Any, settings: Mapping[str, Any]) -> str | None:
    """The setting that a key was probably meant to be."""
    if not isinstance(key, str):
        return None
    plain = key.lower()
    if _OF_OTHER_LIBRARIES.get(plain) in settings:
        return _OF_OTHER_LIBRARIES[plain]
    from difflib import get_close_matches  # which nobody waits for at import

    mistyped = next((name for name in settings if len(name) > 2 and _one_edit(plain, name)), None)
    return mistyped or next(iter(get_close_matches(plain, settings, 1, _CUTOFF)), None)


def _one_edit(a: str, b: str) -> bool:
    """Whether a letter too many, too few, another or two in the wrong order make one word of the other."""
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[first:], b[first:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
