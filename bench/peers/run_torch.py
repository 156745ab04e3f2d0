"""Steps of lrfast.torch beside those of torch.optim, on torch tensors, after a backward pass whose threads still spin.

    python bench/peers/run_torch.py                # all rows, some minutes
    python bench/peers/run_torch.py --quick        # small cases, to see that it runs

All contenders of a row take turns in one process. Gradients are new tensors at each step, as after zero_grad().
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from shapes import shapes_of

import lrfast.torch

RULES = ("RMSprop", "NAdam", "RAdam", "Adamax", "Adadelta", "ASGD", "Rprop")
SHORTEST = 2e-3  # seconds of a timing
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", nargs="+", default=["step", "small", "clip", "rules"])
    parser.add_argument("--models", nargs="+", default=["ResNet-50", "GPT-2 small"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, help="write the medians and ratios")
    chosen = parser.parse_args()
    found = []
    for threads in chosen.threads:
        torch.set_num_threads(threads)
        for row in rows(chosen.rows, chosen.models, chosen.quick, chosen.rounds):
            found.append({**row, "threads": threads})
            ours = row["median"]["lrfast"]
            others = ", ".join(f"{name} {x / ours:.2f}" for name, x in row["median"].items() if name != "lrfast")
            print(
                f"{row['row']:>28}, {threads} thread(s): lrfast {ours * 1e6:10.1f} us; times as long: {others}",
                flush=True,
            )
    if chosen.json:
        chosen.json.write_text(json.dumps({"torch": torch.__version__, "rows": found}, indent=1))
    return 0


def rows(wanted: list[str], models: list[str], quick: bool, rounds: int) -> Iterator[Row]:
    """What was measured, row by row."""
    models = ["MLP"] if quick else models
    if "step" in wanted:
        for case in models:
            yield compared(f"AdamW, {case}", case, rounds, adamw, ("lrfast", "fused", "default", "foreach"))
    if "small" in wanted:
        yield compared("AdamW, MLP", "MLP", 5 * rounds, adamw, ("lrfast", "fused", "empty"))
    if "clip" in wanted:
        for case in models:
            names = ("lrfast", "fused", "fused, set_to_none")
            yield compared(f"clip + AdamW + zero, {case}", case, rounds, clipped, names)
    if "rules" in wanted:
        for rule in RULES:
            case = "100000" if quick else "25000000"

            def make(name: str, params: list[Any], rule: str = rule) -> Callable[[], None]:
                package = lrfast.torch if name == "lrfast" else torch.optim
                return stepping(getattr(package, rule)(params))

            yield compared(f"{rule}, {case}", case, rounds, make, ("lrfast", "default"))


def adamw(name: str, params: list[Any]) -> Callable[[], None]:
    """A step alone."""
    if name == "lrfast":
        return stepping(lrfast.torch.AdamW(params))
    if name == "empty":
        return stepping(Empty(params, {}))
    return stepping(torch.optim.AdamW(params, fused=name == "fused", foreach=name == "foreach"))


def clipped(name: str, params: list[Any]) -> Callable[[], None]:
    """A step with clipping before it and zeroing after it."""
    if name == "lrfast":
        return stepping(lrfast.torch.AdamW(params, clip_norm=1.0, zero_grads=True))
    optimizer = torch.optim.AdamW(params, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=name != "fused")

    return step


class Empty(torch.optim.Optimizer):
    """A step that does nothing: what PyTorch's own wrapper costs."""

    def step(self, closure: Any = None) -> None:
        """Nothing."""


def stepping(optimizer: Any) -> Callable[[], None]:
    return lambda: optimizer.step() and None


def compared(
    title: str, case: str, rounds: int, make: Callable[[str, list[Any]], Callable[[], None]], names: tuple[str, ...]
) -> Row:
    """Seconds of a step of each, in turns."""
    shapes = shapes_of(case)
    params = {name: [torch.nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes] for name in names}
    steps = {name: make(name, params[name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    spin = torch.nn.Linear(512, 512)
    for turn in range(rounds + 1):
        for name in names:
            count, spent = 0, 0.0
            while spent < SHORTEST:
                for p in params[name]:
                    p.grad = torch.full_like(p, 1e-3)
                spin(torch.ones(64, 512)).sum().backward()
                start = time.perf_counter()
                steps[name]()
                spent += time.perf_counter() - start
                count += 1
            if turn > 0:
                seconds[name].append(spent / count)
    return {"row": title, "median": {name: median(x) for name, x in seconds.items()}, "seconds": seconds}


if __name__ == "__main__":
    raise SystemExit(main())
