"""How arrays hold their elements: float32 and float64 as they are, bfloat16 and float16 to be decoded and encoded.

The counterpart of ``src_c/kernels/formats.h`` and ``formats.c``, with the same bits. bfloat16 is the dtype of
``ml_dtypes``, which nothing here imports, or uint16, the bits of it. NaN is one code in each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import Array

SINGLE, DOUBLE, HALF, BITS = (np.dtype(name) for name in ("float32", "float64", "float16", "uint16"))
NAN = {"float16": 0x7E00, "bfloat16": 0x7FC0}
MASTERS = {"float32": "master", "split": "remainder"}
"""What the option ``master`` may be, and the state that it adds to parameters of 16 bits."""
CHUNK = 1 << 16  # elements: what conversions need on the way stays in the cache

Type = np.dtype[Any]


def name_of(dtype: Type) -> str:
    """The format that a dtype stands for; its own name if that is none."""
    return "bfloat16" if dtype == BITS else dtype.name


def is_coded(dtype: Type) -> bool:
    """Whether arrays of a dtype are decoded."""
    return name_of(dtype) in NAN


def computed(dtype: Type) -> Type:
    """The type in which tensors of a dtype are computed."""
    return SINGLE if is_coded(dtype) else dtype


def decode(array: Array) -> Array:
    """The numbers of an array, itself where it is not coded."""
    name = name_of(array.dtype)
    if name not in NAN:
        return array
    if name == "float16":
        return array.astype(SINGLE)
    return (_flat(array, BITS).astype(np.uint32) << np.uint32(16)).view(SINGLE).reshape(array.shape)


def encode(numbers: Array, dtype: Type) -> Array:
    """An array of that dtype from float32 numbers, rounded to nearest even; of NaN, the one code."""
    name = name_of(dtype)
    if name not in NAN:
        return numbers.astype(dtype, copy=False)
    if name == "float16":
        with np.errstate(all="ignore"):
            codes = _flat(numbers, SINGLE).astype(HALF).view(BITS)
    else:
        word = _flat(numbers, np.uint32)
        even = word >> np.uint32(16) & np.uint32(1)
        codes = ((word + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype(BITS)
    codes[np.isnan(_flat(numbers, SINGLE))] = NAN[name]
    return codes.view(dtype).reshape(numbers.shape)


def split(numbers: Array, dtype: Type) -> tuple[Array, Array]:
    """(nearest bfloat16, of that dtype, at ties the one away from zero; remainder) of float32 numbers."""
    nan = np.isnan(_flat(numbers, SINGLE))
    word = np.where(nan, np.uint32(NAN["bfloat16"] << 16), _flat(numbers, np.uint32))
    upper = ((word + np.uint32(0x8000)) >> np.uint32(16)).astype(BITS).view(dtype)
    return upper.reshape(numbers.shape), word.astype(BITS).reshape(numbers.shape)


def join(param: Array, remainder: Array) -> Array:
    """The float32 numbers whose halves they are."""
    lower = _flat(remainder, BITS).astype(np.uint32)
    upper = _flat(param, BITS).astype(np.uint32) - (lower >> np.uint32(15))
    return (upper << np.uint32(16) | lower).view(SINGLE).reshape(param.shape)


def _flat(array: Array, dtype: Any) -> Array:
    flat: Array = np.ascontiguousarray(array).reshape(-1).view(dtype)
    return flat


def differs(param: Array, master: Array) -> Array:
    """Where a parameter is not what its master rounds to, because somebody has written it."""
    different: Array = _flat(encode(master, param.dtype), BITS) != _flat(param, BITS)
    return different.reshape(param.shape)


def value(param: Array, states: Any) -> Array:
    """The numbers of a parameter: those of its master, if it has one among its states."""
    if "remainder" in states:
        return join(param, states["remainder"])
    if "master" in states:
        return np.where(differs(param, states["master"]), decode(param), states["master"])
    return decode(param)


def stored(numbers: Array, param: Array, states: Any) -> tuple[Array, dict[str, Array]]:
    """(what a parameter becomes, what its master does, by the name of that state) for new numbers."""
    if "remainder" in states:
        upper, remainder = split(numbers, param.dtype)
        return upper, {"remainder": remainder}
    return encode(numbers, param.dtype), {"master": numbers} if "master" in states else {}
