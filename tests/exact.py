"""The optimizers in exact arithmetic: for each class a function of its name, written from the paper.

A function gets the settings (numbers exact, betas a tuple of them), the number t of the update, and of one element p,
the gradient g and the states; it returns p and the states after the update, by name. The gradient is that which is
descended along: the caller turns it around for maximize.
"""

from __future__ import annotations

from typing import Any

import mpmath

mpmath.mp.prec = 400
mpf = mpmath.mpf

Updated = dict[str, "Term"]

# Half units in the last place by which a formula may be off whose chain of roundings is longer than most.
LIMITS: dict[str, float] = {"adadelta": 8}  # a product with a quotient of roots, squared; the worst was 7.37


class Term:
    """A number and the size of the terms that it was added up from: where they cancel, its rounding errors stay."""

    __slots__ = ("size", "value")

    def __init__(self, value: Any, size: float | None = None) -> None:
        self.value = value
        self.size = abs(float(value)) if size is None else size

    def __add__(self, other: Any) -> Term:
        other = term(other)
        return Term(self.value + other.value, self.size + other.size)

    def __sub__(self, other: Any) -> Term:
        other = term(other)
        return Term(self.value - other.value, self.size + other.size)

    def __mul__(self, other: Any) -> Term:
        other = term(other)
        return Term(self.value * other.value, self.size * other.size)

    def __truediv__(self, other: Any) -> Term:
        other = term(other)
        return Term(self.value / other.value, self.size * other.size / float(other.value) ** 2)

    def __radd__(self, other: Any) -> Term:
        return self + other

    def __rmul__(self, other: Any) -> Term:
        return self * other

    def __rsub__(self, other: Any) -> Term:
        return term(other) - self

    def __rtruediv__(self, other: Any) -> Term:
        return term(other) / self

    def __lt__(self, other: Term) -> bool:
        return self.value < other.value


def term(x: Any) -> Term:
    """A number of which nothing has cancelled."""
    return x if isinstance(x, Term) else Term(mpf(x))


def sqrt(x: Term) -> Term:
    root = mpmath.sqrt(x.value)
    return Term(root, x.size / float(root) if root else 0.0)


def sgd(h: Any, t: int, p: Term, g: Term, momentum_buffer: Term | None = None) -> Updated:
    x = g + h.weight_decay * p
    if momentum_buffer is None:
        return {"param": p - h.lr * x}
    b = x if t == 1 else h.momentum * momentum_buffer + (1 - h.dampening) * x
    u = x + h.momentum * b if h.nesterov else b
    return {"param": p - h.lr * u, "momentum_buffer": b}


def adagrad(h: Any, t: int, p: Term, g: Term, **state: Term) -> Updated:
    x = g + h.weight_decay * p
    ((name, s),) = state.items()
    s = (s * (t - 1) + x * x) / t if h.accumulate == "mean" else s + x * x
    return {"param": p - h.lr / (1 + (t - 1) * h.lr_decay) * x / (sqrt(s) + h.eps), name: s}


def rmsprop(
    h: Any,
    t: int,
    p: Term,
    g: Term,
    square_avg: Term,
    grad_avg: Term | None = None,
    momentum_buffer: Term | None = None,
) -> Updated:
    x = g + h.weight_decay * p
    alpha = mpf(0) if h.initial == "first-gradient" and t == 1 else h.alpha
    v = alpha * square_avg + (1 - alpha) * x * x
    new, variance = {"square_avg": v}, v
    if grad_avg is not None:
        a = new["grad_avg"] = grad_avg + (1 - alpha) * (x - grad_avg)
        variance = v - a * a
    u = x / (sqrt(variance) + h.eps)
    if momentum_buffer is not None:
        u = new["momentum_buffer"] = h.momentum * momentum_buffer + u
    return {"param": p - h.lr * u, **new}


def adam(h: Any, t: int, p: Term, g: Term, **states: Term) -> Updated:
    m, v, new = moments(h, t, g + h.weight_decay * p, **states)
    return {"param": p - h.lr * m / (sqrt(v) + h.eps), **new}


def adamw(h: Any, t: int, p: Term, g: Term, **states: Term) -> Updated:
    m, v, new = moments(h, t, g, **states)
    return {"param": p - h.lr * h.weight_decay * p - h.lr * m / (sqrt(v) + h.eps), **new}


