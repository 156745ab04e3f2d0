"""Squares that are beyond the element type: refused before the step, counted in it, told by statistics and Monitor.

In C: tests/c/test_overflow.c.
"""

from __future__ import annotations

import numpy as np
import pytest

import lrfast
from lrfast._engine import backend, numpy_plan

from arrays import snapshot
from variants import VARIANTS, rule_of, taken

ISAS = lrfast.available_isas()
DTYPES = [np.float32, np.float64]
SIZES = {np.float32: [1e15, 1.8e19, 1.9e19, 1e25, 3e38], np.float64: [1e150, 1.3e154, 1.4e154, 1e200, 1.7e308]}
BEYOND = {np.float32: 3e19, np.float64: 1e160}  # whose square is
SQUARING = [name for name, variant in VARIANTS.items() if rule_of(variant.make(np.zeros(1))).squares]
PLANS = [pytest.param(backend.Plan, id="compiled"), pytest.param(numpy_plan.Plan, id="numpy")]


def make(variant, dtype, **options):
    params = [np.ones(3, dtype), np.ones(2500, dtype)]
    return VARIANTS[variant].make(params, **options), params


def gradients(dtype, size, places=(1100,)):
    """Ordinary ones, and some of this size in the second tensor."""
    grads = [np.full(3, 0.5, dtype), np.full(2500, 0.5, dtype)]
    grads[1][list(places)] = size
    return grads


def squares(optimizer):
    """The sums or averages of squares of the second tensor."""
    return optimizer.state[1][rule_of(optimizer).squares]


