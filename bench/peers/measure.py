"""Checks that contenders compute the same, and times them in turns."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from math import prod
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
from contract import RULES, Contender
from shapes import elements_of, make_arrays, shapes_of

import lrfast
from lrfast.lab.bench._roofline import Stream
from lrfast.lab.bench.numpy_steps import VARIANTS
from lrfast.lab.bench.timing import take_turns

SHORTEST = 2e-3  # seconds: a timing repeats its call until it takes this long, so that threads are warm
PAUSE = 2e-3  # seconds before each timing: other libraries' threads stop waiting actively meanwhile
WRITTEN = {"sgd": 1, "momentum": 2, "adagrad": 2, "rmsprop": 2, "adam": 3, "adamw": 3}  # arrays
# Where a peer would take minutes, or all of them more memory than there is: what the largest cases do without.
SLOW = ("numpy naive", "torch for-loop", "torch foreach")
LARGE = 20_000_000  # elements
GREEDY = ("numpy in place", "numba", "optax")
HUGE = 100_000_000
TOLERANCE = 2e-6  # of a parameter of size 1 after three updates in float32


def accepted(peers: list[ModuleType], rule: str, threads: int) -> list[str]:
    """Names of the contenders whose result is right; says which are not, and by how much."""
    settings = {**RULES[rule], "lr": 0.01}
    params, grads = make_arrays("MLP", 1), make_arrays("MLP", 2)
    exact = [p.astype(np.float64) for p in params]
    _exact_updates(rule, settings, exact, grads, updates=3)
    names = []
    for peer in peers:
        for name in peer.NAMES:
            contender = peer.make(name, rule, settings, [p.copy() for p in params], grads, threads)
            if contender is None:
                continue
            for _ in range(3):
                contender.step()
            error = max(float(np.max(np.abs(a - b))) for a, b in zip(contender.result(), exact, strict=True))
            if error <= TOLERANCE:
                names.append(name)
            else:
                print(f"{name} computes another {rule}: parameters differ by {error:.1e}; it is not timed")
    return names


def _exact_updates(rule: str, settings: dict[str, float], params: Any, grads: Any, updates: int) -> None:
    """The specification in float64."""
    cls, options = VARIANTS[rule]
    optimizer = getattr(lrfast, cls)(
        params,
        **{k: v for k, v in settings.items() if not k.startswith("beta")},
        **({"betas": (settings["beta1"], settings["beta2"])} if "beta1" in settings else {}),
        **{k: v for k, v in options.items() if k not in settings},
    )
    with lrfast.use_isa("numpy"):
        for _ in range(updates):
            optimizer.step([g.astype(np.float64) for g in grads])


def measure(
    peers: list[ModuleType], names: list[str], rule: str, case: str, threads: int, rounds: int
) -> dict[str, Any]:
    """Seconds per update of all contenders, in turns; minimum and median, and ratios round by round."""
    elements = elements_of(case)
    gc.collect()
    grads, params = make_arrays(case, 2), make_arrays(case, 1)
    contenders = []
    for peer in peers:
        for name in peer.NAMES:
            if name in names and not (elements >= LARGE and name in SLOW) and not (elements >= HUGE and name in GREEDY):
                contender = peer.make(name, rule, RULES[rule], [p.copy() for p in params], grads, threads)
                contenders.append(contender)
    contenders += _streams(case, rule, grads, threads)
    seconds = in_turns(contenders, rounds)
    streams = [times for name, times in seconds.items() if name.startswith("stream")]
    stream = [min(times) for times in zip(*streams, strict=True)]
    ours = seconds["lrfast"]
    return {
        "rule": rule,
        "case": case,
        "elements": elements,
        "tensors": len(grads),
        "threads": threads,
        "bytes": (2 * WRITTEN[rule] + 1) * 4 * elements,
        **summary(seconds),
        "stream_ratio": median(a / b for a, b in zip(stream, ours, strict=True)),
    }


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Minimum and median per contender, and the median over the rounds of its time relative to lrfast."""
    ours = seconds["lrfast"]
    return {
        "minimum": {name: min(times) for name, times in seconds.items()},
        "median": {name: median(times) for name, times in seconds.items()},
        "ratio": {name: median(a / b for a, b in zip(t, ours, strict=True)) for name, t in seconds.items()},
    }


def _streams(case: str, rule: str, grads: list[np.ndarray], threads: int) -> list[Contender]:
    """Loops that only stream what this rule reads and writes, on all threads, one per instruction set."""
    shared = [np.empty(elements_of(case), np.float32) for _ in range(WRITTEN[rule])]
    tensors, first = [], 0
    for grad, shape in zip(grads, shapes_of(case), strict=True):
        stop = first + prod(shape)
        tensors.append((grad.reshape(-1), [a[first:stop] for a in shared]))
        first = stop
    for array in shared:
        array.fill(0)
    contenders = []
    for isa in lrfast.available_isas():
        if isa in ("avx512", "avx2", "neon"):
            parts = [Stream(isa, part) for part in split(tensors, threads)]
            contenders.append(Contender(f"stream {isa}", together(parts), lambda: []))
    return contenders


def split(tensors: list[Any], threads: int) -> list[list[Any]]:
    """Tensors, cut so that each thread has the same number of elements."""
    total = sum(grad.size for grad, _ in tensors)
    parts: list[list[Any]] = [[] for _ in range(threads)]
    position = 0
    for grad, written in tensors:
        begin = 0
        while begin < grad.size:
            thread = min(threads - 1, (position + begin) * threads // total)
            stop = (
                grad.size if thread == threads - 1 else min(grad.size, -(-(thread + 1) * total // threads) - position)
            )
            parts[thread].append((grad[begin:stop], [a[begin:stop] for a in written]))
            begin = stop
        position += grad.size
    return [part for part in parts if part]


def together(parts: list[Stream]) -> Any:
    """A call that runs all parts at once, each on a thread."""
    if len(parts) == 1:
        return parts[0]
    pool = ThreadPoolExecutor(len(parts) - 1)

    def run() -> None:
        others = [pool.submit(part) for part in parts[1:]]
        parts[0]()
        for other in others:
            other.result()

    return run


def in_turns(contenders: list[Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds per step of each contender and round."""
    named = {contender.name: contender for contender in contenders}

    def prepare(name: str) -> None:
        """Lets the threads of others fall asleep, and wakes its own."""
        time.sleep(PAUSE)
        named[name].step()
        named[name].prepare()

    gc.collect()
    return take_turns({name: contender.step for name, contender in named.items()}, rounds, SHORTEST, prepare)


def print_case(result: dict[str, Any]) -> None:
    """A line for lrfast, and one for each other."""
    ours = result["median"]["lrfast"]
    speed = result["bytes"] / ours / 1e9
    print(
        f"\n{result['rule']}, {result['case']}, {result['threads']} thread(s): lrfast {ours * 1e6:.2f} us, "
        f"{ours / result['elements'] * 1e9:.3f} ns per element, {speed:.1f} GB/s, "
        f"{result['stream_ratio']:.0%} of the fastest loop that only streams"
    )
    for name, ratio in result["ratio"].items():
        if name != "lrfast":
            print(f"    {name:>15} {result['median'][name] * 1e6:>12.2f} us  {ratio:>7.2f} x lrfast", flush=True)
