"""The specification of what surrounds an update, in NumPy: sums, clipping, averages, copies, statistics.

The counterpart of ``src_c/kernels/`` (``reduce.h``, ``stages.h``, ``statistics.h``) and ``update.c``, with the same
bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import formats
from .arithmetic import Array, towards

__all__ = [
    "BINS",
    "FIELDS",
    "FIRST_RATE",
    "Trace",
    "average",
    "clamp",
    "column",
    "copy_into",
    "count_nonfinite",
    "count_overflowed",
    "gather",
    "gather_norms",
    "sum_products",
    "sum_squares",
]

TILE, LANES, SAMPLES = 1024, 32, 16
BINS, FIRST_RATE = 64, -32

FIELDS = (
    *("elements", "grad_sq", "param_sq", "update_sq", "grad_update", "grad_last", "grad_max", "update_max", "rate_max"),
    *("nan", "inf", "zero", "lost", "turned", "eps_dominates"),
)
"""The numbers of ``lrf_stats`` in front of its ``BINS`` rates."""
LATER = ("dead",)
"""Those behind them."""
ROW = len(FIELDS) + BINS + len(LATER)
RATES = slice(len(FIELDS), len(FIELDS) + BINS)


def column(name: str) -> int:
    """Where a row has one of its numbers."""
    return RATES.stop + LATER.index(name) if name in LATER else FIELDS.index(name)


class Trace(NamedTuple):
    """What statistics see of the update of one tensor; arrays like the parameter, or None where there is none.

    ``last`` is the update before this one; what compares with it is NaN where it is None. ``denominator`` is what the
    rule divided by.
    """

    update: Array
    denominator: Array | None
    last: Array | None = None


def sum_products(x: Array, y: Array) -> float:
    """Sum of x * y in float64: 32 lanes per tile of 1,024 elements, folded by halves; then the tiles in order."""
    if x.size == 0:
        return 0.0
    products = x.reshape(-1).astype(np.float64) * y.reshape(-1).astype(np.float64)
    rows = np.zeros((-(-x.size // TILE), TILE // LANES, LANES))
    rows.reshape(-1)[: x.size] = products
    lanes = np.zeros((len(rows), LANES))
    for row in range(TILE // LANES):
        lanes += rows[:, row]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return float(np.add.accumulate(lanes[:, 0])[-1])


def sum_squares(x: Array, unit: float = 1.0) -> float:
    """Sum of (x / unit)^2 in the same order. unit: a power of two."""
    scaled = x if unit == 1 else x.astype(np.float64) * (1 / unit)
    return sum_products(scaled, scaled)


def count_nonfinite(grad: Array, grad_scale: float) -> int:
    """How many of the scaled gradients are NaN or infinite."""
    return int(np.count_nonzero(~np.isfinite(grad.dtype.type(grad_scale) * grad)))


def count_overflowed(before: Array, after: Array) -> int:
    """How many were finite before and are infinite after."""
    return int(np.count_nonzero(np.isfinite(before) & np.isinf(after)))


def clamp(grad: Array, grad_scale: float, bound: float) -> Array:
    """The scaled gradient, limited to -bound .. bound; NaN stays."""
    c = grad.dtype.type
    least, most = c(-bound), c(bound)  # not -c(bound): without memory NumPy 2.4 crashes in the minus of a scalar
    x: Array = c(grad_scale) * grad
    x = np.where(x < least, least, x)
    x = np.where(x > most, most, x)
    return x


def average(ema: Array, param: Array, decay: float) -> None:
    """ema += (1 - decay) (param - ema), in place, in the type of the average; with decay 0 it is param."""
    weight = ema.dtype.type(1 - decay)
    ema[...] = param if weight == 1 else towards(ema, param.astype(ema.dtype, copy=False), weight)


def copy_into(copy: Array, param: Array) -> None:
    """copy = param by way of float32, rounded to nearest even."""
    source, target = param.reshape(-1), copy.reshape(-1)
    for first in range(0, source.size, formats.CHUNK):
        _round_into(target[first : first + formats.CHUNK], source[first : first + formats.CHUNK])


def _round_into(copy: Array, param: Array) -> None:
    copy[...] = formats.encode(param.astype(np.float32), copy.dtype)


# ---- statistics ------------------------------------------------------------------------------------------------


def gather_norms(row: Array, grad: Array, before: Array, trace: Trace) -> None:
    """Fills the fields of ``row`` that norms come from; before: the parameter before the update."""
    values: dict[str, float] = {
        "elements": grad.size,
        "grad_sq": sum_products(grad, grad),
        "param_sq": sum_products(before, before),
        "update_sq": sum_products(trace.update, trace.update),
    }
    _write(row, values)


def gather(
    row: Array,
    grad: Array,
    before: Array,
    trace: Trace,
    scale: float,
    rate: float,
    eps: float,
    dtype: np.dtype[Any],
) -> None:
    """Fills all of ``row``: FIELDS, the histogram, LATER.

    scale: with the sign of maximize; rate: lr of this update; dtype: in which parameters are kept.
    """
    gather_norms(row, grad, before, trace)
    c = grad.dtype.type
    u = trace.update
    w = trace.last  # None: unknown, and so is what compares with it
    d = np.ones_like(u) if trace.denominator is None else trace.denominator
    s = c(-1.0 if scale < 0 else 1.0) * grad
    usable = d[~np.isnan(d)]
    least = float(np.min(np.abs(usable))) if usable.size else math.inf
    values: dict[str, float] = {
        "grad_max": _largest(grad) * abs(scale),
        "update_max": _largest(u),
        "grad_update": sum_products(grad, u) * scale,
        "grad_last": math.nan if w is None else sum_products(grad, w) * scale,
        "rate_max": float(np.float64(rate) / np.float64(least)) if grad.size else 0.0,
        "nan": int(np.count_nonzero(np.isnan(grad))),
        "inf": int(np.count_nonzero(np.isinf(grad))),
        "zero": int(np.count_nonzero(grad == 0)),
        "lost": int(np.count_nonzero((u != 0) & (formats.decode(formats.encode(before - u, dtype)) == before))),
        "turned": math.nan if w is None else int(np.count_nonzero(((s < 0) & (w > 0)) | ((s > 0) & (w < 0)))),
        "eps_dominates": int(np.count_nonzero(d < 2 * c(eps))),
        "dead": int(np.count_nonzero(~np.isfinite(d) & np.isfinite(grad))),
    }
    _write(row, values)
    row[RATES] = _histogram(d.reshape(-1), rate)


def _write(row: Array, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        row[column(name)] = value


def _largest(x: Array) -> float:
    return float(np.max(np.abs(x))) if x.size else 0.0


def _histogram(denominator: Array, rate: float) -> Array:
    """Counts of rate / denominator by powers of two, of at most 16 elements of each tile."""
    samples: list[Any] = []
    for first in range(0, denominator.size, TILE):
        tile = denominator[first : first + TILE]
        samples += list(tile[:: -(-tile.size // SAMPLES)])
    rates = np.float64(rate) / np.array(samples, np.float64)
    bins = (rates.view(np.uint64) >> np.uint64(52) & np.uint64(0x7FF)).astype(np.int64) - 1023 - FIRST_RATE
    return np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS).astype(np.float64)