def test_rules_that_square():
    """The slot of squares has nothing else, and all that squares."""
    rules = {rule_of(VARIANTS[name].make(np.zeros(1))).squares for name in SQUARING}
    assert rules == {"sum", "square_avg", "exp_avg_sq"}
    others = {rule_of(v.make(np.zeros(1))).name for name, v in VARIANTS.items() if name not in SQUARING}
    for variant in VARIANTS.values():
        optimizer = variant.make(np.ones(2, np.float32))
        optimizer.step(np.full(2, 1e-15, np.float32))
        optimizer.step(np.full(2, 1e25, np.float32))
        states = [x for name, x in optimizer.state[0].items() if name != "step"]
        kept = all(np.isfinite(x).all() for x in states)
        assert kept == (rule_of(optimizer).name in others), variant.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_square_that_is_not_finite_is_refused(variant, dtype):
    for size in SIZES[dtype]:
        with np.errstate(over="ignore"):
            refused = variant in SQUARING and bool(np.isinf(dtype(size) * dtype(size)))
        for isa in ("numpy", ISAS[0]):
            for policy in ("skip", "raise"):
                optimizer, params = make(variant, dtype, nonfinite=policy, stats=True)
                grads, before = gradients(dtype, -size), snapshot(optimizer, *params)
                with lrfast.use_isa(isa):
                    if refused and policy == "raise":
                        with pytest.raises(
                            FloatingPointError, match=rf"^grads\[1\]: .*squares.*{dtype.__name__}.*clip_norm"
                        ) as error:
                            optimizer.step(grads)
                        assert f"{size:.3g}" in str(error.value)
                    else:
                        optimizer.step(grads)
                assert optimizer.report.skipped == (refused and policy == "skip"), (size, isa)
                assert optimizer.updates == (not refused)
                assert optimizer.skipped == (refused and policy == "skip")
                assert (before == snapshot(optimizer, *params)) == refused
                assert optimizer.report.overflowed == 0
                assert optimizer.report.grad_norm == pytest.approx(size)
                if not refused and variant in SQUARING:
                    assert np.isfinite(squares(optimizer)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tile_whose_norm_is_too_large_but_no_element_is_not_refused(dtype, isa):
    """In front of the number whose square is the first that is infinite, and at it."""
    with np.errstate(over="ignore"):
        largest = np.sqrt(np.finfo(dtype).max)
        while np.isfinite(np.nextafter(largest, dtype(np.inf)) ** 2):
            largest = np.nextafter(largest, dtype(np.inf))
        while not np.isfinite(largest**2):
            largest = np.nextafter(largest, dtype(0))
    for scale, clip in [(1.0, None), (-0.5, None), (4.0, None), (1.0, float(np.finfo(dtype).max) / 4)]:
        for size, skipped in [(largest, False), (np.nextafter(largest, dtype(np.inf)), True)]:
            optimizer, _ = make("adam", dtype, nonfinite="skip", clip_value=clip)
            with lrfast.use_isa(isa):
                optimizer.step(gradients(dtype, size / dtype(scale), range(2500)), grad_scale=scale)
            assert optimizer.report.skipped is skipped, (scale, clip)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_clipped_gradients_pass(variant, dtype):
    for options in ({"clip_norm": 1.0}, {"clip_value": 1.0}, {"clip_value": BEYOND[dtype], "clip_norm": 1.0}):
        for isa in ("numpy", ISAS[0]):
            optimizer, params = make(variant, dtype, nonfinite="raise", **options)
            with lrfast.use_isa(isa):
                optimizer.step(gradients(dtype, SIZES[dtype][-1]))
                optimizer.step(gradients(dtype, 1.0), grad_scale=BEYOND[dtype])
            assert optimizer.updates == 2
            assert all(np.isfinite(p).all() for p in params)
            if variant in SQUARING:
                assert np.isfinite(squares(optimizer)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_the_error_names_the_one_cause(isa):
    optimizer = lrfast.Adam(np.ones(3), nonfinite="raise")
    with lrfast.use_isa(isa):
        with pytest.raises(FloatingPointError, match="expected finite gradients, got 1 "):
            optimizer.step(np.array([1.0, np.nan, 1e200]))
        with pytest.raises(FloatingPointError, match=r"1e\+200 once scaled"):
            optimizer.step(np.array([1.0, 1.0, 1e200]))


def edge(dtype, scale):
    """Gradients around the least whose square is infinite once they are scaled as rules scale them."""
    infinite = dtype(np.sqrt(np.finfo(dtype).max) / dtype(scale))
    for direction in (0, np.inf):
        g = infinite
        for _ in range(4):
            yield g
            g = np.nextafter(g, dtype(direction))


@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_refused_is_just_what_the_rule_cannot_square(dtype, clips, isa):
    rng, refused = np.random.default_rng(0), 0
    clip_value = float(np.finfo(dtype).max) if clips else None
    optimizer = lrfast.Adam(np.ones(1, dtype), nonfinite="skip", clip_value=clip_value)
    for scale in rng.uniform(0.5, 4, 60):
        for g in edge(dtype, scale):
            with lrfast.use_isa(isa):
                optimizer.step(np.array([g]), grad_scale=scale)
            with np.errstate(over="ignore"):
                x = dtype(scale) * g
                assert optimizer.report.skipped == np.isinf(x * x), (scale, g)
            refused += optimizer.report.skipped
    assert 100 < refused < 380


# ---- in the update -----------------------------------------------------------------------------------------------


def decaying(variant, dtype, **options):
    """With weight decay that makes squares overflow: of two elements of the second tensor, in different tiles."""
    options |= taken(VARIANTS[variant].cls, {"weight_decay": 1.0, "decoupled_weight_decay": False})
    optimizer, params = make(variant, dtype, **options)
    params[1][[5, 2200]] = np.finfo(dtype).max / 4
    return optimizer, params


COUPLED = [name for name in SQUARING if "adamw" not in name and name != "amsgrad-low-decoupled"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", COUPLED)
def test_what_overflows_in_the_update_is_counted(variant, dtype):
    grads = gradients(dtype, 0.25)
    for isa in ("numpy", ISAS[0]):
        for stats in (False, True, "norms"):
            optimizer, _ = decaying(variant, dtype, nonfinite="skip", stats=stats)
            with lrfast.use_isa(isa):
                optimizer.step(grads)
                assert np.flatnonzero(np.isinf(squares(optimizer))).tolist() == [5, 2200]
                assert optimizer.report.overflowed == 2
                assert not optimizer.report.skipped
                optimizer.step(grads)
            assert optimizer.report.overflowed == 0, "they had overflowed before"
            assert optimizer.updates == 2
        optimizer, params = decaying(variant, dtype, nonfinite="raise")
        plain, expected = decaying(variant, dtype)
        with lrfast.use_isa(isa):
            plain.step(grads)
            with pytest.raises(FloatingPointError, match=r"^params\[1\]: .* 2 elements .*completed.*weight_decay"):
                optimizer.step(grads)
        assert snapshot(optimizer, *params)[:3] == snapshot(plain, *expected)[:3], "the step was completed"
        assert plain.report.overflowed == 0, "nobody asked"
        assert optimizer.report.overflowed == 2


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_that_overflows_is_counted(dtype, isa):
    largest = float(np.finfo(dtype).max)
    small = 2.0**52 if dtype == np.float32 else 2.0**485  # whose square is a unit or half a one in the last place
    for size, options in [
        (1.0, {}),
        (small, {}),
        (largest**0.5 / 2, {}),
        (BEYOND[dtype], {"clip_value": largest**0.5 / 2}),
    ]:
        optimizer, _ = make("adagrad", dtype, nonfinite="skip", initial_accumulator_value=largest, **options)
        with lrfast.use_isa(isa):
            optimizer.step(gradients(dtype, size, [0, 1023, 1024, 2499]))
        assert optimizer.report.overflowed == (0 if size == 1 else 4)
        assert np.isinf(squares(optimizer)).sum() == optimizer.report.overflowed


@pytest.mark.parametrize("plan", PLANS)
def test_in_parts(plan, monkeypatch):
    monkeypatch.setattr(backend, "Plan", plan)
    for parts in (1, 2, 5):
        optimizer, _ = decaying("rmsprop-centered", np.float32, nonfinite="skip")
        for run in optimizer._plan.phases(gradients(np.float32, 0.25), 1.0):
            for part in reversed(range(parts)):
                run(part, parts)
        assert optimizer.report.overflowed == 2
        optimizer, params = make("adam", np.float64, nonfinite="raise")
        before = snapshot(optimizer, *params)
        phases = optimizer._plan.phases(gradients(np.float64, 1e200), 1.0)
        for _ in range(2):  # the second in units of 2^600
            run = next(phases)
            for part in range(parts):
                run(part, parts)
        with pytest.raises(FloatingPointError, match="1e\\+200"):
            next(phases)
        assert before == snapshot(optimizer, *params)
        assert optimizer.report.grad_norm == pytest.approx(1e200)


@pytest.mark.parametrize("threads", [1, 4])
def test_on_threads(threads):
    param, grad = np.ones(300_001, np.float32), np.full(300_001, 0.5, np.float32)
    param[[7, 150_000, 300_000]] = 1e25
    optimizer = lrfast.Adam(param, weight_decay=1.0, nonfinite="skip")
    with lrfast.num_threads(threads):
        optimizer.step(grad)
        assert optimizer.report.overflowed == 3
        grad[250_000] = 2e19
        optimizer.step(grad)
    assert optimizer.report.skipped


@pytest.mark.parametrize("isa", ISAS)
def test_groups_of_both_kinds(isa):
    """A gradient is refused for the rule that squares it, and only for that."""
    params = [np.ones(5, np.float32), np.ones(5, np.float64)]
    optimizer = lrfast.Adam(params, nonfinite="raise")
    with lrfast.use_isa(isa):
        optimizer.step([np.ones(5, np.float32), np.full(5, 1e25)])
        with pytest.raises(FloatingPointError, match=r"grads\[0\].*float32.*1e\+25"):
            optimizer.step([np.full(5, 1e25, np.float32), np.full(5, 1e25)])
        with pytest.raises(FloatingPointError, match=r"grads\[1\]: expected finite gradients, got 1 "):
            optimizer.step([np.full(5, 1e25, np.float32), np.array([1, 1, 1, 1, np.nan])])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, 1e25])
def test_a_step_that_raises_was_not_skipped(isa, bad):
    optimizer, _ = make("adam", np.float32, nonfinite="skip")
    with lrfast.use_isa(isa):
        optimizer.step(gradients(np.float32, bad))
        assert optimizer.report.skipped
        optimizer.nonfinite = "raise"
        with pytest.raises(FloatingPointError):
            optimizer.step(gradients(np.float32, bad))
    assert not optimizer.report.skipped
    assert (optimizer.skipped, optimizer.updates) == (1, 0)


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"ema": 0.9, "stats": True}])
def test_tensors_without_a_gradient_are_not_looked_at(options):
    for isa in ISAS:
        optimizer, params = make("adagrad", np.float32, nonfinite="skip", weight_decay=1.0, **options)
        grads = gradients(np.float32, 0.5)
        params[1][7] = 1e25
        with lrfast.use_isa(isa):
            for used, overflowed in [((0,), 0), ((0, 1), 1), ((1,), 0), ((0,), 0)]:
                optimizer.step([grads[i] if i in used else None for i in range(2)])
                assert (optimizer.report.overflowed, optimizer.report.updated) == (overflowed, len(used))