def radam(h: Any, t: int, p: Term, g: Term, **states: Term) -> Updated:
    m, v, new = moments(h, t, g if h.decoupled_weight_decay else g + h.weight_decay * p, **states)
    beta2 = h.betas[1]
    longest = 2 / (1 - beta2) - 1
    length = term(longest) - 2 * t * beta2**t / (1 - beta2**t)
    u = m
    if length.value > 5:
        share = (length - 4) * (length.value - 2) * longest / ((longest - 4) * (longest - 2) * length.value)
        u = sqrt(share) * m / (sqrt(v) + h.eps / mpmath.sqrt(1 - beta2**t))
    decay = h.lr * h.weight_decay * p if h.decoupled_weight_decay else term(0)
    return {"param": p - decay - h.lr * u, **new}


def adadelta(h: Any, t: int, p: Term, g: Term, square_avg: Term, acc_delta: Term) -> Updated:
    x = g + h.weight_decay * p
    v = h.rho * square_avg + (1 - h.rho) * x * x
    delta = sqrt(acc_delta + h.eps) / sqrt(v + h.eps) * x
    a = h.rho * acc_delta + (1 - h.rho) * delta * delta
    return {"param": p - h.lr * delta, "square_avg": v, "acc_delta": a}


def adamax(h: Any, t: int, p: Term, g: Term, exp_avg: Term, exp_inf: Term) -> Updated:
    beta1, beta2 = h.betas
    x = g + h.weight_decay * p
    m = exp_avg + (1 - beta1) * (x - exp_avg)
    s = max(beta2 * exp_inf, max(x, -1 * x) + h.eps)
    return {"param": p - h.lr / (1 - beta1**t) * m / s, "exp_avg": m, "exp_inf": s}


def rprop(h: Any, t: int, p: Term, g: Term, prev: Term, step_size: Term) -> Updated:
    agreement = mpmath.sign(g.value * prev.value)
    s = term(h.lr) if t == 1 else step_size
    if agreement != 0:
        s = s * (h.etas[1] if agreement > 0 else h.etas[0])
    s = min(max(s, term(h.step_sizes[0])), term(h.step_sizes[1]))
    x = term(0) if agreement < 0 else g
    return {"param": p - mpmath.sign(x.value) * s, "prev": x, "step_size": s}


def lion(h: Any, t: int, p: Term, g: Term, exp_avg: Term) -> Updated:
    beta1, beta2 = h.betas
    u = mpmath.sign((beta1 * exp_avg + (1 - beta1) * g).value)
    return {"param": p - h.lr * h.weight_decay * p - h.lr * u, "exp_avg": beta2 * exp_avg + (1 - beta2) * g}


def nadam(h: Any, t: int, p: Term, g: Term, exp_avg: Term, exp_avg_sq: Term, mu_product: Term) -> Updated:
    x = g if h.decoupled_weight_decay else g + h.weight_decay * p
    beta1, beta2 = h.betas
    now, ahead = (beta1 * (1 - mpf(0.96) ** (s * h.momentum_decay) / 2) for s in (t, t + 1))
    product = (1 if t == 1 else mu_product.value) * now
    m = exp_avg + (1 - beta1) * (x - exp_avg)
    v = beta2 * exp_avg_sq + (1 - beta2) * x * x
    direction = (1 - now) / (1 - product) * x + ahead / (1 - product * ahead) * m
    u = direction / (sqrt(v / (1 - beta2**t)) + h.eps)
    decay = h.lr * h.weight_decay * p if h.decoupled_weight_decay else term(0)
    return {"param": p - decay - h.lr * u, "exp_avg": m, "exp_avg_sq": v, "mu_product": term(product)}


def asgd(h: Any, t: int, p: Term, g: Term, ax: Term, eta: Term, mu: Term) -> Updated:
    eta, mu = (term(h.lr), term(1)) if t == 1 else (eta, mu)
    p = p - h.lambd * eta.value * p - eta.value * (g + h.weight_decay * p)
    return {
        "param": p,
        "ax": ax + mu.value * (p - ax),
        "eta": term(h.lr / (1 + h.lambd * h.lr * t) ** h.alpha),
        "mu": term(1 / max(mpf(1), t - h.t0)),
    }


def moments(
    h: Any, t: int, x: Term, exp_avg: Term, exp_avg_sq: Term, max_exp_avg_sq: Term | None = None
) -> tuple[Term, Term, Updated]:
    """First and second moment without bias, and the states."""
    beta1, beta2 = h.betas
    m = exp_avg + (1 - beta1) * (x - exp_avg)
    v = beta2 * exp_avg_sq + (1 - beta2) * x * x
    new = {"exp_avg": m, "exp_avg_sq": v}
    if max_exp_avg_sq is not None:
        v = new["max_exp_avg_sq"] = max(v, max_exp_avg_sq)
    return m / (1 - beta1**t), v / (1 - beta2**t), new
