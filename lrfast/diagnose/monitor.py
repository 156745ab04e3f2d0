"""Why is my loss stuck? A record of a run, taken from the statistics of the step, and a verdict on it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._engine import checks, trial
from .._engine.commit import at_once, setting
from .._engine.extra import import_extra
from .._engine.optimizer import Optimizer
from .verdict import WINDOW, Verdict, judge

__all__ = ["Monitor", "Verdict"]

_MEASURED = (
    "grad_norm", "param_norm", "update_norm", "update_ratio", "grad_max", "update_max", "nan", "inf", "zero", "lost",
    "dead", "dot", "cosine", "bounce", "sharpness", "sharpness_limit", "minimum", "rate_median", "rate_max",
    "eps_dominates", "n_eff", "elements",
)  # fmt: skip


class Monitor:
    """Records a run step by step and says what it is doing.

    .. code-block:: python

        monitor = lrfast.Monitor(optimizer)
        for batch in batches:
            loss = ...                     # of the parameters before the step, and the gradients of that loss
            optimizer.step(grads)
            monitor.update(loss)
        print(monitor.verdict())

    ``optimizer`` is any optimizer of lrfast or ``lrfast.torch``. Unless its statistics are on, all of them, they are
    turned on (``optimizer.stats = True``). With ``stats=k`` there is one record per k steps.

    Memory is bounded: the latest 1,000 records stay; of those before, every n-th, at most 1,000, with n doubling as the
    run gets longer.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not (isinstance(optimizer, Optimizer) or hasattr(optimizer, "trial")):
            raise TypeError(f"optimizer: expected an optimizer of lrfast, got {type(optimizer).__name__}")
        if optimizer.stats.norms or not optimizer.stats.every:
            optimizer.stats = True
        self._optimizer = optimizer
        self._latest: list[dict[str, Any]] = []
        self._old: list[dict[str, Any]] = []
        self._every = 1
        self._passed = 0
        self._seen: tuple[int, int] | None = None  # updates and skipped steps at the latest call

    def update(self, loss: float) -> None:
        """Take a record after a step. ``loss``: any number, in any unit; NaN and infinity are evidence, too.

        It does nothing after a step that the statistics did not measure. Raises TypeError if loss is not a number,
        ValueError if there was no step since the last record, or if statistics were turned off.
        """
        loss = checks.loss("loss: expected a number", loss)
        optimizer = self._optimizer
        seen = (optimizer.updates, optimizer.skipped)
        if seen == self._seen:
            raise ValueError("update: expected a step() of the optimizer since the last update, there was none")
        report, stats = optimizer.report, optimizer.stats
        if not stats.every:
            raise ValueError("update: expected statistics, which were turned off; set optimizer.stats = True")
        measured: dict[str, float] = {}
        if not report.skipped:
            if not len(stats) or stats.updates != optimizer.updates:
                self._seen = seen
                return
            measured = stats["total"]
        row: dict[str, Any] = {"update": optimizer.updates, "loss": loss, "skipped": report.skipped}
        row |= {key: measured.get(key, math.nan) for key in _MEASURED}
        row["clip_factor"] = report.clip_factor
        if report.skipped:
            row["grad_norm"] = report.grad_norm
        latest, old, every, passed = [*self._latest, row], self._old, self._every, self._passed
        if len(latest) > WINDOW:
            retired = latest.pop(0)
            if passed % every == 0:
                old = [*old, retired]
            passed += 1
        if len(old) > WINDOW:
            old, every = [old[0], *old[2::2]], every * 2
        after = {"_latest": latest, "_old": old, "_every": every, "_passed": passed, "_seen": seen}
        at_once(setting(self, after))

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """What an earlier version did not measure is NaN in its records."""
        missing = dict.fromkeys(_MEASURED, math.nan)
        rows = {name: [{**missing, **row} for row in saved[name]] for name in ("_latest", "_old")}
        self.__dict__.update(saved | rows)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows, oldest first: ``update`` (completed updates), ``loss``, ``skipped``, ``clip_factor`` and the
        numbers of ``optimizer.stats["total"]``; what was not measured is NaN.
        """
        return self._old + self._latest

    def verdict(self, gradient: Callable[[Any], Any] | None = None) -> Verdict:
        """What the run is doing: kind, text, evidence, cure. docs/diagnostics.md explains every kind.

        kind is one of ``descending, bouncing, crawling, exploded, noise, critical, minimum, saddle, nonfinite,
        overflowed, lost_updates, mismatch, too_few``.

        ``gradient`` is asked for only where the gradient is small, to tell a minimum from a saddle. It is called with
        the parameters, in the form the optimizer got them, and returns their gradients as ``step`` takes them (or None,
        having written them into the bound ones); for ``lrfast.torch`` without an argument, to zero gradients and run
        backward. It should be of the whole loss, without noise. The smallest and the largest eigenvalue of the Hessian
        come from some tens of its differences (Lanczos); parameters and bound gradients are restored bit for bit.
        Raises ModuleNotFoundError if that needs SciPy and it is missing.
        """
        maximize = all(group["maximize"] for group in self._optimizer.param_groups)
        verdict = judge(self.records, maximize=maximize)
        if gradient is None or verdict.kind != "critical":
            return verdict
        from .curvature import extreme_curvatures

        optimizer, gradient = trial.adapted_gradient(self._optimizer, gradient)
        smallest, largest, error = extreme_curvatures(optimizer, gradient)
        evidence = verdict.evidence | {"smallest": smallest, "largest": largest, "curvature_error": error}
        kind = "saddle" if smallest < -error else "minimum"
        text = f"{verdict.text} Curvature (eigenvalues of the Hessian): from {smallest:.3g} to {largest:.3g}."
        return replace(verdict, kind=kind, text=text, evidence=evidence)

    def write_jsonl(self, path: str | Path) -> None:
        """Write the records, one JSON object a line; null where a number is not finite."""
        with Path(path).open("w", encoding="utf-8") as file:
            for row in self.records:
                plain = {k: v if math.isfinite(v) else None for k, v in row.items()}
                file.write(json.dumps(plain, allow_nan=False) + "\n")

    def write_csv(self, path: str | Path) -> None:
        """Write the records as a table with a header; nan and inf where a number is not finite."""
        names = ["update", "loss", "skipped", *_MEASURED, "clip_factor"]
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records)

    def plot(self, path: str | Path) -> None:
        """Draw loss, gradient norm, size of the updates, effective rate and bouncing over the updates.

        The format follows from the ending (.svg, .png, .pdf). Raises ModuleNotFoundError, saying what to install, if
        matplotlib is missing, and ValueError if there is no record yet.
        """
        if not self.records:
            raise ValueError("plot: expected at least one record, got none; call update(loss) after each step")
        with import_extra("Monitor.plot", "matplotlib"):
            from .figures import draw_run
        draw_run(self.records, Path(path))