# ---- statistics and Monitor --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", SQUARING)
def test_statistics_count_what_does_not_move(variant, dtype):
    for isa in ("numpy", ISAS[0]):
        optimizer, _ = make(variant, dtype, stats=True)
        # RAdam divides from its sixth update on, where beta2 is that large.
        divides = type(optimizer) is not lrfast.RAdam or 2 / (1 - optimizer.param_groups[0]["betas"][1]) - 1 > 5
        with lrfast.use_isa(isa):
            for size in (SIZES[dtype][3], *[0.5] * 8):
                optimizer.step(gradients(dtype, size, (3, 1100)))
        assert optimizer.stats["total"]["dead"] == optimizer.stats[1]["dead"] == 2 * divides
        assert optimizer.stats[0]["dead"] == 0
        optimizer.stats = "norms"
        with lrfast.use_isa(isa):
            optimizer.step(gradients(dtype, 0.5))
        assert np.isnan(optimizer.stats["total"]["dead"])


@pytest.mark.parametrize("places", [[1100], range(2500)])
def test_the_monitor_names_the_cause(places):
    optimizer, params = make("adagrad", np.float32)
    monitor = lrfast.Monitor(optimizer)
    for t in range(30):
        optimizer.step(gradients(np.float32, 3e19 if t == 3 else 0.5, places))
        monitor.update(float(params[1].sum()))
    verdict = monitor.verdict()
    assert verdict.kind == "overflowed"
    assert f"{len(places):,} of 2,503 elements" in verdict.text
    assert "since update 4:" in verdict.text
    assert "3e+19" in verdict.text
    assert "clip_norm" in verdict.cure
    assert verdict.evidence["dead"] == len(places) / 2503
    assert [row["dead"] for row in monitor.records[2:5]] == [0, len(places), len(places)]


