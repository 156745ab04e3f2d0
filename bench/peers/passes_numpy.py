"""The statistics of a step in NumPy, as one would write them beside any optimizer: one expression after the other."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from contract import Arrays


class Passes:
    """Sees parameters before and after a step of Adam, its gradients and its states; one thread but for the BLAS."""

    def __init__(self, params: Arrays, grads: Arrays, states: list[Any], lr: float, beta2: float, eps: float) -> None:
        self.params = [p.reshape(-1) for p in params]
        self.grads = [g.reshape(-1) for g in grads]
        self.states = states
        self.lr, self.beta2, self.eps = lr, beta2, eps
        self.moved = [np.zeros_like(p) for p in self.params]
        self.last = [np.zeros_like(p) for p in self.params]
        self.scratch = np.empty(max(p.size for p in self.params), np.float32)
        self.dot = 0.0

    def before(self) -> None:
        for moved, p in zip(self.moved, self.params, strict=True):
            moved[...] = p

    def norms(self) -> dict[str, float]:
        grad_sq = param_sq = update_sq = grad_max = update_max = 0.0
        for g, p, d in zip(self.grads, self.params, self.moved, strict=True):
            grad_sq += float(np.vdot(g, g))
            param_sq += float(np.vdot(d, d))  # still the parameters before the step
            np.subtract(p, d, out=d)
            update_sq += float(np.vdot(d, d))
            grad_max = max(grad_max, float(g.max()), -float(g.min()))
            update_max = max(update_max, float(d.max()), -float(d.min()))
        return {
            "grad_norm": sqrt(grad_sq),
            "param_norm": sqrt(param_sq),
            "update_norm": sqrt(update_sq),
            "update_ratio": sqrt(update_sq / param_sq),
            "grad_max": grad_max,
            "update_max": update_max,
        }

    def everything(self) -> dict[str, float]:
        result = self.norms()
        nan = inf = zero = lost = turned = dominated = dot = dot_last = last_sq = grad_sq = 0.0
        smallest = np.inf
        rates = np.zeros(64)
        for g, d, last, state in zip(self.grads, self.moved, self.last, self.states, strict=True):
            nan += np.count_nonzero(np.isnan(g))
            inf += np.count_nonzero(np.isinf(g))
            zero += g.size - np.count_nonzero(g)
            lost += np.count_nonzero((d == 0) & (state["exp_avg"].reshape(-1) != 0))
            dot += float(np.vdot(g, d))
            dot_last += float(np.vdot(g, last))
            last_sq += float(np.vdot(last, last))
            product = np.multiply(g, last, out=self.scratch[: g.size])
            turned += np.count_nonzero(product > 0)
            sigma = np.sqrt(state["exp_avg_sq"].reshape(-1), out=self.scratch[: g.size])
            sigma *= np.float32(1 / sqrt(1 - self.beta2 ** state["step"]))
            dominated += np.count_nonzero(sigma < self.eps)
            sigma += np.float32(self.eps)
            smallest = min(smallest, float(sigma.min()))
            rates += np.histogram(np.log2(self.lr / sigma[::64]), bins=64, range=(-32, 32))[0]
        grad_sq = result["grad_norm"] ** 2
        elements = sum(g.size for g in self.grads)
        curvature = dot_last - self.dot
        with np.errstate(all="ignore"):
            result |= {
                "nan": nan,
                "inf": inf,
                "zero": zero,
                "lost": lost,
                "dot": dot,
                "cosine": float(np.divide(dot_last, sqrt(grad_sq * last_sq))),
                "bounce": turned / elements,
                "sharpness": float(np.divide(curvature, last_sq)),
                "sharpness_limit": float(np.divide(-2 * self.dot, last_sq)),
                "minimum": float(np.divide(-self.dot, curvature)),
                "rate_max": self.lr / smallest,
                "rate_median": float(2.0 ** (np.searchsorted(np.cumsum(rates), rates.sum() / 2) - 31.5)),
                "eps_dominates": dominated / elements,
            }
        self.dot = dot
        self.moved, self.last = self.last, self.moved
        return result
