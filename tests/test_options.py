"""What surrounds an update: bits of the reference on every instruction set, and what each option means."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lrfast
from lrfast import schedules

from arrays import make_grads, make_params, same_bits, snapshot
from variants import VARIANTS

ISAS = [isa for isa in lrfast.available_isas() if isa != "numpy"]
SIZES = (1, 33, 1024, 3001)
OPTIONS = {
    "clip-norm": {"clip_norm": 0.5},
    "clip-value": {"clip_value": 0.3},
    "clip-both": {"clip_value": 0.3, "clip_norm": 1.0},
    "skip": {"nonfinite": "skip", "zero_grads": True},
    "zero": {"zero_grads": True},
    "ema": {"ema": 0.9},
    "ema-fast": {"ema": 0.3},
    "ema-float64": {"ema": 0.99, "ema_dtype": "float64"},
    "ema-scheduled": {"ema": schedules.equal_weight(), "ema_dtype": "float64"},
    "stats": {"stats": True},
    "stats-norms": {"stats": "norms"},
    "stats-3": {"stats": 3, "clip_value": 0.1},
    "all": {"clip_norm": 2.0, "clip_value": 5.0, "nonfinite": "skip", "zero_grads": True, "ema": 0.99, "stats": True},
}


def run(isa, variant, options, dtype, steps=4, special=False, copies=None, bad=None):
    """Everything that a few steps leave behind, as a list of arrays."""
    params = [make_params(n, dtype, seed=k) if special else ordinary(n, dtype, k) for k, n in enumerate(SIZES)]
    copied = None if copies is None else [np.zeros(p.shape, copies) for p in params]
    optimizer = VARIANTS[variant].make(params, **options, copy_to=copied)
    rows, numbers = [], []
    with lrfast.use_isa(isa):
        for t in range(steps):
            grads = [
                make_grads(n, dtype, seed=100 * t + k) if special else ordinary(n, dtype, 100 * t + k)
                for k, n in enumerate(SIZES)
            ]
            grads[t % 4] = None
            if bad is not None and t % 4 == 1:
                grads[3][2999] = bad
            optimizer.step(grads, grad_scale=-0.7 if t == 2 else 1.5)
            report = optimizer.report
            numbers += [report.grad_norm, report.clip_factor, report.skipped, report.updated, optimizer.updates]
            rows += [g for g in grads if g is not None]
            if len(optimizer.stats):
                rows.append(optimizer._recorder.rows.copy())
    states = [np.asarray(value) for state in optimizer.state for name, value in state.items() if name != "step"]
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
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("variant", ["adamw", "nesterov"])
def test_every_option_has_the_bits_of_the_reference(variant, options, dtype, isa):
    assert_same(run(isa, variant, OPTIONS[options], dtype), run("numpy", variant, OPTIONS[options], dtype))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_rule_has_the_bits_of_the_reference(variant, dtype, isa):
    assert_same(run(isa, variant, OPTIONS["all"], dtype), run("numpy", variant, OPTIONS["all"], dtype))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", ["clip-both", "ema", "ema-float64", "stats", "stats-norms"])
def test_difficult_numbers_too(options, dtype, isa):
    for variant in ("adam", "momentum", "rmsprop-centered"):
        ours, theirs = (run(i, variant, OPTIONS[options], dtype, special=True) for i in (isa, "numpy"))
        assert_same(ours, theirs)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", ["skip", "all"])
def test_skipped_steps_in_between(options, bad, isa):
    ours, theirs = (run(i, "adamw", OPTIONS[options], np.float32, bad=bad, steps=6) for i in (isa, "numpy"))
    assert_same(ours, theirs)


@pytest.mark.parametrize("copies", [np.float16, np.float32, np.uint16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_have_the_bits_of_the_reference(dtype, copies):
    theirs = run("numpy", "adamw", {}, dtype, copies=copies)
    for isa in ISAS:
        assert_same(run(isa, "adamw", {}, dtype, copies=copies), theirs)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 16])
def test_the_same_bits_for_any_number_of_threads(threads):
    def everything(n):
        params = [ordinary(300_001, np.float32, 1), ordinary(77, np.float32, 2), ordinary(200_000, np.float64, 3)]
        grads = [ordinary(p.size, p.dtype, 10 + p.size) for p in params]
        optimizer = lrfast.AdamW(params, clip_norm=1.0, nonfinite="skip", stats=True, ema=0.9)
        with lrfast.num_threads(n):
            for _ in range(3):
                optimizer.step(grads)
        report = optimizer.report
        numbers = np.array([report.grad_norm, report.clip_factor])
        return [*params, *optimizer.ema, optimizer._recorder.rows, numbers]

    assert_same(everything(threads), everything(1))


# ---- what the options mean -----------------------------------------------------------------------------------


def with_both_plans(test):
    """With the best instruction set, on the reference in its place, and by the plan in NumPy."""
    forced = pytest.mark.usefixtures("forced_isa")(test)
    return pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy", "numpy plan"])(forced)


def everywhere(test):
    """With every instruction set, and on the reference."""
    forced = pytest.mark.usefixtures("forced_isa")(test)
    return pytest.mark.parametrize("isa", lrfast.available_isas())(forced)


def make(options, *, settings=(), sizes=(2000, 3), dtype=np.float32, cls=lrfast.SGD):
    """An optimizer of ones, and these."""
    params = [np.ones(n, dtype) for n in sizes]
    return cls(params, **dict(settings), **options), params


@everywhere
def test_clip_norm_is_global_and_of_scaled_gradients(isa):
    optimizer, params = make({"clip_norm": 1.0}, settings={"lr": 1.0}, sizes=(3, 1))
    optimizer.step([np.array([2, 0, 0], "f"), np.array([4], "f")], grad_scale=0.5)
    factor = 1 / (5**0.5 + 1e-6)
    assert optimizer.report.grad_norm == 5**0.5
    assert optimizer.report.clip_factor == factor
    assert params[0][0] == np.float32(1 - np.float32(0.5 * factor) * 2)
    assert params[0][1] == 1
    optimizer.step([np.zeros(3, "f"), np.zeros(1, "f")])
    assert optimizer.report.grad_norm == 0
    assert optimizer.report.clip_factor == 1
    optimizer.clip_norm = None
    optimizer.step([np.zeros(3, "f"), np.full(1, 3, "f")])
    assert np.isnan(optimizer.report.grad_norm)


@everywhere
def test_a_denormal_factor_of_the_norm_has_all_its_digits_beside_a_large_scale(isa):
    param = np.zeros(1)
    lrfast.SGD(param, lr=1.0, clip_norm=0.01).step(np.array([1.1e303]), grad_scale=1e5)
    assert param[0] == pytest.approx(-0.01, rel=1e-15, abs=0)


@everywhere
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_value_limits_scaled_gradients_however_large_the_scale(isa, dtype):
    param, grad = np.zeros(3, dtype), np.array([1.0, 0.0, -30.0], dtype)
    with lrfast.use_isa(isa):
        lrfast.SGD(param, lr=1.0, clip_value=100.0).step(grad, grad_scale=8.0)
    assert param.tolist() == [-8.0, 0.0, 100.0]


@everywhere
def test_clip_value_comes_before_clip_norm(isa):
    optimizer, params = make({"clip_value": 1.0, "clip_norm": 1.0}, settings={"lr": 1.0}, sizes=(4,))
    optimizer.step([np.array([3, -4, 0, 0], "f")], grad_scale=2.0)
    factor = np.float32(1 / (2**0.5 + 1e-6))
    assert optimizer.report.grad_norm == 10
    assert np.array_equal(params[0], np.array([1 - factor, 1 + factor, 1, 1], "f"))


@everywhere
@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_norms_of_large_and_small_numbers(isa, size):
    optimizer, _ = make({"clip_norm": 1.0, "stats": True}, settings={"lr": 1e-30}, sizes=(1000,))
    optimizer.step([np.full(1000, size, "f")])
    expected = float(np.float32(size)) * 1000**0.5
    assert optimizer.report.grad_norm == pytest.approx(expected, rel=1e-14)
    assert optimizer.stats["total"]["grad_norm"] == optimizer.report.grad_norm


@everywhere
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("tensor", "place"), [*((0, k * 125) for k in range(16)), (0, 1999), (1, 0), (2, 0), (2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_skipped_step_changes_nothing(isa, bad, tensor, place, dtype):
    options = {"nonfinite": "skip", "clip_norm": 1.0, "ema": 0.9, "stats": True}
    optimizer, params = make(options, cls=lrfast.AdamW, sizes=(2000, 1, 3), dtype=dtype)
    grads = [np.ones(p.shape, dtype) for p in params]
    optimizer.step(grads)
    before = snapshot(optimizer, *params, *optimizer.ema), dict(optimizer.stats["total"], rates=0)
    grads[tensor][place] = bad
    copies = [g.copy() for g in grads]
    optimizer.step(grads)
    assert optimizer.report.skipped
    assert optimizer.report.updated == 0
    assert optimizer.skipped == 1
    assert before == (snapshot(optimizer, *params, *optimizer.ema), dict(optimizer.stats["total"], rates=0))
    assert all(same_bits(g, c) for g, c in zip(grads, copies, strict=True))
    grads[tensor][...] = 1
    optimizer.step(grads)
    assert not optimizer.report.skipped
    assert optimizer.updates == 2
    assert optimizer.skipped == 1


@everywhere
def test_raise_names_the_tensor_and_writes_nothing(isa):
    optimizer, params = make({"nonfinite": "raise", "zero_grads": True}, cls=lrfast.Adam)
    before = snapshot(optimizer, *params)
    grads = [np.ones(2000, "f"), np.array([1, np.inf, 2], "f")]
    with pytest.raises(FloatingPointError, match=r"grads\[1\]"):
        optimizer.step(grads)
    assert before == snapshot(optimizer, *params)
    assert grads[0][0] == 1


@everywhere
def test_finite_gradients_that_overflow_when_scaled(isa):
    optimizer, _params = make({"nonfinite": "skip"})
    grads = [np.zeros(2000, "f"), np.full(3, 1e30, "f")]
    optimizer.step(grads, grad_scale=1e10)
    assert optimizer.report.skipped
    optimizer.step(grads, grad_scale=1.0)
    assert not optimizer.report.skipped
    doubles, _ = make({"nonfinite": "skip"}, dtype=np.float64, sizes=(3,))
    doubles.step([np.full(3, 1e200)])  # whose squares overflow
    assert not doubles.report.skipped


@everywhere
def test_propagate_is_the_default(isa):
    optimizer, params = make({})
    optimizer.step([np.full(2000, np.nan, "f"), np.ones(3, "f")])
    assert np.isnan(params[0]).all()
    assert optimizer.updates == 1


@everywhere
def test_zero_grads(isa):
    optimizer, params = make({"zero_grads": True, "nonfinite": "skip"}, settings={"lr": 0.5})
    grads = [np.ones(2000, "f"), None]
    optimizer.step(grads)
    assert not grads[0].any()
    assert params[0][7] == 0.5
    grads[0][5] = np.nan
    optimizer.step(grads)


@everywhere
def test_averages(isa):
    optimizer, params = make({"ema": 0.75}, settings={"lr": 1.0}, sizes=(5,))
    optimizer.step([np.ones(5, "f")])
    assert np.array_equal(params[0], np.zeros(5))
    assert np.array_equal(optimizer.ema[0], np.full(5, 0.75))
    with optimizer.use_ema():
        assert params[0][0] == 0.75
        assert optimizer.ema[0][0] == 0
        with pytest.raises(RuntimeError, match="changed places"):
            optimizer.step([np.ones(5, "f")])
    assert params[0][0] == 0
    assert optimizer.ema[0][0] == 0.75
    saved = optimizer.state_dict()
    other, _ = make({"ema": 0.75}, sizes=(5,))
    other.load_state_dict(saved)
    assert np.array_equal(other.ema[0], optimizer.ema[0])
    assert other.ema[0] is not saved["ema"][0]
    del saved["ema"]
    other.load_state_dict(saved)
    assert np.array_equal(other.ema[0], other.param_groups[0]["params"][0])
    saved["ema"] = [np.zeros(4, "f")]
    with pytest.raises(ValueError, match=r"ema\[0\]"):
        other.load_state_dict(saved)


@everywhere
def test_pickle_and_deepcopy_take_everything_along(isa):
    copies = [np.zeros(2000, "f2"), np.zeros(3, "f2")]
    optimizer, params = make({"ema": 0.5, "copy_to": copies, "clip_norm": 2.0, "stats": 2})
    grads = [np.ones(2000, "f"), np.ones(3, "f")]
    optimizer.step(grads)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        twin.step(grads)
        assert twin.clip_norm == 2.0
        assert twin.copy_to[0][0] == np.float16(twin.param_groups[0]["params"][0][0])
        assert twin.ema[0] is not optimizer.ema[0]
        assert copies[0][0] == np.float16(params[0][0])


@everywhere
def test_copies_round_to_nearest_even(isa):
    import ml_dtypes

    patterns = np.concatenate(
        [np.arange(0, 2**32, 9973, np.uint32), np.arange(0x33000000, 0x39000000, 4093, np.uint32)]
    )
    values = patterns.view(np.float32)
    values = values[np.isfinite(values)]
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        copy_to = np.ones(values.shape, dtype)
        lrfast.SGD(values.copy(), lr=0.0, copy_to=copy_to).step(np.zeros_like(values))
        with np.errstate(over="ignore"):
            assert copy_to.tobytes() == (values - np.float32(0)).astype(dtype).tobytes()


def test_groups_may_join_with_everything():
    optimizer = lrfast.Adam([np.ones(3)], ema=0.5, copy_to=[np.zeros(3, "f")], stats=True)
    optimizer.step([np.ones(3)])
    with pytest.raises(ValueError, match="copy_to"):
        optimizer.add_param_group({"params": [np.ones(2)]})
    more = np.zeros(2, "f2")
    optimizer.add_param_group({"params": [np.full(2, 7.0)], "copy_to": [more]})
    optimizer.step([np.ones(3), np.ones(2)])
    assert len(optimizer.ema) == 2
    assert more[0] == 7
    assert len(optimizer.stats) == 3
