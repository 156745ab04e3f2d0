"""In what form arrays are given: one array, a sequence, a mapping; and gradients in the form of their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


def flatten(kind: str, arrays: Any) -> tuple[list[Any], list[str], list[Any] | None]:
    """An array, a mapping or a sequence as (list, labels, names); kind is "params", "grads", ...

    Names are the keys of a mapping; parameters may be (name, array) pairs, too, as PyTorch's named_parameters.
    """
    if isinstance(arrays, np.ndarray):
        return [arrays], [kind], None
    if isinstance(arrays, Mapping):
        return list(arrays.values()), [f"{kind}[{key!r}]" for key in arrays], list(arrays)
    if isinstance(arrays, (str, bytes)) or not isinstance(arrays, Iterable):
        raise TypeError(f"{kind}: expected an array, a sequence or a mapping of arrays, got {type(arrays).__name__}")
    items = list(arrays)
    named = [isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items]
    if kind == "params" and any(named):
        if not all(named):
            raise ValueError(f"{kind}[{named.index(False)}]: expected a pair (name, array) like others, got no name")
        return [array for _, array in items], [f"{kind}[{name!r}]" for name, _ in items], [name for name, _ in items]
    return items, [f"{kind}[{i}]" for i in range(len(items))], None


class Form(NamedTuple):
    """How parameters were given: ``bare``, one array; ``keys``, those of a mapping; otherwise a sequence or groups.

    ``takes_list``: a list of arrays is already in order.
    """

    bare: bool
    keys: list[Any] | None
    takes_list: bool

    @classmethod
    def of(cls, params: Any, keys: list[Any] | None) -> Form:
        """That of params, whose keys are known."""
        bare = isinstance(params, np.ndarray)
        return cls(bare, keys, not bare and keys is None)

    def in_order(self, kind: str, arrays: Any, count: int) -> list[Any] | None:
        """Arrays that belong to the parameters, in their order; kind: "grads" or "copy_to". None stays None."""
        if arrays is None:
            return None
        items, _, keys = flatten(kind, arrays)
        if self.bare != isinstance(arrays, np.ndarray) or (keys is None) != (self.keys is None):
            shape = "a bare array" if self.bare else "a sequence" if self.keys is None else "a mapping"
            raise TypeError(f"{kind}: expected {shape} like params, got {type(arrays).__name__}")
        if self.keys is not None:
            hint = "; pass None to skip a tensor" if kind == "grads" else ""
            for key in self.keys:
                if key not in arrays:
                    raise ValueError(f"{kind}[{key!r}]: missing{hint}")
            for key in arrays:
                if key not in self.keys:
                    raise ValueError(f"{kind}[{key!r}]: there is no parameter of that name")
            items = [arrays[key] for key in self.keys]
        if len(items) != count:
            raise ValueError(f"{kind}: expected {count} arrays, one per parameter, got {len(items)}")
        return items

    def given(self, arrays: list[Any]) -> Any:
        """The inverse: arrays in order, in the form of the parameters."""
        if self.bare:
            return arrays[0]
        return list(arrays) if self.keys is None else dict(zip(self.keys, arrays, strict=True))
