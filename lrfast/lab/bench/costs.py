"""What a step costs beside its arithmetic: the second half of ``lrfast bench``.

Calls, schedules, many tensors, gradients that died, threads, idling, import. Each row says how much it may be at most,
where there is a goal. Rows on one thread are so whatever ``--threads`` says.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import lrfast

from ..._engine.threads import default_threads
from .numpy_steps import VARIANTS, make_step
from .timing import take_turns

__all__ = ["Cost", "measure"]

_LARGE_BLOCK = 5e-3  # seconds per timing on several threads: long beside the 30 us that waking one takes
_THREAD_SIZES = (1, 1_024, 16_384, 65_536, 100_000, 262_144, 400_000, 1_000_000, 4_000_000)
_IN_CACHE = 400_000  # elements; the second thread should pay there, because memory is not the limit
_MANY = 10_000  # tensors

_TINY = np.finfo(np.float32).smallest_normal
# What the average of squares with beta2 = 0.999 takes to get from 1 to below the smallest normal number, and more.
_DEAD_STEPS = 100_000

# Prints seconds; argument: the folder that the package is in.
_IMPORT = """
import sys, time, numpy
sys.path.insert(0, sys.argv[1])
begin = time.perf_counter()
import lrfast
print(time.perf_counter() - begin)
"""


@dataclass(frozen=True)
class Cost:
    """One row."""

    name: str
    value: float  # median over rounds
    unit: str
    goal: float | None = None  # at most, in the same unit


def measure(rounds: int) -> Iterator[Cost]:
    """All rows, one after the other. None without compiled kernels."""
    if lrfast.isa() == "numpy":
        return
    with lrfast.num_threads(1):
        yield from _calls(rounds)
        yield from _schedules(rounds)
        yield from _many_tensors(rounds)
        yield from _dead_gradients(rounds)
    processors = default_threads({})
    if processors >= 2:
        with lrfast.num_threads(2):
            yield _idle()
            yield from _two_threads(rounds)
            yield from _fork_and_join(rounds)
    if processors <= 128:  # the pool has at most 256
        with lrfast.num_threads(processors):
            yield from _too_many_threads(rounds, processors, max(16, 2 * processors))
    yield _import(rounds)


def _calls(rounds: int) -> Iterator[Cost]:
    for rule, size in product(("sgd", "adam"), (1, 1_024)):
        bound, free, numpy = (_arrays(1, size) for _ in range(3))
        name, settings = VARIANTS[rule]
        free_step = _optimizer(rule, free[0]).step
        contenders: dict[str, Callable[[], None]] = {
            "bound step()": _optimizer(rule, *bound).step,
            "step(grads)": partial(free_step, free[1]),
            "in-place NumPy": make_step("inplace", rule, numpy[0][0], numpy[1][0], settings),
        }
        seconds = take_turns(contenders, rounds)
        for key, times in seconds.items():
            yield Cost(f"{name}, {_some(size, 'element')}: {key}", median(times) * 1e6, "us")


def _schedules(rounds: int) -> Iterator[Cost]:
    schedule = lrfast.schedules.cosine(1e-6, steps=10**12)
    for groups in (1, 10):
        contenders = {}
        for lr in (1e-6, schedule):
            params, grads = _arrays(groups, 1)
            contenders[str(lr)] = lrfast.Adam([{"params": [p]} for p in params], grads=grads, lr=lr).step
        fixed, scheduled = take_turns(contenders, rounds).values()
        extra = median(b - a for a, b in zip(fixed, scheduled, strict=True)) / groups
        yield Cost(f"cosine lr instead of a number, {_some(groups, 'group')}: extra per group", extra * 1e6, "us", 1.0)


def _many_tensors(rounds: int) -> Iterator[Cost]:
    from ._roofline import Stream

    for rule in ("sgd", "adam"):
        params, grads = _arrays(_MANY, 100)
        optimizer = _optimizer(rule, params, grads)
        written = [[p, *_state_arrays(s)] for p, s in zip(params, optimizer.state, strict=True)]
        tensors = list(zip(grads, written, strict=True))
        streams = {isa: Stream(isa, tensors) for isa in lrfast.available_isas() if isa != "numpy"}
        seconds = take_turns({"step": optimizer.step, **streams}, rounds)
        steps = seconds.pop("step")
        bare = [min(times) for times in zip(*seconds.values(), strict=True)]
        extra = median(a - b for a, b in zip(steps, bare, strict=True)) / _MANY
        name = VARIANTS[rule][0]
        about = f"{name}, {_MANY:,} tensors of 100: per tensor, beyond a loop that streams them"
        yield Cost(about, extra * 1e9, "ns", 30.0)


def _dead_gradients(rounds: int) -> Iterator[Cost]:
    for rule in ("momentum", "adam"):
        (alive, live_grads), (dead, dead_grads) = _arrays(1, 16_384), _arrays(1, 16_384)
        usual, late = _optimizer(rule, alive, live_grads), _optimizer(rule, dead, dead_grads)
        for _ in range(100):
            late.step()
        late.zero_grad()
        for _ in range(_DEAD_STEPS):
            late.step()
        ratio = _ratio({"usual": usual.step, "late": late.step}, rounds)
        denormal = sum(np.count_nonzero((a != 0) & (np.abs(a) < _TINY)) for a in _state_arrays(late.state[0]))
        about = f"{rule}, gradients 0 for {_DEAD_STEPS:,} steps"
        yield Cost(f"{about}: time relative to live ones", ratio, "x", 1.2)
        yield Cost(f"{about}: denormal elements of the state", float(denormal), "", 0.0)


def _idle() -> Cost:
    _optimizer("adam", *_arrays(1, _THREAD_SIZES[-1])).step()
    begin = time.process_time()
    time.sleep(1)
    return Cost(
        "processor time of the second after a step on 2 threads", (time.process_time() - begin) * 1e3, "ms", 1.0
    )


def _two_threads(rounds: int) -> Iterator[Cost]:
    for rule, size in product(("adam", "sgd"), _THREAD_SIZES):
        ratio = _thread_ratio(rule, _arrays(1, size), 1, 2, rounds)
        goal = 1 / 1.8 if (rule, size) == ("adam", _IN_CACHE) else 1.05
        name = VARIANTS[rule][0]
        yield Cost(f"{name}, {_some(size, 'element')}: time on 2 threads relative to 1", ratio, "x", round(goal, 3))


def _fork_and_join(rounds: int) -> Iterator[Cost]:
    """96 tensors of one element are the smallest work that two threads share.

    Beyond half of the time on one thread, a step on two spends fork, join and half of what is not shared.
    """
    optimizer = _optimizer("sgd", *_arrays(96, 1))
    contenders = {"1": optimizer.step, "2": optimizer.step}
    one, two = take_turns(contenders, rounds, _LARGE_BLOCK, _use_threads).values()
    extra = median(b - a / 2 for a, b in zip(one, two, strict=True))
    about = "fork and join of 2 threads, hot (96 tensors of 1, beyond half of one thread's time)"
    yield Cost(about, extra * 1e6, "us", 5.0)


def _too_many_threads(rounds: int, processors: int, many: int) -> Iterator[Cost]:
    for size in (4_000_000, 16_000_000):
        ratio = _thread_ratio("adam", _arrays(1, size), processors, many, rounds)
        about = f"Adam, {size:,} elements: time on {many} threads relative to {processors}, all processors"
        yield Cost(about, ratio, "x", 1.3)


def _import(rounds: int) -> Cost:
    command = [sys.executable, "-c", _IMPORT, str(Path(lrfast.__file__).parents[1])]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=60) for _ in range(rounds)]
    return Cost("import lrfast after numpy, in a new process", median(float(r.stdout) for r in runs) * 1e3, "ms", 30.0)


# ---- what they share ---------------------------------------------------------------------------------------------


def _arrays(count: int, size: int) -> tuple[list[Any], list[Any]]:
    """Parameters and gradients. All gradients are positive, so that a stream leaves ordinary numbers behind."""
    rng = np.random.default_rng(0)
    grads = [rng.random(size, np.float32) + np.float32(0.5) for _ in range(count)]
    return [np.ones(size, np.float32) for _ in range(count)], grads


def _optimizer(rule: str, params: Sequence[Any], grads: Sequence[Any] | None = None) -> lrfast.Optimizer:
    name, settings = VARIANTS[rule]
    optimizer: lrfast.Optimizer = getattr(lrfast, name)(params, grads=grads, **{**settings, "lr": 1e-6})
    return optimizer


def _state_arrays(state: Any) -> list[Any]:
    return [value for value in state.values() if isinstance(value, np.ndarray)]


def _ratio(contenders: dict[str, Any], rounds: int, *how: Any) -> float:
    """Time of the second relative to the first."""
    first, second = take_turns(contenders, rounds, *how).values()
    return median(b / a for a, b in zip(first, second, strict=True))


def _thread_ratio(rule: str, arrays: tuple[list[Any], list[Any]], few: int, many: int, rounds: int) -> float:
    """Time of a step on many threads relative to few, one step right after the other."""
    step = _optimizer(rule, *arrays).step
    return _ratio({str(few): step, str(many): step}, rounds, _LARGE_BLOCK, _use_threads)


def _use_threads(contender: str) -> None:
    lrfast.set_num_threads(int(contender))


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count > 1 else "")
