"""Looks at every tensor before a step: whether all lies where it was, and where the gradients are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._engine.arithmetic import Array
from . import layout

try:
    from ._tensors import Reader
except ImportError:
    Reader = None  # type: ignore[assignment, misc]


def reader_of(params: list[Tensor], groups: list[dict[str, Any]]) -> Any:
    """The one in C, or, where it was not built or PyTorch is too old for it, that in Python."""
    plain = {Tensor, torch.nn.Parameter, *(type(p) for p in params)}
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if Reader is not None and capsule is not None:
        try:
            return Reader(capsule, params, groups, plain)
        except NotImplementedError:
            pass
    return PlainReader(params, groups, plain)


class PlainReader:
    """The gradients of parameters, as long as everything lies where it was when it was bound; in Python.

    ``params`` are the bound ones, ``groups`` all of the optimizer, whose lists have others, too. ``plain``: types of
    tensors whose memory is their own.
    """

    def __init__(self, params: list[Tensor], groups: list[dict[str, Any]], plain: set[type]) -> None:
        self._params, self._groups, self._plain = params, groups, plain
        self._lists = [(group["params"], list(group["params"])) for group in groups]
        self._places = [_place(p) for p in params]
        self._entries: list[Any] = []
        self._tensors: list[tuple[Tensor, int]] = []
        self._scalars: list[tuple[Tensor, Any, int, float]] = []

    def watch(self, entries: list[Any], states: list[Any], tensors: list[Tensor], scalars: list[Any]) -> None:
        """What the state holds from now on: its dicts in order, their values (None where nothing is watched), the
        tensors among these, and (tensor, address of what it shows, whether that is an integer)."""
        import ctypes

        kinds = (ctypes.c_double, ctypes.c_uint64)
        self._entries = list(zip(entries, states, strict=True))
        self._tensors = [(tensor, tensor.data_ptr()) for tensor in tensors]
        self._scalars = [(tensor, kinds[whole].from_address(source), 0, 0.0) for tensor, source, whole in scalars]
        self.count_up()

    def count_up(self) -> None:
        """Shows in the state what the engine has counted."""
        shown = []
        for tensor, source, _, _ in self._scalars:
            tensor.fill_(source.value)
            shown.append((tensor, source, tensor.data_ptr(), tensor.item()))
        self._scalars = shown

    def read(self, state: dict[Any, Any]) -> list[Array | None] | None:
        """An array over each gradient, in order, None where there is none; or None if anything is unusual."""
        for group, (known, content) in zip(self._groups, self._lists, strict=True):
            now = group["params"]
            if now is not known or len(now) != len(content):
                return None
            if any(p is not q for p, q in zip(now, content, strict=True)):
                return None
        if not self._is_same_state(state):
            return None
        grads: list[Array | None] = []
        for param, place in zip(self._params, self._places, strict=True):
            if _place(param) != place:
                return None
            grad = param.grad
            if grad is None:
                grads.append(None)
            elif type(grad) not in self._plain or grad.is_neg() or layout.why_no_gradient(grad, param):
                return None
            else:
                grads.append(layout.view(grad))
        return grads

    def _is_same_state(self, state: dict[Any, Any]) -> bool:
        if len(state) != len(self._entries):
            return False
        for now, (entry, values) in zip(state.values(), self._entries, strict=True):
            if now is not entry:
                return False
            if values is not None and (
                len(entry) != len(values) or any(x is not y for x, y in zip(entry.values(), values, strict=True))
            ):
                return False
        return all(tensor.data_ptr() == address for tensor, address in self._tensors) and all(
            tensor.item() == value for tensor, _, _, value in self._scalars
        )


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
