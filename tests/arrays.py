"""Arrays that the tests work on, and how they are compared."""

from __future__ import annotations

from typing import Any

import numpy as np


def make_grads(n: int, dtype: Any, seed: int = 0) -> np.ndarray:
    """n gradients over many magnitudes, with every special value where there is room for it."""
    rng = np.random.default_rng([seed, n])
    grads = (rng.standard_normal(n) * 10.0 ** rng.integers(-6, 3, n)).astype(dtype)
    info = np.finfo(dtype)
    special = [
        0.0,
        -0.0,
        info.smallest_subnormal,
        -info.smallest_normal,
        info.max,
        np.inf,
        -np.inf,
        np.nan,
        1e-30,
        1e30,
    ]
    if n >= 32:
        places = rng.choice(n, len(special), replace=False)
        grads[places] = np.array(special, dtype)
    return grads


def make_params(n: int, dtype: Any, seed: int = 1) -> np.ndarray:
    """n parameters of ordinary size, with -0, a denormal and an infinity among the many."""
    rng = np.random.default_rng([seed, n])
    params = rng.standard_normal(n).astype(dtype)
    if n >= 32:
        params[rng.choice(n, 3, replace=False)] = np.array([-0.0, np.finfo(dtype).smallest_subnormal, np.inf], dtype)
    return params


def f32(n=8):
    """1, 2, ... n."""
    return np.arange(1, n + 1, dtype=np.float32)


def snapshot(optimizer, *arrays):
    """Everything that a refused call must leave alone."""
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    states = [{k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in s.items()} for s in optimizer.state]
    return [a.tobytes() for a in arrays], states, optimizer.updates, groups


def same_bits(x: np.ndarray | float, y: np.ndarray | float) -> bool:
    """Equal bit for bit; of NaNs only the position counts."""
    x, y = np.asarray(x), np.asarray(y)
    nan = np.isnan(x)
    integer = np.dtype(f"u{x.dtype.itemsize}")
    same = x.view(integer) == y.view(integer)
    return x.dtype == y.dtype and x.shape == y.shape and bool(np.all(same | (nan & np.isnan(y))))
