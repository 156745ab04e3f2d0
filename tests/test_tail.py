"""What rides along with an update: bits of the reference on every instruction set, and what each option means."""

from __future__ import annotations

import numpy as np
import pytest

import lrfast

from cases import VARIANTS, make_grads, make_params, same_bits

ISAS = [isa for isa in lrfast.available_isas() if isa != "numpy"]
SIZES = (1, 33, 1024, 3001)
TAILS = {
    "clip-norm": {"clip_norm": 0.5},
    "clip-value": {"clip_value": 0.3},
    "clip-both": {"clip_value": 0.3, "clip_norm": 1.0},
    "skip": {"nonfinite": "skip", "zero_grads": True},
    "zero": {"zero_grads": True},
    "ema": {"ema": 0.9},
    "ema-fast": {"ema": 0.3},
    "stats": {"stats": True},
    "stats-norms": {"stats": "norms"},
    "stats-3": {"stats": 3, "clip_value": 0.1},
    "all": {"clip_norm": 2.0, "clip_value": 5.0, "nonfinite": "skip", "zero_grads": True, "ema": 0.99, "stats": True},
}


def run(isa, variant, tail, dtype, steps=4, special=False, copies=None):
    """Everything that a few steps leave behind, as a list of arrays."""
    cls, settings = VARIANTS[variant]
    params = [make_params(n, dtype, seed=k) if special else ordinary(n, dtype, k) for k, n in enumerate(SIZES)]
    copied = None if copies is None else [np.zeros(p.shape, copies) for p in params]
    optimizer = cls(params, **settings, **tail, copy_to=copied)
    rows, numbers = [], []
    with lrfast.use_isa(isa):
        for t in range(steps):
            grads = [
                make_grads(n, dtype, seed=100 * t + k) if special else ordinary(n, dtype, 100 * t + k)
                for k, n in enumerate(SIZES)
            ]
            grads[t % 4] = None
            optimizer.step(grads, grad_scale=-0.7 if t == 2 else 1.5)
            report = optimizer.report
            numbers += [report.grad_norm, report.clip_factor, report.skipped, report.updated, optimizer.updates]
            rows += [g for g in grads if g is not None]
            if len(optimizer.stats):
                rows.append(optimizer._bindings.recorder.rows.copy())
    states = [array for state in optimizer.state for name, array in state.items() if name != "step"]
    numbers += [state["step"] for state in optimizer.state]
    arrays = [*params, *states, *(optimizer.ema or []), *(copied or []), *rows, np.array(numbers, float)]
    return [a if a.dtype.kind == "f" else a.view(np.uint16) for a in arrays]


def ordinary(n, dtype, seed):
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for k, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        same = same_bits(x, y) if x.dtype in (np.float32, np.float64) else np.array_equal(x, y)
        assert same, (k, x, y)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("variant", ["adamw", "nesterov"])
def test_every_option_has_the_bits_of_the_reference(variant, tail, dtype, isa):
    assert_same(run(isa, variant, TAILS[tail], dtype), run("numpy", variant, TAILS[tail], dtype))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_rule_has_the_bits_of_the_reference(variant, dtype, isa):
    assert_same(run(isa, variant, TAILS["all"], dtype), run("numpy", variant, TAILS["all"], dtype))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tail", ["clip-both", "ema", "stats", "stats-norms"])
def test_difficult_numbers_too(tail, dtype, isa):
    for variant in ("adam", "momentum", "rmsprop-centered"):
        ours, theirs = (run(i, variant, TAILS[tail], dtype, special=True) for i in (isa, "numpy"))
        assert_same(ours, theirs)
