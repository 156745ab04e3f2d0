"""The record of statistics that steps write: which steps are measured, and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import Array
from .stages import ROW, column

_KEPT = [column(name) for name in ("elements", "grad_update", "update_sq")]


class Recorder:
    """Keeps what steps wrote of statistics: one row per tensor, see ``stages``.

    A plan asks ``wanted``, ``is_followed`` and ``prepare`` before a step, and after one that was completed sets what
    ``prepare`` said. Where statistics are all of them, a measured step needs the update before it, which the step
    before has stored.
    """

    def __init__(self, tensors: int, every: int, norms: bool) -> None:
        self.every, self.norms = every, norms
        self.rows: Array | None = None  # of the last measured step
        self.before: Array | None = None  # what of the step before it counts: (elements, <s', u'>, |u'|^2) per tensor
        self.updates = 0  # of the optimizer after the measured step
        self.grad_scale = 1.0
        self.settings: list[dict[str, Any]] = []  # of the groups, in the measured step
        self.last_settings: list[dict[str, Any]] = []  # and in the step before
        self._buffers = [np.zeros((tensors, ROW)) for _ in range(2)]
        self._measured, self._latest, self._traced_at = 1, 0, -1
        self._latest_settings: list[dict[str, Any]] = []

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Rows of an earlier version are shorter: what it did not count is 0. Of settings it kept lr alone."""
        if saved["rows"] is not None:
            missing = ROW - saved["rows"].shape[1]
            saved = {**saved, "rows": np.pad(saved["rows"], ((0, 0), (0, missing)))}
        if "last_lrs" in saved:
            last, latest = ([{"lr": lr} for lr in saved.get(name, [])] for name in ("last_lrs", "_lrs"))
            saved = {**saved, "settings": [], "last_settings": last, "_latest_settings": latest}
        self.__dict__.update(saved)

    def wanted(self, updates: int) -> bool:
        """Whether the step after so many updates has to write into ``target``."""
        return self.norms or (updates + 1) % self.every == 0 or self.is_followed(updates)

    def is_followed(self, updates: int) -> bool:
        """Whether the step after the one after so many updates is measured, so that this one stores its update."""
        return not self.norms and (updates + 2) % self.every == 0

    def prepare(self, updates: int, grad_scale: float, settings: list[dict[str, Any]]) -> tuple[Array, dict[str, Any]]:
        """Where the step after so many updates writes, with these settings of the groups; and attributes of this
        recorder after it."""
        target, done = 1 - self._measured, updates + 1
        after: dict[str, Any] = {"_latest": target, "_traced_at": done, "_latest_settings": settings}
        if self.norms or done % self.every == 0:
            follows = self._traced_at == updates and not self.norms
            before = self._buffers[self._latest][:, _KEPT] if follows else None
            after |= {"_measured": target, "rows": self._buffers[target], "before": before}
            after |= {"updates": done, "grad_scale": grad_scale}
            after |= {"settings": settings, "last_settings": self._latest_settings}
        return self._buffers[target], after
