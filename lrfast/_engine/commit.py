"""Changes of many things as one: whatever comes between, a signal, an exception, no memory, all are done or none.

What is to happen is prepared as calls, and everything that can be refused or go wrong happens meanwhile. Then they are
made one after the other, and between calls of C no line of Python runs, at which a signal could be delivered.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import call
from typing import Any

import numpy as np

from .arithmetic import Array

Call = Callable[[], object]
"""A prepared call, which gives the same when it is made twice."""
Stages = Sequence[Sequence[Call]]
"""Calls of which some need others to be done before: each stage is begun when the one before it is complete."""
Lending = Callable[[], tuple[Stages, Stages]]
"""Prepares what is made when something is lent, and what when it comes back."""

_TRIES = 10


def at_once(calls: Sequence[Call]) -> None:
    """Makes all calls. If one was cut off, which those of C are not by a signal, all are made again; then it raises."""
    failure: BaseException | None = None
    for _ in range(_TRIES):
        try:
            in_one(calls)()
        except BaseException as error:
            failure = error
        else:
            if failure is None or isinstance(failure, MemoryError):  # which was there at the second attempt
                return
            break
    if failure is not None:
        raise failure


def in_one(calls: Iterable[Call]) -> Call:
    """A call of C that makes all calls, as they are when it is made; once."""
    work: Any = map(call, calls)
    return partial(deque, work, 0)


def copying(target: Array, source: Any) -> Call:
    """target[...] = source, for an array of its shape or a number."""
    if isinstance(source, np.ndarray) and source.shape != target.shape:
        raise ValueError(f"expected shape {target.shape}, got {source.shape}: it changed while it was read")
    return partial(target.__setitem__, ..., source)


def setting(owner: object, attributes: dict[str, Any]) -> list[Call]:
    """owner.name = value, for each of them."""
    return [partial(setattr, owner, name, value) for name, value in attributes.items()]


def exchanging(pairs: Iterable[tuple[Array, Array]], kept: Iterable[tuple[Array, Array]]) -> Stages:
    """The arrays of each pair change places, by way of memory for both."""
    arrays = list(zip(pairs, kept, strict=True))
    return (
        [copying(into, x) for pair, both in arrays for into, x in zip(both, pair, strict=True)],
        [copying(into, x) for pair, both in arrays for into, x in zip(pair, reversed(both), strict=True)],
    )


# ---- forks -----------------------------------------------------------------------------------------------------

STEPPING = "step() of this optimizer is already running in another thread"
FORKED = (
    "this optimizer was in use by another thread when this process was forked, and here nobody goes on with it: its "
    "arrays may be half updated. Fork between steps, or make a new optimizer with arrays of their own from a checkpoint"
)
MOVED = (
    "the optimizer was used by another thread while it was copied or pickled: the copy would be a mixture of two "
    "states. Copy it between steps"
)
"""Why a plan refuses."""

_forks = 0


def forks() -> int:
    """How often this process was forked off another that had imported lrfast."""
    return _forks


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)
