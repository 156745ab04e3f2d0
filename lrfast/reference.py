"""The specification: every update rule once, in NumPy.

The compiled kernels give the same bits as these functions, which are also what runs where there is no extension. They
work in place on float32 or float64 arrays of one dtype and of any shape, check nothing but the presence of states, and
allocate temporaries. ``lrfast.functional`` has the same functions, checked and compiled.

Conventions, as in PyTorch: ``step`` is the number t >= 1 of this update and the caller counts; numbers per step are
computed in float64 and cast once to the dtype of the parameter; ``maximize`` turns the gradient around before decay;
``grad_scale`` multiplies the gradient first. In every rule

    x = grad_scale g + weight_decay p

so that an infinite parameter makes x NaN, also without decay. Moving averages below the smallest normal number become
+0. Where a state is not needed it is None; a missing or superfluous one raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

__all__ = ["adagrad", "adam", "adamw", "radam", "rmsprop", "sgd"]

Array = np.ndarray[Any, Any]


Moved = tuple[Array, Array | None]
"""The update u of the rule (p moves by -u, beside decoupled decay) and what it was divided by, for statistics."""


def _public(function: Callable[..., Moved]) -> Callable[..., None]:
    """Without warnings, since NaN and infinity are results here as in C; and a superfluous buffer is refused.

    Optimizers call ``__wrapped__``: they keep their buffer where a schedule makes momentum 0, and they look at what
    it returns.
    """
    parameters = signature(function)

    @wraps(function)
    def public(*args: Any, **kwargs: Any) -> None:
        given = parameters.bind(*args, **kwargs)
        given.apply_defaults()
        if given.arguments.get("momentum") == 0:
            _need("momentum_buffer", given.arguments["momentum_buffer"], False)
        with np.errstate(all="ignore"):
            function(*args, **kwargs)

    public.__signature__ = parameters.replace(return_annotation=None)  # type: ignore[attr-defined]
    return public


@_public
def sgd(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of stochastic gradient descent, in place.

    .. code-block:: text

        momentum = 0   p -= lr x
        otherwise      b  = momentum b + (1 - dampening) x     (b = x at step 1)
                       p -= lr b                               (nesterov: p -= lr (x + momentum b))

    ``momentum_buffer`` is b, needed exactly if momentum is not 0. Sources: Polyak 1964; Sutskever et al. 2013.
    """
    _need("momentum_buffer", momentum_buffer, momentum != 0 or momentum_buffer is not None)
    c = param.dtype.type
    x = _gradient(param, grad, weight_decay, maximize, grad_scale)
    if momentum_buffer is None:
        u = c(lr) * x
        param[...] = param - u
        return u, None
    first = step == 1
    decay, weight = c(0.0 if first else momentum), c(1.0 if first else 1.0 - dampening)
    grad_lr, buffer_lr = (lr, lr * momentum) if nesterov else (0.0, lr)
    b = _flush(decay * momentum_buffer + weight * x)
    u = c(grad_lr) * x + c(buffer_lr) * b
    param[...] = param - u
    momentum_buffer[...] = b
    return u, None


