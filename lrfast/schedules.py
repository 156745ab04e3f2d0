"""Schedules: hyper-parameters as pure functions of t, the number of completed updates.

s(0) is used by the first update. The value depends on t alone, in closed form: resuming at t gives the same value as
arriving there. After their end schedules hold their last value. They are picklable, compare by value, and compose:
``s.warmup(500)``, ``join([s1, s2], [1000])``, ``s1 * s2``, ``s * 0.5``. Any callable t -> float does as well.

Values have the same bits everywhere: they are made of + - * / sqrt and the functions of ``elementary.py``. Constructors
raise TypeError (not a number) or ValueError (not finite, out of range), which name schedule and argument.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ._engine.backend import elementary
from ._engine.checks import real

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "ema_warmup",
    "equal_weight",
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
        return Warmup(self, steps, start)

    def __mul__(self, other: Callable[[int], float] | float) -> Schedule:
        return Product(self, other if callable(other) else constant(other))

    __rmul__ = __mul__

    def _check_number(self, name: str, expected: str = "a finite number", above: float = -math.inf) -> None:
        """Replaces an argument by the float that it is."""
        x = self._converted(name, getattr(self, name), float, expected)
        if not above < x < math.inf:
            raise ValueError(f"{self._label(name)}: expected {expected}, got {x!r}")
        object.__setattr__(self, name, x)

    def _check_count(self, name: str, least: int) -> None:
        """Replaces an argument by the int that it is."""
        object.__setattr__(self, name, self._counted(name, getattr(self, name), least))

    def _check_increasing(self, name: str) -> None:
        """Replaces an argument by the tuple of increasing counts that it is."""
        values = getattr(self, name)
        if isinstance(values, str) or not hasattr(values, "__iter__"):
            raise TypeError(f"{self._label(name)}: expected a sequence of integers, got {values!r}")
        counts = tuple(self._counted(name, value, 1) for value in values)
        if any(a >= b for a, b in pairwise(counts)):
            raise ValueError(f"{self._label(name)}: expected increasing integers, got {values!r}")
        object.__setattr__(self, name, counts)

    def _counted(self, name: str, value: Any, least: int) -> int:
        expected = f"an integer >= {least}"
        n: int = self._converted(name, value, int, expected)
        if n != value or n < least:
            raise ValueError(f"{self._label(name)}: expected {expected}, got {value!r}")
        return n

    def _converted(self, name: str, value: Any, kind: type, expected: str) -> Any:
        try:
            x = real(value)
            return x if kind is float else kind(value)
        except TypeError:
            raise TypeError(f"{self._label(name)}: expected {expected}, got {value!r}") from None
        except (ValueError, OverflowError):
            raise ValueError(f"{self._label(name)}: expected {expected}, got {value!r}") from None

    def _label(self, name: str) -> str:
        return f"{type(self).__name__.lower()}: {name}"


@dataclass(frozen=True)
class constant(Schedule):
    """lr at all times."""

    lr: float

    def __post_init__(self) -> None:
        self._check_number("lr")

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
        self._check_number("lr")
        self._check_number("end")
        self._check_count("steps", 1)
        self._check_number("power", "a finite number > 0", above=0)

    def __call__(self, t: int) -> float:
        if t >= self.steps:
            return self.end
        return self.end + _product(self.lr - self.end, elementary.power(1 - t / self.steps, self.power))


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
        self._check_number("lr")
        self._check_number("end")
        self._check_count("steps", 1)

    def __call__(self, t: int) -> float:
        if t >= self.steps:
            return self.end
        height: float = elementary.cos(math.pi * t / self.steps)
        return self.end + (self.lr - self.end) * ((1 + height) / 2)


@dataclass(frozen=True)
class step(Schedule):
    """lr gamma^floor(t / every)."""

    lr: float
    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._check_number("lr")
        self._check_count("every", 1)
        self._check_number("gamma")

    def __call__(self, t: int) -> float:
        return _product(self.lr, elementary.power(self.gamma, t // self.every))


@dataclass(frozen=True)
class multistep(Schedule):
    """lr gamma^k after k of the milestones, which take effect at t = milestone."""

    lr: float
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._check_number("lr")
        self._check_number("gamma")
        self._check_increasing("milestones")

    def __call__(self, t: int) -> float:
        return _product(self.lr, elementary.power(self.gamma, bisect_right(self.milestones, t)))


@dataclass(frozen=True)
class exponential(Schedule):
    """lr gamma^t."""

    lr: float
    gamma: float

    def __post_init__(self) -> None:
        self._check_number("lr")
        self._check_number("gamma")

    def __call__(self, t: int) -> float:
        return _product(self.lr, elementary.power(self.gamma, t))


@dataclass(frozen=True)
class inverse_time(Schedule):
    """lr / (1 + rate t)."""

    lr: float
    rate: float

    def __post_init__(self) -> None:
        self._check_number("lr")
        self._check_number("rate", "a finite number >= 0", above=-math.ulp(0.0))

    def __call__(self, t: int) -> float:
        return self.lr / (1 + self.rate * t)


@dataclass(frozen=True)
class inverse_sqrt(Schedule):
    """lr / sqrt(t + 1)."""

    lr: float

    def __post_init__(self) -> None:
        self._check_number("lr")

    def __call__(self, t: int) -> float:
        return self.lr / math.sqrt(t + 1)


@dataclass(frozen=True)
class ema_warmup(Schedule):
    """min(decay, (1+t) / (10+t)): a decay for ``ema`` that lets early averages forget the start.

    Source: ``num_updates`` of TensorFlow's ExponentialMovingAverage.
    """

    decay: float

    def __post_init__(self) -> None:
        self._check_number("decay", "a number in [0, 1)")
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema_warmup: decay: expected a number in [0, 1), got {self.decay!r}")

    def __call__(self, t: int) -> float:
        return min(self.decay, (1 + t) / (10 + t))


@dataclass(frozen=True)
class equal_weight(Schedule):
    """t / (t+1): as the decay of ``ema``, the mean of the parameters after the updates since t = 0, which copies.

    ``join([constant(0.0), equal_weight()], [1000])`` begins after 1,000 updates. Sources: Polyak & Juditsky 1992;
    Izmailov et al. 2018 (SWA).
    """

    def __call__(self, t: int) -> float:
        return min(t / (t + 1), _MOST)


@dataclass(frozen=True)
class Warmup(Schedule):
    """What ``Schedule.warmup`` returns."""

    schedule: Callable[[int], float]
    steps: int
    start: str = "one-over-steps"

    def __post_init__(self) -> None:
        self._check_count("steps", 0)
        if self.start not in ("one-over-steps", "zero"):
            raise ValueError(f"warmup: start: expected 'one-over-steps' or 'zero', got {self.start!r}")

    def __call__(self, t: int) -> float:
        if t >= self.steps:
            return self.schedule(t - self.steps)
        return _product(self.schedule(0), (t + (self.start != "zero")) / self.steps)


@dataclass(frozen=True)
class Product(Schedule):
    """What ``s1 * s2`` returns."""

    first: Callable[[int], float]
    second: Callable[[int], float]

    def __call__(self, t: int) -> float:
        return _product(self.first(t), self.second(t))


@dataclass(frozen=True)
class join(Schedule):
    """schedules[i](t - boundaries[i-1]) from t = boundaries[i-1] on: each piece counts from its own beginning."""

    schedules: Sequence[Callable[[int], float]]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        if isinstance(self.schedules, (str, bytes)) or not hasattr(self.schedules, "__iter__"):
            raise TypeError(f"join: schedules: expected a sequence of schedules, got {self.schedules!r}")
        object.__setattr__(self, "schedules", tuple(self.schedules))
        for i, schedule in enumerate(self.schedules):
            if not callable(schedule):
                raise TypeError(f"join: schedules[{i}]: expected a schedule, got {schedule!r}")
        self._check_increasing("boundaries")
        if len(self.schedules) != len(self.boundaries) + 1:
            raise ValueError(
                f"join: boundaries: expected {max(len(self.schedules) - 1, 0)} for {len(self.schedules)} schedules, "
                f"got {len(self.boundaries)}"
            )

    def __call__(self, t: int) -> float:
        i = bisect_right(self.boundaries, t)
        return self.schedules[i](t - self.boundaries[i - 1] if i else t)


_MOST = math.nextafter(1, 0)  # of a decay


def _product(a: float, b: float) -> float:
    """A b, where 0 times what has overflowed is 0: it would be, had it not."""
    ab = a * b
    return 0.0 if math.isnan(ab) and not math.isnan(a) and not math.isnan(b) else ab