@pytest.mark.parametrize("isa", ISAS)
def test_rates_of_amsgrad_are_those_of_its_largest_average(isa):
    optimizer, _ = make("amsgrad", np.float64, stats=True, lr=0.1, betas=(0.0, 0.5), weight_decay=0.0, eps=0.0)
    with lrfast.use_isa(isa):
        for size in (4.0, 1e-3, 1e-3):
            optimizer.step(gradients(np.float64, size, range(2500)))
    largest = optimizer.state[1]["max_exp_avg_sq"][0]
    assert largest == 8
    corrected = (largest / (1 - 0.5**3)) ** 0.5
    assert optimizer.stats[1]["rate_max"] == pytest.approx(0.1 / corrected)
    assert np.flatnonzero(optimizer.stats[1]["rates"]).tolist() == [int(np.floor(np.log2(0.1 / corrected))) + 32]


@pytest.mark.parametrize("isa", ISAS)
def test_the_median_rate_of_bins_that_are_open(isa):
    def median(lr, grads):
        optimizer, _ = make("rmsprop", np.float64, stats=True, lr=lr, alpha=0.0, eps=0.0, weight_decay=0.0)
        with lrfast.use_isa(isa):
            optimizer.step(grads)
        total = optimizer.stats["total"]
        return total["rate_median"], total["rate_max"]

    ones = gradients(np.float64, 0.5)
    assert median(0.0, ones) == (0, 0)
    assert median(1e-12, ones) == (2e-12, 2e-12)
    assert median(2.0**40, ones) == (2.0**41, 2.0**41)
    assert median(0.5, ones) == (2**0.5, 1)
    assert median(1.0, gradients(np.float64, 1e200, range(2500))) == (0, 2), "dead, all but three"