@_public
def adagrad(
    param: Array,
    grad: Array,
    sum: Array,
    *,
    step: int,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    accumulate: str = "sum",
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Adagrad, in place.

    .. code-block:: text

        s += x^2,  p -= lr_t x / (sqrt(s) + eps),   lr_t = lr / (1 + (t-1) lr_decay)

    With ``accumulate="mean"`` s is the mean of all squares so far in place of their sum: the rule of RMSprop with
    alpha_t = (t-1)/t; ``sum`` then is what the optimizer calls ``square_avg``. Source: Duchi, Hazan, Singer 2011.
    """
    c = param.dtype.type
    x = _gradient(param, grad, weight_decay, maximize, grad_scale)
    s = _second_moment(sum, x, float(step - 1) / float(step)) if accumulate == "mean" else sum + x * x
    d = np.sqrt(s) + c(eps)
    u = c(decayed_lr(lr, lr_decay, step)) * x / d
    param[...] = param - u
    sum[...] = s
    return u, d


@_public
def rmsprop(
    param: Array,
    grad: Array,
    square_avg: Array,
    grad_avg: Array | None = None,
    momentum_buffer: Array | None = None,
    *,
    step: int,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    initial: str = "zero",
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of RMSprop, in place.

    .. code-block:: text

        v  = alpha v + (1 - alpha) x^2        (initial="first-gradient": v = x^2 at step 1)
        a += (1 - alpha) (x - a),  d = sqrt(max(v - a^2, 0)) + eps     (centered; otherwise d = sqrt(v) + eps)
        p -= lr x / d                         (momentum: b = momentum b + x / d,  p -= lr b)

    ``square_avg`` is v, ``grad_avg`` a (needed if centered), ``momentum_buffer`` b (needed if momentum is not 0).
    Sources: Hinton 2012, lecture 6e; Graves 2013, arXiv:1308.0850 (centered).
    """
    _need("grad_avg", grad_avg, centered)
    _need("momentum_buffer", momentum_buffer, momentum != 0 or momentum_buffer is not None)
    c = param.dtype.type
    if step == 1 and initial == "first-gradient":
        alpha = 0.0
    x = _gradient(param, grad, weight_decay, maximize, grad_scale)
    v = _second_moment(square_avg, x, alpha)
    a = b = None
    variance = v
    if grad_avg is not None:
        a = _flush(_towards(grad_avg, x, c(1 - alpha)))
        variance = v - a * a
        variance = np.where(variance < 0, c(0), variance)
    d = np.sqrt(variance) + c(eps)
    if momentum_buffer is None:
        u = c(lr) * x / d
    else:
        b = _flush(c(momentum) * momentum_buffer + x / d)
        u = c(lr) * b
    param[...] = param - u
    square_avg[...] = v
    if grad_avg is not None:
        grad_avg[...] = a
    if momentum_buffer is not None:
        momentum_buffer[...] = b
    return u, d


@_public
def adam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of Adam, in place.

    .. code-block:: text

        m += (1 - beta1) (x - m)
        v  = beta2 v + (1 - beta2) x^2
        p -= (lr / c1) m / (sqrt(v) / sqrt(c2) + eps),    ci = 1 - betai^t

    ``exp_avg`` is m, ``exp_avg_sq`` v. ``amsgrad`` divides by the root of the largest v so far,
    ``max_exp_avg_sq``. Sources: Kingma & Ba 2015, arXiv:1412.6980; Reddi et al. 2018, arXiv:1904.09237.
    """
    x = _gradient(param, grad, weight_decay, maximize, grad_scale)
    _need("max_exp_avg_sq", max_exp_avg_sq, amsgrad)
    numbers = adam_numbers(step, lr, betas, eps)
    return _apply_adam(param, x, exp_avg, exp_avg_sq, max_exp_avg_sq, betas, numbers, keep=1.0)


@_public
def adamw(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of AdamW, in place: Adam on the gradient alone, and p shrinks by itself.

    .. code-block:: text

        p = (1 - lr weight_decay) p - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)

    States as in :func:`adam`. Source: Loshchilov & Hutter 2019, arXiv:1711.05101.
    """
    x = _gradient(param, grad, 0.0, maximize, grad_scale)
    keep = 1.0 - lr * weight_decay
    _need("max_exp_avg_sq", max_exp_avg_sq, amsgrad)
    numbers = adam_numbers(step, lr, betas, eps)
    return _apply_adam(param, x, exp_avg, exp_avg_sq, max_exp_avg_sq, betas, numbers, keep)


@_public
def radam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Moved:
    """One update of RAdam, in place: Adam that trusts its second moment only as far as its variance is known.

    .. code-block:: text

        rho_inf = 2 / (1 - beta2) - 1,  rho = rho_inf - 2 t beta2^t / c2,    m, v, ci as in Adam
        rho > 5     p -= (lr / c1) r sqrt(c2) m / (sqrt(v) + eps)
                    r  = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        otherwise   p -= (lr / c1) m        (as m / (0 sqrt(v) + 1), so that an infinite v makes p NaN)

    ``exp_avg`` is m, ``exp_avg_sq`` v. ``decoupled_weight_decay`` shrinks p by itself, as in :func:`adamw`.
    Source: Liu et al. 2020, arXiv:1908.03265; PyTorch's threshold, 5.
    """
    x = _gradient(param, grad, 0.0 if decoupled_weight_decay else weight_decay, maximize, grad_scale)
    keep = 1.0 - lr * (weight_decay if decoupled_weight_decay else 0.0)
    numbers = radam_numbers(step, lr, betas, eps)
    return _apply_adam(param, x, exp_avg, exp_avg_sq, None, betas, numbers, keep)


# ---- what the rules share ------------------------------------------------------------------------------------


def one_minus_power(base: float, exponent: int) -> float:
    """1 - base**exponent, for 0 <= base < 1 and exponent >= 1, without libm.

    In integers: the power as a fraction of 2**128, each product truncated. Correctly rounded wherever it was tried.
    """
    q = int(math.ldexp(base, 128))
    power = q
    for bit in bin(exponent)[3:]:
        power = power * power >> 128
        if bit == "1":
            power = power * q >> 128
    return math.ldexp(float((1 << 128) - power), -128)


def decayed_lr(lr: float, lr_decay: float, step: int) -> float:
    """lr of update `step` under lr_decay."""
    return lr / (1 + (step - 1) * lr_decay)


class AdamNumbers(NamedTuple):
    """The numbers of one update of the Adam family: u = step_size m / (sqrt(v) correction2 + eps)."""

    step_size: float
    correction2: float
    eps: float
    rate: float  # the learning rate in eta/sigma: step_size without bias correction


def adam_numbers(step: int, lr: float, betas: tuple[float, float], eps: float) -> AdamNumbers:
    """Those of Adam."""
    step_size = lr / one_minus_power(betas[0], step)
    return AdamNumbers(step_size, 1 / math.sqrt(one_minus_power(betas[1], step)), eps, lr)


def radam_numbers(step: int, lr: float, betas: tuple[float, float], eps: float) -> AdamNumbers:
    """Those of RAdam: without a denominator until the variance of the second moment is known."""
    step_size = lr / one_minus_power(betas[0], step)
    c2 = one_minus_power(betas[1], step)
    rho_inf = 2 / (1 - betas[1]) - 1
    rho = rho_inf - 2 * float(step) * (1 - c2) / c2
    if rho > 5:
        r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        return AdamNumbers(step_size * (r * math.sqrt(c2)), 1.0, eps, lr * (r * math.sqrt(c2)))
    return AdamNumbers(step_size, 0.0, 1.0, lr)


def adam_update(m: Array, v: Array, numbers: AdamNumbers) -> tuple[Array, Array]:
    """u and its denominator from the moments after an update."""
    c = m.dtype.type
    d = np.sqrt(v) * c(numbers.correction2) + c(numbers.eps)
    u = c(numbers.step_size) * m / d
    return u, d


def _apply_adam(
    param: Array,
    x: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None,
    betas: tuple[float, float],
    numbers: AdamNumbers,
    keep: float,
) -> Moved:
    """Moments, then p = keep p - u."""
    c = param.dtype.type
    beta1, beta2 = betas
    m = _flush(_towards(exp_avg, x, c(1 - beta1)))
    v = _second_moment(exp_avg_sq, x, beta2)
    largest = v
    if max_exp_avg_sq is not None:
        largest = np.where((max_exp_avg_sq >= v) | np.isnan(max_exp_avg_sq), max_exp_avg_sq, v)
    u, d = adam_update(m, largest, numbers)
    param[...] = c(keep) * param - u
    exp_avg[...] = m
    exp_avg_sq[...] = v
    if max_exp_avg_sq is not None:
        max_exp_avg_sq[...] = largest
    return u, d


def _gradient(param: Array, grad: Array, weight_decay: float, maximize: bool, grad_scale: float) -> Array:
    """x = grad_scale g + weight_decay p."""
    c = param.dtype.type
    x: Array = c(-grad_scale if maximize else grad_scale) * grad + c(weight_decay) * param
    return x


def _second_moment(average: Array, x: Array, decay: float) -> Array:
    c = average.dtype.type
    return _flush(c(decay) * average + c(1 - decay) * x * x)


def _towards(start: Array, end: Array, weight: Any) -> Array:
    """(1 - weight) start + weight end, exact at both ends."""
    difference = end - start
    near: Array = start + weight * difference if weight < 0.5 else end - (type(weight)(1) - weight) * difference
    return near


def _flush(x: Array) -> Array:
    """+0 in place of what is below the smallest normal number, so that denormals never slow a run down."""
    return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x.dtype.type(0), x)


def _need(name: str, state: Array | None, needed: bool) -> None:
    if needed and state is None:
        raise ValueError(f"{name}: this variant needs the state {name}, got None")
    if not needed and state is not None:
        raise ValueError(f"{name}: this variant has no state {name}, got an array")
