"""The same updates as people write them in NumPy: what the demo and the benchmark compare lrfast with.

Two forms of each. ``naive``: one expression per line, as in a textbook, with temporaries. ``inplace``: what a careful
NumPy user writes, no temporaries, one preallocated scratch array (two with coupled weight decay), ``out=`` everywhere.
Formulas, settings and defaults are those of the optimizers; results agree to rounding. Left out are what lrfast does
on top and plain NumPy code does not: checks, schedules, and averages that become 0 below the smallest normal number.

An optimizer that nobody wrote here takes part with its reference in both forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import Parameter, signature
from itertools import count
from math import sqrt
from typing import Any, Literal

import numpy as np

from ... import optim, reference
from ..._engine.arithmetic import Array
from ..._engine.specification import state_arguments
from ..._engine.table import RULES

__all__ = ["UNWRITTEN", "VARIANTS", "Kind", "make_step"]

Kind = Literal["naive", "inplace"]

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adagrad-mean": ("Adagrad", {"accumulate": "mean"}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop-momentum": ("RMSprop", {"momentum": 0.9}),
    "rmsprop-centered": ("RMSprop", {"centered": True}),
    "rmsprop-centered-momentum": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "radam": ("RAdam", {}),
}
"""variant -> (name of the lrfast class, what it is constructed with): the twin of each step."""

UNWRITTEN = {cls.__name__.lower(): cls.__name__ for cls in optim.all_optimizers()}
"""variant -> name of the lrfast class, where the step is the reference."""
for _name, _ in VARIANTS.values():
    UNWRITTEN.pop(_name.lower(), None)
VARIANTS |= {variant: (name, {}) for variant, name in UNWRITTEN.items()}


def make_step(kind: Kind, variant: str, param: Array, grad: Array, settings: Mapping[str, Any]) -> Callable[[], None]:
    """A function that updates ``param`` in place from what ``grad`` then holds, once per call.

    ``variant`` is a key of :data:`VARIANTS`; ``settings`` are constant numbers under PyTorch's names, on top of the
    variant's own. The first call allocates the state. Raises KeyError or TypeError for what does not exist.
    """
    optimizer, options = VARIANTS[variant]
    rule = partial(_reference, optimizer.lower()) if variant in UNWRITTEN else _RULES[kind][optimizer]
    return rule(param, grad, **{**_defaults(optimizer, rule), **options, **settings}).__next__


def _defaults(optimizer: str, rule: Callable[..., Any]) -> dict[str, Any]:
    """Those of the specification, for what this rule can be told."""
    known, specified = signature(rule).parameters, signature(getattr(reference, optimizer.lower())).parameters
    return {name: s.default for name, s in specified.items() if name in known and s.default is not Parameter.empty}


# Each rule is a generator: its states are local variables, and each update ends at a yield.


def _reference(name: str, p: Array, g: Array, **settings: Any) -> Iterator[None]:
    update = getattr(reference, name)
    carried = {number for rule in RULES.values() for number in rule.carried}
    states = [np.zeros(1) if state in carried else np.zeros_like(p) for state in state_arguments(update)]
    for t in count(1):
        update(p, g, *states, step=t, **settings)
        yield


def _naive_sgd(
    p: Array, g: Array, *, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> Iterator[None]:
    b = np.zeros_like(p)
    while True:
        x = g + weight_decay * p if weight_decay else g
        if momentum:
            b = momentum * b + x
            x = x + momentum * b if nesterov else b
        p -= lr * x
        yield


def _inplace_sgd(
    p: Array, g: Array, *, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> Iterator[None]:
    b, scratch, decayed = np.zeros_like(p), np.empty_like(p), np.empty_like(p)
    while True:
        x = _decay(p, g, weight_decay, decayed)
        if momentum:
            b *= momentum
            b += x
        if nesterov:
            np.multiply(b, momentum, out=scratch)
            scratch += x
            scratch *= lr
        else:
            np.multiply(b if momentum else x, lr, out=scratch)
        p -= scratch
        yield


def _naive_adagrad(
    p: Array, g: Array, *, lr: float, weight_decay: float, eps: float, accumulate: str
) -> Iterator[None]:
    s = np.zeros_like(p)
    for t in count(1):
        x = g + weight_decay * p if weight_decay else g
        s = s + x**2 if accumulate == "sum" else ((t - 1) / t) * s + (1 / t) * x**2
        p -= lr * x / (np.sqrt(s) + eps)
        yield


def _inplace_adagrad(
    p: Array, g: Array, *, lr: float, weight_decay: float, eps: float, accumulate: str
) -> Iterator[None]:
    s, scratch, decayed = np.zeros_like(p), np.empty_like(p), np.empty_like(p)
    for t in count(1):
        x = _decay(p, g, weight_decay, decayed)
        np.multiply(x, x, out=scratch)
        if accumulate == "mean":
            s *= (t - 1) / t
            scratch *= 1 / t
        s += scratch
        np.sqrt(s, out=scratch)
        scratch += eps
        np.divide(x, scratch, out=scratch)
        scratch *= lr
        p -= scratch
        yield


def _naive_rmsprop(
    p: Array,
    g: Array,
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
) -> Iterator[None]:
    v, a, b = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    while True:
        x = g + weight_decay * p if weight_decay else g
        v = alpha * v + (1 - alpha) * x**2
        variance = v
        if centered:
            a = alpha * a + (1 - alpha) * x
            variance = np.maximum(v - a**2, 0)
        u = x / (np.sqrt(variance) + eps)
        if momentum:
            u = b = momentum * b + u
        p -= lr * u
        yield


def _inplace_rmsprop(
    p: Array,
    g: Array,
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
) -> Iterator[None]:
    v, a, b = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    scratch, decayed = np.empty_like(p), np.empty_like(p)
    while True:
        x = _decay(p, g, weight_decay, decayed)
        _average_of_squares(v, x, alpha, scratch)
        if centered:
            _average(a, x, alpha, scratch)
            np.multiply(a, a, out=scratch)
            np.subtract(v, scratch, out=scratch)
            np.maximum(scratch, 0, out=scratch)
            np.sqrt(scratch, out=scratch)
        else:
            np.sqrt(v, out=scratch)
        scratch += eps
        np.divide(x, scratch, out=scratch)
        if momentum:
            b *= momentum
            b += scratch
            np.multiply(b, lr, out=scratch)
        else:
            scratch *= lr
        p -= scratch
        yield


def _naive_adam(
    p: Array,
    g: Array,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    decoupled: bool = False,
) -> Iterator[None]:
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    beta1, beta2 = betas
    for t in count(1):
        x = g + weight_decay * p if weight_decay and not decoupled else g
        m = beta1 * m + (1 - beta1) * x
        v = beta2 * v + (1 - beta2) * x**2
        m_hat = m / (1 - beta1**t)
        if amsgrad:
            largest = np.maximum(largest, v)
        v_hat = (largest if amsgrad else v) / (1 - beta2**t)
        if decoupled:
            p *= 1 - lr * weight_decay
        p -= lr * m_hat / (np.sqrt(v_hat) + eps)
        yield


def _inplace_adam(
    p: Array,
    g: Array,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    decoupled: bool = False,
) -> Iterator[None]:
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    scratch, decayed = np.empty_like(p), np.empty_like(p)
    beta1, beta2 = betas
    for t in count(1):
        x = _decay(p, g, 0.0 if decoupled else weight_decay, decayed)
        _average(m, x, beta1, scratch)
        _average_of_squares(v, x, beta2, scratch)
        if amsgrad:
            np.maximum(largest, v, out=largest)
        # Kingma & Ba, end of section 2: both corrections in the step size and eps, so that no pass is spent on them.
        root = sqrt(1 - beta2**t)
        np.sqrt(largest if amsgrad else v, out=scratch)
        scratch += eps * root
        np.divide(m, scratch, out=scratch)
        scratch *= lr * root / (1 - beta1**t)
        if decoupled:
            p *= 1 - lr * weight_decay
        p -= scratch
        yield


def _naive_radam(
    p: Array, g: Array, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> Iterator[None]:
    m, v = np.zeros_like(p), np.zeros_like(p)
    beta1, beta2 = betas
    for t in count(1):
        x = g + weight_decay * p if weight_decay else g
        m = beta1 * m + (1 - beta1) * x
        v = beta2 * v + (1 - beta2) * x**2
        m_hat = m / (1 - beta1**t)
        r = _rectification(beta2, t)
        p -= lr * r * m_hat * sqrt(1 - beta2**t) / (np.sqrt(v) + eps) if r else lr * m_hat
        yield


def _inplace_radam(
    p: Array, g: Array, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> Iterator[None]:
    m, v = np.zeros_like(p), np.zeros_like(p)
    scratch, decayed = np.empty_like(p), np.empty_like(p)
    beta1, beta2 = betas
    for t in count(1):
        x = _decay(p, g, weight_decay, decayed)
        _average(m, x, beta1, scratch)
        _average_of_squares(v, x, beta2, scratch)
        r = _rectification(beta2, t)
        if r:
            np.sqrt(v, out=scratch)
            scratch += eps
            np.divide(m, scratch, out=scratch)
            scratch *= lr * r * sqrt(1 - beta2**t) / (1 - beta1**t)
        else:
            np.multiply(m, lr / (1 - beta1**t), out=scratch)
        p -= scratch
        yield


def _rectification(beta2: float, t: int) -> float:
    """RAdam's r, or 0 where its step is not divided by the second moment yet."""
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    return sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) if rho > 5 else 0.0


