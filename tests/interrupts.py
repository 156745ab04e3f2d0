"""Exceptions raised at chosen lines of lrfast, and everything of an optimizer that can be seen before and after."""

from __future__ import annotations

import ast
import dis
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

import lrfast

PACKAGE = Path(lrfast.__file__).parent

Place = tuple[str, int]
"""(file, line)."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, as a test sends it."""


class NoMemory(MemoryError):
    """No memory, as a test says so."""


class Broken(RuntimeError):
    """Any exception."""


KINDS = (Interrupted, NoMemory, Broken)


class Point(NamedTuple):
    """Before the n-th time that a line is reached, counted from 1."""

    place: Place
    time: int


def lines_of(action: Callable[[], Any]) -> dict[Place, int]:
    """The lines of lrfast that an action reaches, and how often; but those where an exception is on its way already.

    Where a tracer raises another one there, Python 3.11 takes the first for one that is handled, for ever.
    """
    reached: dict[Place, int] = {}

    def count(place: Place) -> None:
        reached[place] = reached.get(place, 0) + 1

    _traced(count, action)
    return reached


def points_of(action: Callable[[], Any]) -> list[Point]:
    """The first and the last time of each line."""
    return [Point(place, n) for place, times in lines_of(action).items() for n in sorted({1, times})]


def raised_at(point: Point, kind: type[BaseException], action: Callable[[], Any]) -> BaseException | None:
    """Runs an action, in which that happens; what came of it."""
    times = 0

    def strike(place: Place) -> None:
        nonlocal times
        times += place == point.place
        if place == point.place and times == point.time:
            raise kind

    try:
        _traced(strike, action)
    except BaseException as error:
        error.__context__ = None  # whose traceback would keep frames, too
        return error.with_traceback(None)
    assert times >= point.time, f"{point} was not reached again"
    return None


def _traced(seen: Callable[[Place], None], action: Callable[[], Any]) -> None:
    """Runs an action; ``seen`` is called before each line of lrfast."""
    failed: set[Any] = set()  # frames that an exception has come to

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return None
        if event == "exception" and not issubclass(argument[0], (StopIteration, GeneratorExit)):
            failed.add(frame)
        elif event == "line" and frame not in failed:
            seen((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
        failed.clear()


# ---- what can be seen ------------------------------------------------------------------------------------------


def plain(x: Any) -> Any:
    """Anything, so that equal means equal bit for bit."""
    if isinstance(x, np.ndarray):
        return x.dtype.str, x.shape, x.tobytes()
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(value) for value in x]
    return repr(x)


def observed(optimizer: lrfast.Optimizer) -> dict[str, Any]:
    """All that an optimizer shows."""
    stats = optimizer.stats
    names = (
        "updates",
        "skipped",
        "report",
        "clip_norm",
        "clip_value",
        "nonfinite",
        "zero_grads",
        "ema_decay",
        "defaults",
    )
    return {
        **{name: plain(getattr(optimizer, name)) for name in names},
        "groups": [{key: plain(_setting(value)) for key, value in g.items()} for g in optimizer.param_groups],
        "schedules": [list(schedules) for schedules in optimizer.schedules],
        "state": [plain(dict(state)) for state in optimizer.state],
        "ema": plain(optimizer.ema),
        "copies": plain(optimizer.copy_to),
        "grads": plain(optimizer._buffers.grads),
        "stats": [stats.every, stats.norms, stats.updates, plain({key: stats[key] for key in stats})],
    }


def _setting(value: Any) -> Any:
    """An edit is taken over in its plain form as soon as it is read, which changes nothing."""
    if isinstance(value, (list, tuple)) and all(isinstance(part, (int, float)) for part in value):
        return [float(part) for part in value]
    return float(value) if isinstance(value, (int, np.floating)) and not isinstance(value, bool) else value


def but_scheduled(seen: dict[str, Any]) -> dict[str, Any]:
    """A scheduled setting is that of the update begun last, whether it was completed or not."""
    groups = [
        {key: value for key, value in group.items() if key not in scheduled}
        for group, scheduled in zip(seen["groups"], seen["schedules"], strict=True)
    ]
    return {**seen, "groups": groups}


# ---- which lines there are -------------------------------------------------------------------------------------


def lines_in(path: Path) -> set[Place]:
    """The lines of all functions of a module, but for what only raises: an exception is there in any case."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
            left_out |= {line for part in node.body for line in range(part.lineno, (part.end_lineno or 0) + 1)}
        elif isinstance(node, (ast.Raise, ast.ExceptHandler)):
            left_out |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    found = set()
    for code in _functions(compile(tree, str(path), "exec")):
        found |= {(str(path), line) for _, line in dis.findlinestarts(code) if line and line != code.co_firstlineno}
    return {(name, line) for name, line in found if line not in left_out}


def _functions(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & 1:  # CO_OPTIMIZED: a function, not the body of a class
                yield constant
            yield from _functions(constant)
