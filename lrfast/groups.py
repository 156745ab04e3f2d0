"""Groups of parameters by their names: which decay, and how fast which layers learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["Groups", "param_groups"]


class Groups(list[dict[str, Any]]):
    """Groups for an optimizer; printed, what went where."""

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self):
            settings = ", ".join(f"{key}={value}" for key, value in group.items() if key != "params")
            count = sum(_size(p) for _, p in group["params"])
            lines.append(f"group {i}: {len(group['params'])} tensors, {count:,} elements, {settings}")
            lines += [f"    {name} {tuple(p.shape)}" for name, p in group["params"]]
        return "\n".join(lines)


def param_groups(
    named: Mapping[str, Any] | Iterable[tuple[str, Any]],
    weight_decay: float = 0.1,
    no_decay: str | Sequence[str] = "1d",
    layer_decay: float | None = None,
    lr_scale: Mapping[str, float] | None = None,
    lr: float | Callable[[int], float] | None = None,
) -> Groups:
    """Parameters in groups of equal weight decay and learning rate, for any optimizer of lrfast or PyTorch.

    .. code-block:: python

        groups = lrfast.param_groups(model.named_parameters(), weight_decay=0.1)
        print(groups)  # what went where
        optimizer = lrfast.torch.AdamW(groups, lr=1e-3)

    ``named`` is a mapping name -> array, or pairs (name, tensor) as of ``named_parameters()``; what does not require a
    gradient is left out. Patterns are those of a shell, for whole names: ``"*.bias"``, ``"embed.*"``.

    - ``no_decay``: what has a weight decay of 0 in place of ``weight_decay``: ``"1d"``, all of less than two dimensions
      and biases, as in timm and nanoGPT; a pattern; or a sequence of these.
    - ``lr_scale``: factors of the learning rate by pattern; the first that matches counts.
    - ``layer_decay``: the learning rate of each layer is so many times that of the next, 1 for the last, as in timm's
      layer decay. Layers are the numbered blocks in order of ``named``; before them, all that comes before the first
      block is one layer; after them, the last module that has no number is one, and others belong to the last block.
    - ``lr``: needed for either of these; groups then have ``"lr"``, ``lr`` times their factor. It may be a schedule.

    Returns groups ``{"params": [(name, p), ...], "weight_decay": ..., "lr": ...}``: those that decay first, then by
    layer. Raises ValueError for a pattern that matches nothing and factors without ``lr``. Sources: Clark et al. 2020,
    arXiv:2003.10555 (layer decay); Bao et al. 2021, arXiv:2106.08254.
    """
    pairs = [(name, p) for name, p in (named.items() if isinstance(named, Mapping) else named) if _learns(p)]
    if not pairs:
        raise ValueError("named: expected at least one parameter that learns, got none")
    if lr is None and (layer_decay is not None or lr_scale):
        raise ValueError("lr: expected the learning rate that layer_decay and lr_scale are factors of, got None")
    patterns = [no_decay] if isinstance(no_decay, str) else list(no_decay)
    factors = dict(lr_scale or {})
    for what, given in (("no_decay", patterns), ("lr_scale", factors)):
        for pattern in given:
            if pattern != "1d" and not any(_matches(pattern, name, p) for name, p in pairs):
                raise ValueError(f"{what}: expected patterns of which each matches a name, {pattern!r} does not")
    layers = layers_of([name for name, _ in pairs])
    last = max(layers.values())
    found: dict[tuple[bool, int, float], list[tuple[str, Any]]] = {}
    for name, p in pairs:
        keeps = any(_matches(pattern, name, p) for pattern in patterns)
        factor = next((x for pattern, x in factors.items() if _matches(pattern, name, p)), 1.0)
        layer = layers[name] if layer_decay is not None else last
        found.setdefault((keeps, layer, factor), []).append((name, p))
    groups = Groups()
    for (keeps, layer, factor), members in sorted(found.items(), key=lambda item: item[0][:2]):
        scale = factor if layer_decay is None else factor * layer_decay ** (last - layer)
        rate: dict[str, Any] = {} if lr is None else {"lr": lr * scale}  # type: ignore[operator]
        groups.append({"params": members, "weight_decay": 0.0 if keeps else weight_decay, **rate})
    return groups


def layers_of(names: Sequence[str]) -> dict[str, int]:
    """The layer of each name, from 0: see :func:`param_groups`."""
    blocks: dict[str, int] = {}
    for name in names:
        if (block := _block(name)) is not None:
            blocks.setdefault(block, len(blocks) + 1)
    head = names[-1].split(".")[0] if _block(names[-1]) is None else None
    layers, before = {}, True
    for name in names:
        block = _block(name)
        before = before and block is None
        if block is not None:
            layers[name] = blocks[block]
        elif before and blocks:
            layers[name] = 0
        else:
            layers[name] = len(blocks) + (name.split(".")[0] == head)
    return layers


def _block(name: str) -> str | None:
    """A name up to its first part that is a number: the block that it is in."""
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return None if first is None else ".".join(parts[: first + 1])


def _matches(pattern: str, name: str, p: Any) -> bool:
    if pattern == "1d":
        return len(p.shape) < 2 or name.endswith(".bias")
    return fnmatchcase(name, pattern)


def _learns(p: Any) -> bool:
    return bool(getattr(p, "requires_grad", True))


def _size(p: Any) -> int:
    size = 1
    for length in p.shape:
        size *= length
    return size