def _decay(p: Array, g: Array, weight_decay: float, decayed: Array) -> Array:
    """The gradient with coupled decay, g + weight_decay p: in ``decayed``, or g itself."""
    if not weight_decay:
        return g
    np.multiply(p, weight_decay, out=decayed)
    decayed += g
    return decayed


def _average(average: Array, x: Array, beta: float, scratch: Array) -> None:
    """In place: average = beta average + (1 - beta) x."""
    average *= beta
    np.multiply(x, 1 - beta, out=scratch)
    average += scratch


def _average_of_squares(average: Array, x: Array, beta: float, scratch: Array) -> None:
    """In place: average = beta average + (1 - beta) x^2."""
    average *= beta
    np.multiply(x, x, out=scratch)
    scratch *= 1 - beta
    average += scratch


_RULES: dict[Kind, dict[str, Callable[..., Iterator[None]]]] = {
    "naive": {
        "SGD": _naive_sgd,
        "Adagrad": _naive_adagrad,
        "RMSprop": _naive_rmsprop,
        "Adam": _naive_adam,
        "AdamW": partial(_naive_adam, decoupled=True),
        "RAdam": _naive_radam,
    },
    "inplace": {
        "SGD": _inplace_sgd,
        "Adagrad": _inplace_adagrad,
        "RMSprop": _inplace_rmsprop,
        "Adam": _inplace_adam,
        "AdamW": partial(_inplace_adam, decoupled=True),
        "RAdam": _inplace_radam,
    },
}
