"""Steps by the NumPy reference: where there is no extension, and with LRFAST_ISA=numpy or ``use_isa("numpy")``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import _checks
from ._bindings import Array, Bindings


class ReferencePlan:
    """The plan of ``_core.Plan`` without C: the same calls, checks and errors."""

    def __init__(
        self, bindings: Bindings, owner: Callable[[], Any], scheduled: bool, steps: Sequence[int], updates: int
    ) -> None:
        self._bindings = bindings
        self._owner = owner
        self._scheduled = scheduled
        self._settings: list[dict[str, Any]] = [{} for _ in bindings.groups]
        self._lock = threading.Lock()
        self.refresh_changed()
        self.set_progress(steps, updates)

    def acquire(self) -> None:
        """Keeps other threads out of steps and of this; RuntimeError if one is in already."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("step() of this optimizer is already running in another thread")

    def release(self) -> None:
        """Ends what acquire() began."""
        self._lock.release()

    def set_progress(self, steps: Sequence[int], updates: int) -> None:
        """Completed updates per tensor, and completed step() calls."""
        self._steps = list(steps)
        self.updates = updates

    def _commit(self, steps: Sequence[int]) -> None:
        self.set_progress(steps, self.updates + 1)

    def step_of(self, i: int) -> int:
        """Completed updates of tensor i."""
        return self._steps[i]

    def refresh_changed(self) -> None:
        """Validates groups whose settings were edited."""
        self._bindings.check_groups()
        for i, group in enumerate(self._bindings.groups):
            if list(group.settings.items()) != list(self._settings[i].items()):
                self._owner()._refresh(i)
                self._settings[i] = dict(group.settings)

    def assign(self, i: int, key: str, value: Any, names: Sequence[str]) -> None:
        """Takes over the already checked value of a scheduled setting of group i."""
        self._bindings.groups[i].settings[key] = value
        self._settings[i][key] = value

    def step(self, grads: Sequence[Array | None] | None, grad_scale: float) -> None:
        """One update of every tensor that has a gradient; grads None: the bound ones."""
        self.acquire()
        try:
            self.refresh_changed()
            if self._scheduled:
                self._owner()._apply_schedules()
            reference_step(self._bindings, self._steps, grads, grad_scale, self._commit)
        finally:
            self.release()


def reference_step(
    bindings: Bindings,
    steps: Sequence[int],
    grads: Sequence[Array | None] | None,
    grad_scale: float,
    commit: Callable[[Sequence[int]], None],
) -> None:
    """Checks everything, updates every tensor that has a gradient, commits the new step counts."""
    grad_scale = _checks.number("grad_scale", grad_scale)
    grads = bindings.choose_grads(grads)
    bindings.check_params()
    bindings.check_grads(grads)
    bindings.check_overlap(grads)
    new_steps = list(steps)
    with _interrupt_deferred():
        for group in bindings.groups:
            for i in range(group.first, group.stop):
                grad = grads[i]
                if grad is not None:
                    new_steps[i] += 1
                    group.update(bindings.params[i], grad, bindings.states[i], new_steps[i], grad_scale, group.settings)
        commit(new_steps)


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Ctrl-C waits until the step is complete. Only the main thread gets it, so only there it has to be held."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is None:  # None: a handler of C
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if received:
            signal.raise_signal(signal.SIGINT)
