"""``lrfast bench``: the step beside the same update in NumPy and beside a loop that only streams.

All contenders of a case run alternately in one process, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import lrfast

from ... import config
from ..._engine import state
from . import numpy_steps

if TYPE_CHECKING:
    from .costs import Cost

RULES = tuple(numpy_steps.VARIANTS)
SIZES = (256, 1_024, 16_384, 400_000, 4_000_000, 40_000_000)
DTYPES = ("float32", "float64")
PARTS = ("steps", "costs")  # of the command: this module's table, and costs.py
HEADLINE = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw")

_SHORTEST = 200e-6  # seconds: a timing repeats its call until it takes this long
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


def run(
    rules: Sequence[str], sizes: Sequence[int], dtypes: Sequence[str], isas: Sequence[str], rounds: int
) -> Iterator[Result]:
    """Measures every combination, one after the other."""
    for dtype, size, rule in itertools.product(dtypes, sizes, rules):
        if size * np.dtype(dtype).itemsize * 16 > _MEMORY_LIMIT:
            print(f"left out: {rule}, {size:,} elements, {dtype}: the arrays would need more than 6 GB")
            continue
        for isa in isas:
            yield measure(rule, size, dtype, isa, rounds)


def measure(rule: str, size: int, dtype: str, isa: str, rounds: int) -> Result:
    """One case; all contenders take turns in every round."""
    rng = np.random.default_rng(0)
    name, settings = numpy_steps.VARIANTS[rule]
    settings = {**settings, "lr": 1e-6}
    grad = rng.standard_normal(size).astype(dtype)
    params = [rng.standard_normal(size).astype(dtype) for _ in range(3)]
    with lrfast.use_isa(isa):
        optimizer = getattr(lrfast, name)(params[0], grads=grad, **settings)
        written = [params[0], *(a for a in optimizer.state[0].values() if isinstance(a, np.ndarray))]
        contenders: dict[str, Callable[[], None]] = {
            "lrfast": optimizer.step,
            "naive": numpy_steps.make_step("naive", rule, params[1], grad, settings),
            "inplace": numpy_steps.make_step("inplace", rule, params[2], grad, settings),
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


def report(results: Sequence[Result]) -> None:
    """The table for people."""
    head = f"{'rule':>25} {'elements':>11} {'dtype':>8} {'isa':>9} {'us/step':>10} {'ns/element':>11} {'GB/s':>6}"
    print(f"{head} {'% of stream':>12} {'x naive':>8} {'x in-place':>11}")
    for r in results:
        stream = "" if r.stream_ratio is None else f"{100 * r.stream_ratio:.0f}"
        print(
            f"{r.rule:>25} {r.size:>11,} {r.dtype:>8} {r.isa:>9} {r.median['lrfast'] * 1e6:>10.2f} "
            f"{r.ns_per_element:>11.3f} {r.gigabytes_per_second:>6.1f} {stream:>12} "
            f"{r.naive_ratio:>8.2f} {r.inplace_ratio:>11.2f}"
        )
    print(
        "\nMedians over rounds. % of stream: bandwidth, in per cent of the fastest loop that only reads and writes the"
    )
    print("same buffers; x: how many times as long NumPy takes, one expression per line or in place with out=.")


def to_json(results: Sequence[Result], costs: Sequence[Cost]) -> str:
    """Everything measured, and where it was measured."""
    measured = {"results": [asdict(r) for r in results], "costs": [asdict(c) for c in costs]}
    return json.dumps({"provenance": provenance(), **measured}, indent=1)


def provenance() -> dict[str, Any]:
    """Machine, compiler, versions, commit, time."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**(config.show_config("dicts") or {}), "commit": _commit(), "time": now}


def take_turns(
    contenders: Mapping[str, Callable[[], None]],
    rounds: int,
    shortest: float = _SHORTEST,
    prepare: Callable[[str], None] = lambda contender: None,
) -> dict[str, list[float]]:
    """Seconds per call, by contender and round.

    A timing repeats its call for about ``shortest`` seconds; ``prepare(contender)`` comes before it, untimed.
    """
    repeats = {}
    for key, call in contenders.items():
        prepare(key)
        call()
        begin = time.perf_counter()
        call()
        repeats[key] = max(1, int(shortest / max(time.perf_counter() - begin, 1e-9)))
    seconds: dict[str, list[float]] = {key: [] for key in contenders}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for key, call in contenders.items():
                prepare(key)
                loop = itertools.repeat(None, repeats[key])
                begin = time.perf_counter()
                for _ in loop:
                    call()
                seconds[key].append((time.perf_counter() - begin) / repeats[key])
    finally:
        if collecting:
            gc.enable()
    return seconds


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
    written = [first, *(state.state_array(first, 0.0, slot) for slot in range(count - 1))]
    floats = [a.view(np.float32) for a in written]
    return {
        f"stream {isa}": Stream(isa, [(grad.view(np.float32), floats)])
        for isa in lrfast.available_isas()
        if isa != "numpy"
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
