"""The rows of run_options.py: who takes part in each, and whether all of them compute the same."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from contract import RULES, Arrays, Contender
from measure import in_turns, split, summary, together
from passes_numpy import Passes
from shapes import make_arrays

import lrfast
from lrfast.lab.bench._roofline import Stream

SETTINGS: dict[str, Any] = {"lr": RULES["adamw"]["lr"], "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
MODELS = ("ResNet-50", "GPT-2 small")
READ = "20000000"
SINGLE = "400000"
QUICK = {"ResNet-50": "MLP", "GPT-2 small": "10,000 tensors", READ: "100000", SINGLE: "16384"}
Row = dict[str, Any]


def measure(threads: int, most: int, rounds: int, *, quick: bool, torch: bool) -> Iterator[Row]:
    """All rows with so many threads; the largest statistics only with the most."""
    lrfast.set_num_threads(threads)
    _compare(threads, torch)

    def measured(title: str, name: str, make: Callable[..., list[Contender]], *arguments: Any) -> Row:
        case = QUICK[name] if quick else name
        contenders = make(case, threads, *arguments)
        row = {"row": title, "case": case, "threads": threads, **summary(in_turns(contenders, rounds))}
        _print(row)
        return row

    for model in MODELS:
        yield measured("clip + AdamW + zero grads", model, _with_options, torch, False)
        gc.collect()
        yield measured("clip + AdamW + zero grads + bf16 copy", model, _with_options, torch, True)
        gc.collect()
    yield measured("norm pass", READ, _norm_pass)
    for name in (SINGLE, "GPT-2 small") if threads == most else (SINGLE,):
        gc.collect()
        yield measured("AdamW + statistics", name, _statistics, torch)


def _print(row: Row) -> None:
    ours = row["median"]["lrfast"]
    print(f"\n{row['row']}, {row['case']}, {row['threads']} thread(s): lrfast {ours * 1e3:.3f} ms")
    for name, ratio in row["ratio"].items():
        if name != "lrfast":
            print(f"    {name:>25} {row['median'][name] * 1e3:>10.3f} ms  {ratio:>7.2f} x lrfast", flush=True)


# ---- rows --------------------------------------------------------------------------------------------------------


def _with_options(case: str, threads: int, torch: bool, copies: bool) -> list[Contender]:
    """Each with memory of its own, since each zeroes its gradients; they are filled again before each timing."""
    params, grads = make_arrays(case, 1), make_arrays(case, 2)
    halves = [np.empty(p.shape, np.uint16) for p in params] if copies else None
    optimizer = lrfast.AdamW(params, grads=grads, **SETTINGS, clip_norm=1.0, zero_grads=True, copy_to=halves)
    contenders = [Contender("lrfast", optimizer.step, lambda: params, _filler(grads))]
    if torch:
        from passes_torch import StepWithOptions, adamw

        others, other_grads = [p.copy() for p in params], [g.copy() for g in grads]
        step = StepWithOptions(adamw(others, other_grads, SETTINGS, threads), 1.0, copies=copies)
        contenders.append(Contender("torch", step, lambda: others, _filler(other_grads)))
    return contenders


def _filler(grads: Arrays) -> Callable[[], None]:
    def fill() -> None:
        for grad in grads:
            grad.fill(0.01)

    return fill


def _norm_pass(case: str, threads: int) -> list[Contender]:
    """A step that is skipped for its last gradient does nothing but the pass over all of them."""
    (param,), (grad,) = make_arrays(case, 1), make_arrays(case, 2)
    grad[-1] = np.nan
    optimizer = lrfast.SGD(param, grads=grad, lr=1e-6, clip_norm=1.0, nonfinite="skip")
    contenders = [Contender("lrfast", optimizer.step, lambda: [param])]
    for isa in lrfast.available_isas():
        if isa in ("avx512", "avx2", "neon"):
            parts = [Stream(isa, part) for part in split([(grad, [])], threads)]
            contenders.append(Contender(f"read only, {isa}", together(parts), lambda: []))
    return contenders


def _statistics(case: str, threads: int, torch: bool) -> list[Contender]:
    """All update the same parameters, each with states of its own."""
    params, grads = make_arrays(case, 1), make_arrays(case, 2)

    def make(stats: Any) -> lrfast.AdamW:
        return lrfast.AdamW(params, grads=grads, **SETTINGS, stats=stats)

    plain = make(False)
    passes = Passes(params, grads, list(plain.state), SETTINGS["lr"], SETTINGS["betas"][1], SETTINGS["eps"])
    steps: dict[str, Callable[[], object]] = {
        "lrfast": plain.step,
        "lrfast, norms": make("norms").step,
        "lrfast, all": make(True).step,
        "lrfast + NumPy, norms": _surrounded(passes, plain.step, passes.norms),
        "lrfast + NumPy, all": _surrounded(passes, plain.step, passes.everything),
    }
    if torch:
        import passes_torch

        optimizer = passes_torch.adamw(params, grads, SETTINGS, threads)
        optimizer.step()  # makes its states
        others = passes_torch.Passes(optimizer)
        steps |= {
            "torch": optimizer.step,
            "torch, norms": _surrounded(others, optimizer.step, others.norms),
            "torch, all": _surrounded(others, optimizer.step, others.everything),
        }
    return [Contender(name, step, lambda: params) for name, step in steps.items()]


def _surrounded(passes: Any, step: Callable[[], object], look: Callable[[], dict[str, float]]) -> Callable[[], object]:
    def all_of_it() -> dict[str, float]:
        passes.before()
        step()
        return look()

    return all_of_it


# ---- do they compute the same? -----------------------------------------------------------------------------------


def _compare(threads: int, torch: bool) -> None:
    """Three steps each on a small network; stops where results or statistics differ."""
    if torch:
        ours, theirs = _with_options("MLP", threads, torch, copies=True)
        for contender in (ours, theirs):
            for _ in range(3):
                contender.prepare()
                contender.step()
        error = max(float(np.max(np.abs(a - b))) for a, b in zip(ours.result(), theirs.result(), strict=True))
        _expect("parameters after clipping", error, 0.0, absolute=1e-6)

    settings = {**SETTINGS, "lr": 0.01, "weight_decay": 0.0}  # with decay, p moves by more than the update
    params, grads = make_arrays("MLP", 1), make_arrays("MLP", 2)
    optimizer = lrfast.AdamW(params, grads=grads, **settings, stats=True)
    passes = [Passes(params, grads, list(optimizer.state), settings["lr"], settings["betas"][1], settings["eps"])]
    looks = [_surrounded(passes[0], optimizer.step, passes[0].everything)]
    if torch:
        import passes_torch

        other = passes_torch.adamw([p.copy() for p in params], grads, settings, threads)
        other.step()
        for state in other.state.values():  # made, and as if it had not been used
            for value in state.values():
                value.zero_()
        for p, own in zip(other.param_groups[0]["params"], params, strict=True):
            p.data.copy_(passes_torch.torch.from_numpy(own))
        others = passes_torch.Passes(other)
        looks.append(_surrounded(others, other.step, others.everything))
    rng = np.random.default_rng(0)
    for _ in range(3):
        for grad in grads:
            grad += 0.1 * rng.standard_normal(grad.shape, dtype=np.float32)
        results = [look() for look in looks]
    expected = optimizer.stats["total"]
    for result in results:
        for key, value in result.items():
            _expect(key, value, expected[key], relative=0.5 if key == "rate_median" else 1e-2)  # differences of float32


def _expect(what: str, value: float, expected: float, relative: float = 0.0, absolute: float = 1e-12) -> None:
    if not abs(value - expected) <= relative * abs(expected) + absolute:
        raise SystemExit(f"{what}: expected {expected}, got {value}; nothing is timed")
