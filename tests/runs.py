"""Small problems whose runs have a known verdict, followed by a Monitor."""

from __future__ import annotations

import numpy as np

import lrfast

BOWL = np.array([0.01, 200.0])  # the lecture's
HILLY = np.logspace(-1, 1, 20)
START = np.array([-5.0, 0.5])


class Quadratic:
    """sum h (p - centre)^2 / 2, with normal noise on the gradient and on the loss, as minibatches have it."""

    def __init__(self, h, *, centre=0.0, grad_noise=0.0, loss_noise=0.0, seed=0, scale=1.0, shift=0.0):
        self.h, self.centre, self.scale, self.shift = np.asarray(h, float), centre, scale, shift
        self.grad_noise, self.loss_noise = grad_noise, loss_noise
        self.rng = np.random.default_rng(seed)

    def __call__(self, p):
        q = p.astype(np.float64) - self.centre
        noise = self.grad_noise * self.rng.standard_normal(q.shape) if self.grad_noise else np.zeros(q.shape)
        loss = (self.h * q * q).sum() / 2
        if self.loss_noise:
            loss += noise @ q + self.loss_noise * self.rng.standard_normal()
        return self.scale * loss + self.shift, self.scale * (self.h * q + noise)


def rosenbrock(p):
    x, y = p
    gradient = np.array([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)])
    return 100 * (y - x * x) ** 2 + (1 - x) ** 2, gradient


def walls(p):
    """A valley between two straight walls: sum sqrt(1 + p^2)."""
    root = np.sqrt(1 + p * p)
    return root.sum(), p / root


def follow(problem, start, steps, cls=lrfast.SGD, *, report=lambda loss: loss, **options):
    """The Monitor of a run of so many steps; problem(p) gives the loss and its gradient."""
    point = np.array(start)
    optimizer = cls(point, **options)
    monitor = lrfast.Monitor(optimizer)
    for _ in range(steps):
        loss, gradient = problem(point)
        optimizer.step(gradient.astype(point.dtype))
        monitor.update(report(loss))
    return monitor
