"""Tensors as arrays over their memory, and what of them the kernels cannot read or write."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._engine.arithmetic import Array

DTYPES = (torch.float32, torch.float64)


def why_not(tensor: Tensor) -> str | None:
    """Why a tensor cannot be updated in place here, as "expected ..., got ..."; None where it can."""
    if not is_plain(type(tensor)):
        return f"expected a plain tensor, got {type(tensor).__name__}"
    if tensor.layout != torch.strided:
        return f"expected a dense tensor, got layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.device.type != "cpu":
        return f"expected a tensor on the CPU, got one on {tensor.device}"
    if tensor.dtype not in DTYPES:
        return f"expected dtype float32 or float64, got {str(tensor.dtype).removeprefix('torch.')}"
    if not is_dense(tensor):
        return (
            f"expected elements that fill their memory without gaps or overlap, in any order, got strides "
            f"{tuple(tensor.stride())} for shape {tuple(tensor.shape)}"
        )
    if tensor.is_neg():
        return "expected the numbers themselves in memory, got a view of their negatives; call resolve_neg()"
    return None


def why_no_gradient(grad: Tensor, param: Tensor) -> str | None:
    """Why a gradient cannot be read in place for a parameter that can be updated."""
    if not is_plain(type(grad)) or grad.layout != torch.strided or grad.device.type != "cpu":
        return why_not(grad)
    if grad.dtype != param.dtype:
        kinds = (str(x.dtype).removeprefix("torch.") for x in (param, grad))
        return "expected dtype {} like its parameter, got {}".format(*kinds)
    if grad.shape != param.shape:
        return f"expected shape {tuple(param.shape)} like its parameter, got {tuple(grad.shape)}"
    if not has_layout(grad, param):
        return (
            f"expected strides {tuple(param.stride())} like its parameter, got {tuple(grad.stride())}; let autograd "
            "make it, or copy it into torch.empty_like(parameter)"
        )
    return None


def is_plain(kind: type) -> bool:
    """Whether tensors of this type have memory of their own: Tensor, Parameter and subclasses that only add to them."""
    dispatch = getattr(kind, "__torch_dispatch__", None)
    return dispatch is torch._C._disabled_torch_dispatch_impl or kind in (Tensor, torch.nn.Parameter)


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a piece of memory, each once."""
    size = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length != 1 and tensor.numel() > 0:
            if stride != size:
                return False
            size *= length
    return True


def has_layout(tensor: Tensor, like: Tensor) -> bool:
    """Whether elements lie in memory in the same order."""
    strides = zip(tensor.shape, tensor.stride(), like.stride(), strict=True)
    return tensor.shape == like.shape and (
        tensor.numel() == 0 or all(mine == its for length, mine, its in strides if length != 1)
    )


def view(tensor: Tensor) -> Array:
    """The memory of a dense tensor as an array of one dimension, in the order in which it lies there."""
    array: Array = tensor.detach().as_strided((tensor.numel(),), (1,)).numpy()
    return array


def tensor_over(array: Array, like: Tensor) -> Tensor:
    """The inverse: a tensor with the shape and strides of another over an array."""
    return torch.from_numpy(array).as_strided(like.shape, like.stride())


def bits_of_copy(tensor: Any, label: str, param: Tensor) -> Array:
    """A tensor that is to hold a rounded parameter, as ``copy_to`` of lrfast takes it. Raises TypeError, ValueError."""
    kinds = {torch.float32: None, torch.float16: None, torch.bfloat16: torch.int16}
    if not isinstance(tensor, Tensor) or tensor.dtype not in kinds or tensor.device.type != "cpu":
        raise TypeError(f"{label}: expected a float32, float16 or bfloat16 tensor on the CPU, got {tensor!r:.80}")
    if not (is_plain(type(tensor)) and is_dense(tensor) and has_layout(tensor, param)):
        raise ValueError(
            f"{label}: expected shape {tuple(param.shape)} and strides {tuple(param.stride())} like its parameter, "
            f"got {tuple(tensor.shape)} and {tuple(tensor.stride())}"
        )
    as_bits = tensor.detach() if kinds[tensor.dtype] is None else tensor.detach().view(torch.int16)
    array = view(as_bits)
    return array if kinds[tensor.dtype] is None else array.view(np.uint16)
