from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from .arithmetic import Array
from .buffers import Buffers
from .options import Options, Report
from .recorder import Recorder
from .table import Rule

def isa() -> str | None: ...
def available_isas() -> tuple[str, ...]: ...
def set_isa(name: str) -> None: ...
def get_threads() -> int: ...
def set_threads(n: int) -> None: ...
def version() -> str: ...
def compiler() -> str: ...
def update_once(
    rule: Rule,
    flags: int,
    numbers: dict[str, float],
    param: Array,
    grad: Array,
    states: dict[str, Array],
    step: int,
    grad_scale: float,
    check: Callable[[], None],
) -> None: ...

class Plan:
    updates: int
    skipped: int
    @property
    def progress(self) -> Array: ...
    @property
    def report(self) -> Report: ...
    def __init__(
        self,
        buffers: Buffers,
        groups: list[dict[str, Any]],
        scheduled: bool,
        steps: Sequence[int],
        updates: int,
        skipped: int,
    ) -> None: ...
    def set(
        self,
        index: int,
        settings: dict[str, Any],
        numbers: dict[str, float],
        flags: int | None = None,
        t: int | None = None,
    ) -> None: ...
    def configure(self, options: Options, recorder: Recorder | None) -> None: ...
    def held(self, reason: str = ...) -> AbstractContextManager[Any]: ...
    def step(self, grads: list[Any] | None, grad_scale: float) -> bool: ...
    def phases(self, grads: list[Any] | None, grad_scale: float) -> Iterator[Callable[[int, int], None]]: ...
