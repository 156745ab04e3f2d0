"""``lrfast bench``: what a step takes, and what it costs beside its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lrfast

from . import costs, report, speed

__all__ = ["PARTS", "run"]

PARTS = ("steps", "costs")
"""The table of steps, and all else that a step costs."""


def run(
    rules: Sequence[str],
    sizes: Sequence[int],
    dtypes: Sequence[str],
    isas: Sequence[str],
    *,
    rounds: int,
    threads: int,
    parts: Sequence[str] = PARTS,
    file: Path | None = None,
) -> None:
    """Measure and print; with ``file`` also write everything, with its provenance, as JSON.

    ``threads`` are those of lrfast in the table. Raises OSError before measuring if the file cannot be written.
    """
    if file is not None:
        file.touch()
    lrfast.show_config()
    results, rows = [], []
    if "steps" in parts:
        print(f"\none bound step(), {threads} thread{'s' if threads > 1 else ''}:\n")
        with lrfast.num_threads(threads):
            results = list(speed.measure_all(rules, sizes, dtypes, isas, rounds))
        report.print_table(results)
    if "costs" in parts:
        compiled = lrfast.isa() != "numpy"
        print("\nwhat else a step costs, float32:" if compiled else "\nno other costs: they need compiled kernels")
        for cost in costs.measure(rounds):
            print(report.line(cost), flush=True)
            rows.append(cost)
    if file is not None:
        file.write_text(report.to_json(results, rows) + "\n", encoding="utf-8")
        print(f"\nwritten: {file}")
