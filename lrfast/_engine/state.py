"""State of optimizers: where its arrays lie in memory, and how users see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .buffers import Bindings

Array = np.ndarray[Any, Any]

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_PAGE = 4096  # bytes
_LARGE = 32_768  # bytes: from here on a page more does not matter


class State(Mapping[str, Any]):
    """State of one tensor: live arrays under PyTorch's names, and "step", its completed updates.

    Arrays can be written into, not replaced.
    """

    def __init__(self, bindings: Bindings, plan: Any, index: int) -> None:
        self._arrays = bindings.states[index]
        self._plan = plan
        self._index = index

    def __getitem__(self, name: str) -> Any:
        if name == "step":
            return self._plan.step_of(self._index)
        return self._arrays[name].view()  # whose shape and flags are the user's business

    def __iter__(self) -> Iterator[str]:
        yield "step"
        yield from self._arrays

    def __len__(self) -> int:
        return 1 + len(self._arrays)

    def __repr__(self) -> str:
        return repr(dict(self))


def state_array(param: Array, content: Array | float, slot: int) -> Array:
    """A new array like param, aligned to cache lines, filled with content. Fresh zeros are not touched.

    Within a page, a large state begins a quarter page after param, the next one another quarter: where a load has the
    page offset of a store shortly before it, processors make it wait (measured: up to 20 % of a step).
    """
    large = param.nbytes >= _LARGE
    memory = np.zeros(param.nbytes + (_PAGE if large else _ALIGNMENT), np.uint8)
    address = memory.ctypes.data
    if large:
        offset = (param.ctypes.data // _ALIGNMENT * _ALIGNMENT + (slot + 1) * _PAGE // 4 - address) % _PAGE
    else:
        offset = -address % _ALIGNMENT
    array = memory[offset : offset + param.nbytes].view(param.dtype).reshape(param.shape)
    if not isinstance(content, float) or content != 0.0:
        array[...] = content
    return array
