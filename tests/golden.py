"""Writes golden.txt: what tests/c/golden.c has to print on every machine, computed by the NumPy reference.

`python tests/golden.py` writes the file anew; a change of it is a change of promised bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lrfast
from lrfast import reference

FILE = Path(__file__).with_name("golden.txt")

COUNT = 3109
UPDATES = 300
LATE_STEPS = (5000, 123_456_789, 2**40)
TILE, LANES = 1024, 32
DTYPES = {"f32": np.float32, "f64": np.float64}


class Variant(NamedTuple):
    """`states` are arguments of the update in the order of their slots; `clip_norm` 0 is off."""

    update: Callable[..., None]
    states: tuple[str, ...]
    settings: dict[str, Any]
    initial: float = 0.0
    grad_scale: float = 1.0
    clip_norm: float = 0.0


ADAM = ("exp_avg", "exp_avg_sq")
AMSGRAD = (*ADAM, "max_exp_avg_sq")

# The variants of golden.c.
VARIANTS = {
    "sgd": Variant(reference.sgd, (), dict(lr=1e-2)),
    "sgd-decay-maximize": Variant(reference.sgd, (), dict(lr=1e-2, weight_decay=0.1, maximize=True)),
    "momentum": Variant(reference.sgd, ("momentum_buffer",), dict(lr=1e-2, momentum=0.9)),
    "momentum-low": Variant(
        reference.sgd, ("momentum_buffer",), dict(lr=1e-2, momentum=0.3, dampening=0.5, weight_decay=0.01)
    ),
    "nesterov": Variant(reference.sgd, ("momentum_buffer",), dict(lr=1e-2, momentum=0.9, nesterov=True)),
    "nesterov-maximize": Variant(
        reference.sgd,
        ("momentum_buffer",),
        dict(lr=1e-2, momentum=0.4, weight_decay=0.1, nesterov=True, maximize=True),
    ),
    "adagrad": Variant(reference.adagrad, ("sum",), dict(lr=1e-2, eps=1e-10)),
    "adagrad-decay": Variant(
        reference.adagrad, ("sum",), dict(lr=1e-2, eps=1e-10, lr_decay=0.1, weight_decay=0.01), initial=0.1
    ),
    "adagrad-mean": Variant(
        reference.adagrad, ("sum",), dict(lr=1e-2, eps=1e-10, lr_decay=0.01, accumulate="mean", maximize=True)
    ),
    "rmsprop": Variant(reference.rmsprop, ("square_avg",), dict(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.01)),
    "rmsprop-low": Variant(reference.rmsprop, ("square_avg",), dict(lr=1e-2, alpha=0.3, eps=1e-8)),
    "rmsprop-first": Variant(
        reference.rmsprop, ("square_avg",), dict(lr=1e-2, alpha=0.9, eps=1e-8, initial="first-gradient")
    ),
    "rmsprop-momentum": Variant(
        reference.rmsprop,
        ("momentum_buffer", "square_avg"),
        dict(lr=1e-2, alpha=0.99, momentum=0.9, eps=1e-8, maximize=True),
    ),
    "rmsprop-momentum-first": Variant(
        reference.rmsprop,
        ("momentum_buffer", "square_avg"),
        dict(lr=1e-2, alpha=0.9, momentum=0.5, eps=1e-8, initial="first-gradient"),
    ),
    "rmsprop-centered": Variant(
        reference.rmsprop, ("square_avg", "grad_avg"), dict(lr=1e-2, alpha=0.9, eps=1e-8, centered=True)
    ),
    "rmsprop-centered-low": Variant(
        reference.rmsprop, ("square_avg", "grad_avg"), dict(lr=1e-2, alpha=0.2, eps=1e-8, centered=True)
    ),
    "rmsprop-centered-momentum": Variant(
        reference.rmsprop,
        ("momentum_buffer", "square_avg", "grad_avg"),
        dict(lr=1e-2, alpha=0.99, momentum=0.5, eps=1e-8, weight_decay=0.01, centered=True),
    ),
    "adam": Variant(reference.adam, ADAM, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)),
    "adam-low": Variant(reference.adam, ADAM, dict(lr=1e-3, betas=(0.3, 0.4), eps=1e-8)),
    "adam-decay-maximize": Variant(
        reference.adam, ADAM, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, maximize=True)
    ),
    "adam-scaled": Variant(reference.adam, ADAM, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8), grad_scale=-1.0 / 3),
    "adam-clipped": Variant(
        reference.adam, ADAM, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8), grad_scale=0.7, clip_norm=0.5
    ),
    "adamw": Variant(reference.adamw, ADAM, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)),
    "amsgrad": Variant(
        reference.adam, AMSGRAD, dict(lr=1e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01, amsgrad=True)
    ),
    "amsgrad-low-decoupled": Variant(
        reference.adamw, AMSGRAD, dict(lr=1e-3, betas=(0.4, 0.5), eps=1e-8, weight_decay=0.01, amsgrad=True)
    ),
    "radam": Variant(reference.radam, ADAM, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)),
    "radam-low-decoupled": Variant(
        reference.radam,
        ADAM,
        dict(lr=1e-3, betas=(0.3, 0.6), eps=1e-8, weight_decay=0.1, decoupled_weight_decay=True),
    ),
}


# Steps with all that rides along: optimizer and settings.
TAIL_UPDATES = 30
TAIL_VARIANTS: dict[str, tuple[type[lrfast.Optimizer], dict[str, Any]]] = {
    "sgd-tail": (lrfast.SGD, dict(lr=1e-2, maximize=True)),
    "momentum-tail": (lrfast.SGD, dict(lr=1e-2, momentum=0.9)),
    "nesterov-tail": (lrfast.SGD, dict(lr=1e-2, momentum=0.9, nesterov=True)),
    "adagrad-tail": (lrfast.Adagrad, dict(lr=1e-2)),
    "rmsprop-centered-tail": (lrfast.RMSprop, dict(lr=1e-2, alpha=0.9, centered=True)),
    "rmsprop-momentum-tail": (lrfast.RMSprop, dict(lr=1e-2, alpha=0.9, momentum=0.5)),
    "adamw-tail": (lrfast.AdamW, dict(lr=1e-3, weight_decay=0.1)),
    "amsgrad-tail": (lrfast.Adam, dict(lr=1e-3, betas=(0.9, 0.99), amsgrad=True)),
    "radam-tail": (lrfast.RAdam, dict(lr=1e-3, betas=(0.9, 0.9))),
}
COPIES = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}


def text() -> str:
    """The whole file."""
    lines = [f"{name}-{dtype} {run(v, DTYPES[dtype]):016x}\n" for name, v in VARIANTS.items() for dtype in DTYPES]
    for name, (cls, settings) in TAIL_VARIANTS.items():
        for copy in COPIES:
            for dtype in DTYPES:
                lines.append(f"{name}-{dtype}-{copy} {run_tail(cls, settings, DTYPES[dtype], COPIES[copy]):016x}\n")
    return "".join(lines)


def run_tail(cls: type[lrfast.Optimizer], settings: dict[str, Any], dtype: Any, copy: Any) -> int:
    """Hash of parameter, gradient and of what rode along with the updates."""
    param, grad, copy_to = numbers(dtype, 0), np.zeros(COUNT, dtype), np.zeros(COUNT, copy)
    tail = dict(clip_value=0.4, clip_norm=5.0, nonfinite="skip", zero_grads=True, ema=0.9, stats=True)
    optimizer = cls(param, grads=grad, copy_to=copy_to, **tail, **settings)
    with lrfast.use_isa("numpy"):
        for t in range(1, TAIL_UPDATES + 1):
            grad[...] = gradient(dtype, t)
            optimizer.step(grad_scale=0.7)
    assert optimizer.ema is not None
    arrays = [param, grad, optimizer.ema[0], copy_to, optimizer._bindings.recorder.rows]
    return fnv1a(b"".join(array.tobytes() for array in arrays))


def run(variant: Variant, dtype: Any) -> int:
    """Hash of parameter and states after all updates."""
    param = numbers(dtype, 0)
    states = {name: np.full(COUNT, variant.initial, dtype) for name in variant.states}
    for t in range(1, UPDATES + len(LATE_STEPS) + 1):
        grad = gradient(dtype, t)
        scale = variant.grad_scale
        if variant.clip_norm:
            scale *= min(1.0, variant.clip_norm / (norm(grad, variant.grad_scale) + 1e-6))
        step = t if t <= UPDATES else LATE_STEPS[t - UPDATES - 1]
        variant.update(param, grad, **states, step=step, grad_scale=scale, **variant.settings)
    arrays = [param, *states.values()]
    assert all(np.isfinite(array).all() for array in arrays), "only finite numbers have the same bytes everywhere"
    return fnv1a(b"".join(array.tobytes() for array in arrays))


def norm(grad: np.ndarray, grad_scale: float) -> float:
    """Norm as the C core adds it up: 32 lanes per tile, folded by halves; then tiles in order."""
    total = 0.0
    for start in range(0, len(grad), TILE):
        tile = grad[start : start + TILE].astype(np.float64)
        rows = np.zeros((-(-len(tile) // LANES), LANES))
        rows.flat[: len(tile)] = tile * tile
        lanes = reduce(np.add, rows, np.zeros(LANES))
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        total += float(lanes[0])
    return abs(grad_scale) * math.sqrt(total)


def fnv1a(data: bytes) -> int:
    """64-bit FNV-1a."""
    result = 0xCBF29CE484222325
    for byte in data:
        result = (result ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return result


# ---- the numbers of tests/c/check.h --------------------------------------------------------------------------


@cache
def gradient(dtype: Any, t: int) -> np.ndarray:
    """Gradient of update t: some elements so small that their squares are denormal, some dead after update 20."""
    grad = numbers(dtype, t)
    grad[3::16] = np.ldexp(grad[3::16], -508 if dtype == np.float64 else -60)
    if t > 20:
        grad[7::16] = 0
    grad.flags.writeable = False
    return grad


def numbers(dtype: Any, stream: int) -> np.ndarray:
    """Between -1 and 1, over 16 binary orders of magnitude, exact in the dtype; bits by splitmix64."""
    digits = 52 if dtype == np.float64 else 23
    z = (np.arange(COUNT, dtype=np.uint64) + np.uint64((stream << 32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z = z ^ z >> np.uint64(31)
    integers = (z >> np.uint64(63 - digits)).astype(np.int64) - (1 << digits)
    return np.ldexp(integers.astype(np.float64), -digits - (z & np.uint64(15)).astype(np.int64)).astype(dtype)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
