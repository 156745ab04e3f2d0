"""numba: the fused loop that a Python user writes, one call per tensor, parallel where there are threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from contract import Arrays, Contender, Settings

NAMES = ["numba"]


@numba.njit(parallel=True)  # type: ignore[untyped-decorator]
def _sgd(p: Any, g: Any, s: Any, v: Any, k: Any) -> None:
    for i in numba.prange(p.size):
        p[i] -= k[0] * g[i]


@numba.njit(parallel=True)  # type: ignore[untyped-decorator]
def _momentum(p: Any, g: Any, s: Any, v: Any, k: Any) -> None:
    for i in numba.prange(p.size):
        s[i] = k[1] * s[i] + g[i]
        p[i] -= k[0] * s[i]


@numba.njit(parallel=True)  # type: ignore[untyped-decorator]
def _adagrad(p: Any, g: Any, s: Any, v: Any, k: Any) -> None:
    for i in numba.prange(p.size):
        v[i] += g[i] * g[i]
        p[i] -= k[0] * g[i] / (np.sqrt(v[i]) + k[1])


@numba.njit(parallel=True)  # type: ignore[untyped-decorator]
def _rmsprop(p: Any, g: Any, s: Any, v: Any, k: Any) -> None:
    for i in numba.prange(p.size):
        v[i] = k[1] * v[i] + k[2] * g[i] * g[i]
        p[i] -= k[0] * g[i] / (np.sqrt(v[i]) + k[3])


@numba.njit(parallel=True)  # type: ignore[untyped-decorator]
def _adam(p: Any, g: Any, s: Any, v: Any, k: Any) -> None:
    for i in numba.prange(p.size):
        s[i] = k[1] * s[i] + k[2] * g[i]
        v[i] = k[3] * v[i] + k[4] * g[i] * g[i]
        p[i] = k[7] * p[i] - k[0] * s[i] / (np.sqrt(v[i]) * k[5] + k[6])


_LOOPS = {"sgd": _sgd, "momentum": _momentum, "adagrad": _adagrad, "rmsprop": _rmsprop, "adam": _adam, "adamw": _adam}


def _scalars(rule: str, h: Settings, t: int) -> tuple[float, ...]:
    lr = h["lr"]
    if rule == "sgd":
        return (lr,)
    if rule == "momentum":
        return (lr, h["momentum"])
    if rule == "adagrad":
        return (lr, h["eps"])
    if rule == "rmsprop":
        return (lr, h["alpha"], 1 - h["alpha"], h["eps"])
    b1, b2 = h["beta1"], h["beta2"]
    root = (1 - b2**t) ** 0.5
    return (lr / (1 - b1**t), b1, 1 - b1, b2, 1 - b2, 1 / root, h["eps"], 1 - lr * h.get("weight_decay", 0.0))


def make(name: str, rule: str, settings: Settings, params: Arrays, grads: Arrays, threads: int) -> Contender | None:
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    loop: Callable[..., None] = _LOOPS[rule]
    flat = [
        (p.reshape(-1), g.reshape(-1), np.zeros(p.size, p.dtype), np.zeros(p.size, p.dtype))
        for p, g in zip(params, grads, strict=True)
    ]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        k = tuple(np.float32(x) for x in _scalars(rule, settings, t))
        for p, g, s, v in flat:
            loop(p, g, s, v, k)

    return Contender(name, step, lambda: params)
