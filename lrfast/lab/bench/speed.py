"""The step beside the same update in NumPy and beside a loop that only streams: the first half of ``lrfast bench``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

import lrfast

from ..._engine.buffers import state_array
from .numpy_steps import VARIANTS, make_step
from .timing import take_turns

__all__ = ["DTYPES", "HEADLINE", "RULES", "SIZES", "Result", "measure", "measure_all"]

RULES = tuple(VARIANTS)
SIZES = (256, 1_024, 16_384, 400_000, 4_000_000, 40_000_000)
DTYPES = ("float32", "float64")
HEADLINE = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw")

_MEMORY_LIMIT = 6_000_000_000  # bytes of arrays per case; more is left out, and said


@dataclass(frozen=True)
class Result:
    """One rule at one size: seconds per step, minimum and median over the rounds, by contender."""

    rule: str
    size: int  # elements
    dtype: str
    isa: str
    traffic: int  # bytes that a step has to read and write
    minimum: dict[str, float]
    median: dict[str, float]
    stream_ratio: float | None  # time of the streaming loop / time of the step, median over rounds
    naive_ratio: float  # time of naive NumPy / time of the step, median over rounds
    inplace_ratio: float

    @property
    def ns_per_element(self) -> float:
        """Median."""
        return self.median["lrfast"] / max(self.size, 1) * 1e9

    @property
    def gigabytes_per_second(self) -> float:
        """Median."""
        return self.traffic / self.median["lrfast"] / 1e9


def measure_all(
    rules: Sequence[str], sizes: Sequence[int], dtypes: Sequence[str], isas: Sequence[str], rounds: int
) -> Iterator[Result]:
    """Every combination, one after the other."""
    for dtype, size, rule in itertools.product(dtypes, sizes, rules):
        if size * np.dtype(dtype).itemsize * 16 > _MEMORY_LIMIT:
            print(f"left out: {rule}, {size:,} elements, {dtype}: the arrays would need more than 6 GB")
            continue
        for isa in isas:
            yield measure(rule, size, dtype, isa, rounds)


def measure(rule: str, size: int, dtype: str, isa: str, rounds: int) -> Result:
    """One case; all contenders take turns in every round."""
    rng = np.random.default_rng(0)
    name, settings = VARIANTS[rule]
    settings = {**settings, "lr": 1e-6}
    grad = rng.standard_normal(size).astype(dtype)
    params = [rng.standard_normal(size).astype(dtype) for _ in range(3)]
    with lrfast.use_isa(isa):
        optimizer = getattr(lrfast, name)(params[0], grads=grad, **settings)
        written = [params[0], *(a for a in optimizer.state[0].values() if isinstance(a, np.ndarray))]
        contenders: dict[str, Callable[[], None]] = {
            "lrfast": optimizer.step,
            "naive": make_step("naive", rule, params[1], grad, settings),
            "inplace": make_step("inplace", rule, params[2], grad, settings),
            **_streams(grad, len(written)),
        }
        seconds = take_turns(contenders, rounds)
    streams = [key for key in seconds if key.startswith("stream")]
    stream = [min(times) for times in zip(*(seconds[key] for key in streams), strict=True)] if streams else None
    step = seconds["lrfast"]
    return Result(
        rule,
        size,
        dtype,
        isa,
        (2 * len(written) + 1) * grad.nbytes,
        {key: min(times) for key, times in seconds.items()},
        {key: median(times) for key, times in seconds.items()},
        median(a / b for a, b in zip(stream, step, strict=True)) if stream else None,
        median(a / b for a, b in zip(seconds["naive"], step, strict=True)),
        median(a / b for a, b in zip(seconds["inplace"], step, strict=True)),
    )


def _streams(grad: Any, count: int) -> dict[str, Callable[[], None]]:
    """Loops that only read one and write ``count`` buffers of this size, one per compiled instruction set.

    The buffers lie within their pages as those of an optimizer do.
    """
    try:
        from ._roofline import Stream
    except ImportError:
        return {}
    first = np.zeros_like(grad)
    first.fill(0)  # so that its pages exist
    written = [first, *(state_array(first, 0.0, slot) for slot in range(count - 1))]
    floats = [a.view(np.float32) for a in written]
    return {
        f"stream {isa}": Stream(isa, [(grad.view(np.float32), floats)])
        for isa in lrfast.available_isas()
        if isa != "numpy"
    }
