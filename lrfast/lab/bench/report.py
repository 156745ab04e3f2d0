"""What was measured, for people and as JSON, and where it was measured."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lrfast

from .costs import Cost
from .numpy_steps import UNWRITTEN
from .speed import Result

__all__ = ["line", "print_table", "provenance", "to_json"]


def print_table(results: Sequence[Result]) -> None:
    """The table for people."""
    head = f"{'rule':>25} {'elements':>11} {'dtype':>8} {'isa':>9} {'us/step':>10} {'ns/element':>11} {'GB/s':>6}"
    print(f"{head} {'% of stream':>12} {'x naive':>8} {'x in-place':>11}")
    for r in results:
        stream = "" if r.stream_ratio is None else f"{100 * r.stream_ratio:.0f}"
        print(
            f"{r.rule:>25} {r.size:>11,} {r.dtype:>8} {r.isa:>9} {r.median['lrfast'] * 1e6:>10.2f} "
            f"{r.ns_per_element:>11.3f} {r.gigabytes_per_second:>6.1f} {stream:>12} "
            f"{r.naive_ratio:>8.2f} {r.inplace_ratio:>11.2f}"
        )
    print(
        "\nMedians over rounds. % of stream: bandwidth, in per cent of the fastest loop that only reads and writes the"
    )
    print("same buffers; x: how many times as long NumPy takes, one expression per line or in place with out=.")
    if any(r.rule in UNWRITTEN for r in results):
        print(f"Of {', '.join(UNWRITTEN)} it is the reference that takes so many times as long, in both columns.")


def line(cost: Cost) -> str:
    """A row of the costs for people."""
    goal = "" if cost.goal is None else f"  (at most {cost.goal:g}{', missed' if cost.value > cost.goal else ''})"
    return f"  {cost.name:<82} {cost.value:>8.3g} {cost.unit}{goal}"


def to_json(results: Sequence[Result], costs: Sequence[Cost]) -> str:
    """Everything measured, and where it was measured."""
    measured = {"results": [asdict(r) for r in results], "costs": [asdict(c) for c in costs]}
    return json.dumps({"provenance": provenance(), **measured}, indent=1)


def provenance() -> dict[str, Any]:
    """Machine, compiler, versions, commit, time."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**(lrfast.show_config("dicts") or {}), "commit": _commit(), "time": now}


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
