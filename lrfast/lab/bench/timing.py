"""Contenders take turns in one process, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Mapping

__all__ = ["take_turns"]

_SHORTEST = 200e-6  # seconds: a timing repeats its call until it takes this long


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
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
