"""What the tests are run over: every optimizer in every variant, hyper-parameter corners, difficult numbers."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np

import lrfast
from lrfast._engine.table import RULES

# name -> (optimizer class, settings): every rule of the table and every flag at least once.
VARIANTS: dict[str, tuple[type[lrfast.Optimizer], dict[str, Any]]] = {
    "sgd": (lrfast.SGD, {}),
    "sgd-decay-maximize": (lrfast.SGD, {"weight_decay": 0.1, "maximize": True}),
    "momentum": (lrfast.SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "nesterov": (lrfast.SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
    "adagrad": (lrfast.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.01, "initial_accumulator_value": 0.1}),
    "adagrad-mean": (lrfast.Adagrad, {"accumulate": "mean", "lr_decay": 0.01, "maximize": True}),
    "rmsprop": (lrfast.RMSprop, {"weight_decay": 0.01}),
    "rmsprop-first": (lrfast.RMSprop, {"initial": "first-gradient", "alpha": 0.9}),
    "rmsprop-momentum": (lrfast.RMSprop, {"momentum": 0.9, "maximize": True}),
    "rmsprop-momentum-first": (lrfast.RMSprop, {"momentum": 0.9, "initial": "first-gradient"}),
    "rmsprop-centered": (lrfast.RMSprop, {"centered": True, "alpha": 0.9}),
    "rmsprop-centered-momentum": (lrfast.RMSprop, {"centered": True, "momentum": 0.5, "weight_decay": 0.01}),
    "adam": (lrfast.Adam, {}),
    "adam-decay-maximize": (lrfast.Adam, {"weight_decay": 0.1, "maximize": True}),
    "adamw": (lrfast.AdamW, {"weight_decay": 0.1}),
    "amsgrad": (lrfast.Adam, {"amsgrad": True, "weight_decay": 0.01}),
    "adamw-amsgrad": (lrfast.AdamW, {"amsgrad": True}),
    "radam": (lrfast.RAdam, {"betas": (0.9, 0.99), "weight_decay": 0.01, "maximize": True}),
    "radam-decoupled": (lrfast.RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
}

# A class that has no variant above takes part with its defaults.
for _cls in lrfast.optim.all_optimizers():
    if not any(cls is _cls for cls, _ in VARIANTS.values()):
        VARIANTS[_cls.__name__.lower()] = (_cls, {})

_EXTREMES: list[dict[str, Any]] = [
    *[{"lr": x} for x in (0.0, 10.0)],
    *[{"eps": x} for x in (0.0, 1e30)],
    *[{"alpha": x} for x in (0.0, 0.3, 1 - 2**-20)],
    *[{"betas": x} for x in [(0.0, 0.0), (0.5, 0.5), (0.3, 0.99999), (0.99, 0.0), (1 - 2**-53, 1 - 2**-53)]],
]

# Corners of the hyper-parameters: (variant, settings on top of it).
CORNERS: list[tuple[str, dict[str, Any]]] = [
    *[
        (name, extreme)
        for name, (cls, _) in VARIANTS.items()
        for extreme in _EXTREMES
        if set(extreme) <= set(signature(cls).parameters)
    ],
    ("momentum", {"momentum": 1.5}),
    ("momentum", {"dampening": -2.0}),
    ("momentum", {"dampening": 1.0}),
]


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
    states = [{k: v if k == "step" else v.tobytes() for k, v in s.items()} for s in optimizer.state]
    return [a.tobytes() for a in arrays], states, optimizer.updates, groups


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    """Equal bit for bit; of NaNs only the position counts."""
    nan = np.isnan(x)
    integer = np.uint32 if x.dtype == np.float32 else np.uint64
    same = x.view(integer) == y.view(integer)
    return x.dtype == y.dtype and x.shape == y.shape and bool(np.all(same | (nan & np.isnan(y))))


def unused_rules() -> set[str]:
    """Rules of the table that no variant reaches."""
    reached = set()
    for cls, settings in VARIANTS.values():
        optimizer = cls(np.zeros(1), **settings)
        reached |= {optimizer._rule_of(0).name}
    return set(RULES) - reached
