"""Schedules: hyper-parameters as pure functions of t, the number of completed updates.

s(0) is used by the first update. The value depends on t alone, in closed form: resuming at t gives the same value as
arriving there. After their end schedules hold their last value. They are picklable, compare by value, and compose:
``s.warmup(500)``, ``join([s1, s2], [1000])``, ``s1 * s2``, ``s * 0.5``. Any callable t -> float does as well.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "inverse_time",
    "join",
    "linear",
    "multistep",
    "polynomial",
    "step",
]

# Names are lower case because they read as functions: schedules.cosine(1e-3, steps=1000).


class Schedule:
    """A function of an integer t >= 0 that composes."""

    def __call__(self, t: int) -> float:
        raise TypeError(f"{type(self).__name__} must define __call__(t)")

    def warmup(self, steps: int, start: str = "one-over-steps") -> Schedule:
        """This schedule after a linear ramp to its first value during the first ``steps`` updates.

        s(0) (t+1)/steps for t < steps, then s(t - steps). ``start="zero"`` ramps with t/steps instead, so that the
        first update does nothing.
        """
        return Warmup(self, _count("steps", steps, 0), start)

    def __mul__(self, other: Callable[[int], float] | float) -> Schedule:
        return Product(self, other if callable(other) else constant(other))

    __rmul__ = __mul__


@dataclass(frozen=True)
class constant(Schedule):
    """lr at all times."""

    lr: float

    def __post_init__(self) -> None:
        _finite("lr", self.lr)

    def __call__(self, t: int) -> float:
        return self.lr


@dataclass(frozen=True)
class polynomial(Schedule):
    """end + (lr - end) (1 - t/steps)^power, then end."""

    lr: float
    end: float
    steps: int
    power: float = 1.0

    def __post_init__(self) -> None:
        _finite("lr", self.lr)
        _finite("end", self.end)
        _count("steps", self.steps, 1)
        if not (math.isfinite(self.power) and self.power > 0):
            raise ValueError(f"power: expected a finite number > 0, got {self.power!r}")

    def __call__(self, t: int) -> float:
        if t >= self.steps:
            return self.end
        return self.end + (self.lr - self.end) * math.pow(1 - t / self.steps, self.power)


def linear(lr: float, end: float, steps: int) -> Schedule:
    """From lr to end in ``steps`` equal steps, then end."""
    return polynomial(lr, end, steps)


@dataclass(frozen=True)
class cosine(Schedule):
    """end + (lr - end) (1 + cos(pi t/steps)) / 2, then end (Loshchilov & Hutter 2017, without restarts)."""

    lr: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _finite("lr", self.lr)
        _finite("end", self.end)
        _count("steps", self.steps, 1)

    def __call__(self, t: int) -> float:
        if t >= self.steps:
            return self.end
        return self.end + (self.lr - self.end) * (1 + math.cos(math.pi * t / self.steps)) / 2


@dataclass(frozen=True)
class step(Schedule):
    """lr gamma^floor(t / every)."""

    lr: float
    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _finite("lr", self.lr)
        _count("every", self.every, 1)
        _finite("gamma", self.gamma)

    def __call__(self, t: int) -> float:
        return self.lr * _power(self.gamma, t // self.every)


@dataclass(frozen=True)
class multistep(Schedule):
    """lr gamma^k after k of the milestones, which take effect at t = milestone."""

    lr: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _finite("lr", self.lr)
        _finite("gamma", self.gamma)
        object.__setattr__(self, "milestones", _increasing("milestones", self.milestones))

    def __call__(self, t: int) -> float:
        return self.lr * _power(self.gamma, bisect_right(self.milestones, t))


@dataclass(frozen=True)
class exponential(Schedule):
    """lr gamma^t."""

    lr: float
    gamma: float

    def __post_init__(self) -> None:
        _finite("lr", self.lr)
        _finite("gamma", self.gamma)

    def __call__(self, t: int) -> float:
        return self.lr * _power(self.gamma, t)


@dataclass(frozen=True)
class inverse_time(Schedule):
    """lr / (1 + rate t)."""

    lr: float
    rate: float

    def __post_init__(self) -> None:
        _finite("lr", self.lr)
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise ValueError(f"rate: expected a finite number >= 0, got {self.rate!r}")

    def __call__(self, t: int) -> float:
        return self.lr / (1 + self.rate * t)


@dataclass(frozen=True)
class inverse_sqrt(Schedule):
    """lr / sqrt(t + 1)."""

    lr: float

    def __post_init__(self) -> None:
        _finite("lr", self.lr)

    def __call__(self, t: int) -> float:
        return self.lr / math.sqrt(t + 1)


@dataclass(frozen=True)
class Warmup(Schedule):
    """What ``Schedule.warmup`` returns."""

    schedule: Callable[[int], float]
    steps: int
    start: str = "one-over-steps"

    def __post_init__(self) -> None:
        if self.start not in ("one-over-steps", "zero"):
            raise ValueError(f"start: expected 'one-over-steps' or 'zero', got {self.start!r}")

    def __call__(self, t: int) -> float:
        if t >= self.steps:
            return self.schedule(t - self.steps)
        return self.schedule(0) * ((t + (self.start != "zero")) / self.steps)


@dataclass(frozen=True)
class Product(Schedule):
    """What ``s1 * s2`` returns."""

    first: Callable[[int], float]
    second: Callable[[int], float]

    def __call__(self, t: int) -> float:
        return self.first(t) * self.second(t)


@dataclass(frozen=True)
class join(Schedule):
    """schedules[i](t - boundaries[i-1]) from t = boundaries[i-1] on: each piece counts from its own beginning."""

    schedules: Sequence[Callable[[int], float]]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", tuple(self.schedules))
        object.__setattr__(self, "boundaries", _increasing("boundaries", self.boundaries))
        if len(self.schedules) != len(self.boundaries) + 1:
            raise ValueError(
                f"boundaries: expected {max(len(self.schedules) - 1, 0)} for {len(self.schedules)} schedules, "
                f"got {len(self.boundaries)}"
            )

    def __call__(self, t: int) -> float:
        i = bisect_right(self.boundaries, t)
        return self.schedules[i](t - self.boundaries[i - 1] if i else t)


def _finite(name: str, x: Any) -> None:
    if not math.isfinite(x):
        raise ValueError(f"{name}: expected a finite number, got {x!r}")


def _count(name: str, n: Any, least: int) -> int:
    if isinstance(n, bool) or n != int(n) or n < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {n!r}")
    return int(n)


def _increasing(name: str, values: Sequence[int]) -> tuple[int, ...]:
    counts = tuple(_count(name, value, 1) for value in values)
    if any(a >= b for a, b in pairwise(counts)):
        raise ValueError(f"{name}: expected increasing integers, got {values!r}")
    return counts


def _power(base: float, exponent: int) -> float:
    """base ** exponent, infinite where Python would raise OverflowError."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf
