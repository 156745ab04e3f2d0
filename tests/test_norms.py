"""Norms and clip factors of gradients of any finite size: what is left of a gradient is right, and so is the report.

In C: tests/c/test_norms.c.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import lrfast
from lrfast import functional, reference
from lrfast._engine import backend, numpy_plan

from arrays import same_bits

ISAS = lrfast.available_isas()
SIZES = {
    np.float32: [1e-44, 1e-30, 1.0, 1e19, 1e30, 3e38],
    np.float64: [5e-324, 1e-310, 1e-200, 1e-155, 1.0, 1e30, 1e153, 1e155, 1e200, 1.7e308],
}
CASES = [
    pytest.param(dtype, size, scale, id=f"{dtype.__name__}-{size}-{scale}")
    for dtype, sizes in SIZES.items()
    for size in sizes
    for scale in (1.0, 1e-30, -8.0)
    if size * abs(scale) < float(np.finfo(dtype).max)
]
BOUNDS = {np.float32: [1e-44, 1e-30, 1e-7, 1.0, 1e30], np.float64: [1e-320, 1e-300, 1e-7, 1.0, 1e300]}


def gradients(dtype, size, n=1500):
    """Two tensors, most of whose elements are smaller."""
    rng = np.random.default_rng(3)
    return [(rng.uniform(-1, 1, k) * size).astype(dtype) for k in (n, 7)]


def descend(grads, scale=1.0, **options):
    """(what is left of the gradients, report) of a step of plain gradient descent."""
    params = [np.zeros_like(g) for g in grads]
    optimizer = lrfast.SGD(params, lr=1.0, **options)
    optimizer.step(grads, grad_scale=scale)
    return [-p for p in params], optimizer.report


def exact_norm(arrays, scale=1.0):
    """The norm as a fraction, to 2^-1200 and 60 digits at least."""
    total = sum(Fraction(float(x)) ** 2 for array in arrays for x in array) * Fraction(scale) ** 2
    return Fraction(math.isqrt((total.numerator << 4800) // total.denominator), 1 << 2400)


def as_float(x):
    try:
        return float(x)
    except OverflowError:
        return math.inf


def assert_near(found, exact, dtype):
    """To some units in the last place, or of the smallest denormal number."""
    info = np.finfo(dtype)
    for x, y in zip(found, exact, strict=True):
        assert abs(Fraction(float(x)) - y) <= 8 * float(info.eps) * abs(y) + 4 * Fraction(
            float(info.smallest_subnormal)
        )


@pytest.mark.parametrize(("dtype", "size", "scale"), CASES)
def test_clipping_by_norm_is_right_for_every_finite_gradient(dtype, size, scale):
    grads = gradients(dtype, size)
    norm = exact_norm(grads, scale)
    for bound in BOUNDS[dtype]:
        found = {}
        for isa in ISAS:
            with lrfast.use_isa(isa):
                found[isa] = descend(grads, scale, clip_norm=bound)
        left, report = found["numpy"]
        for theirs, their_report in found.values():
            assert all(same_bits(a, b) for a, b in zip(left, theirs, strict=True))
            assert their_report == report
        assert report.grad_norm == report.limited_norm == pytest.approx(as_float(norm), rel=1e-13, abs=1e-323)
        factor = min(Fraction(1), Fraction(bound) / (norm + Fraction(1e-6)))
        assert report.clip_factor == pytest.approx(float(factor), rel=1e-13, abs=1e-323)
        for grad, rest in zip(grads, left, strict=True):
            some = slice(None, None, 50)
            exact = [factor * Fraction(scale) * Fraction(float(g)) for g in grad[some]]
            assert_near(rest[some], exact, dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("clip_value", [0.5, 1e-30, 1e20])
@pytest.mark.parametrize("clip_norm", [1.0, 1e-9])
def test_the_clip_factor_is_explained_by_the_report(dtype, clip_value, clip_norm, isa):
    grads = [np.array([3, 4], dtype)]
    with lrfast.use_isa(isa):
        left, report = descend(grads, clip_value=clip_value, clip_norm=clip_norm)
    limited = np.minimum(grads[0], dtype(clip_value)).astype(np.float64)
    assert report.grad_norm == 5
    assert report.limited_norm == pytest.approx(float(np.linalg.norm(limited / clip_value)) * clip_value, rel=1e-12)
    assert report.clip_factor == min(1.0, clip_norm / (report.limited_norm + 1e-6))
    assert_near(left[0], [Fraction(report.clip_factor) * Fraction(x) for x in limited], dtype)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("size", "clip_value", "clip_norm"), [(1e200, 1e-200, 1e-203), (1.0, 1e-200, 1e-6), (1e300, 1e200, 1.0)]
)
def test_both_norms_at_sizes_of_their_own(size, clip_value, clip_norm, isa):
    grads = [np.full(100, size), np.full(2000, -size)]
    with lrfast.use_isa(isa):
        left, report = descend(grads, clip_value=clip_value, clip_norm=clip_norm)
    assert report.grad_norm == pytest.approx(size * 2100**0.5, rel=1e-12)
    assert report.limited_norm == pytest.approx(clip_value * 2100**0.5, rel=1e-12)
    assert report.clip_factor == min(1.0, clip_norm / (report.limited_norm + 1e-6))
    assert_near(left[0][:3], [Fraction(report.clip_factor) * Fraction(clip_value)] * 3, np.float64)


@pytest.mark.parametrize("isa", ISAS)
def test_a_norm_that_clip_norm_does_not_need_is_not_reported(isa):
    grads = [np.array([3, 4], np.float32)]
    with lrfast.use_isa(isa):
        assert math.isnan(descend(grads)[1].limited_norm)
        report = descend(grads, clip_value=0.5, nonfinite="skip")[1]
    assert report.grad_norm == 5
    assert math.isnan(report.limited_norm)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("clip_norm", [None, 1e-6])
def test_a_scale_that_is_denormal_keeps_its_digits(dtype, clip_norm, isa):
    tiny, large = float(np.finfo(dtype).smallest_subnormal) * 7.3, dtype(np.finfo(dtype).max / 16)
    grads = [np.array([large, -large, 0], dtype)]
    for options in ({"clip_norm": clip_norm}, {"clip_norm": clip_norm, "clip_value": float(large)}):
        with lrfast.use_isa(isa):
            left, report = descend(grads, tiny, **options)
        exact = [Fraction(report.clip_factor) * Fraction(tiny) * Fraction(float(g)) for g in grads[0]]
        assert_near(left[0], exact, dtype)
    param, grad, expected = np.zeros(3, dtype), grads[0], [Fraction(tiny) * Fraction(float(g)) for g in grads[0]]
    for update in (functional.sgd, reference.sgd):
        param[...] = 0
        with lrfast.use_isa(isa):
            update(param, grad, step=1, lr=1.0, grad_scale=tiny)
        assert_near(-param, expected, dtype)


@pytest.mark.parametrize("plan", [backend.Plan, numpy_plan.Plan])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_a_second_look_at_the_gradients_is_a_phase_where_it_is_needed(plan, size, monkeypatch):
    """For any number of parts, with the same bits, and only there."""
    monkeypatch.setattr(backend, "Plan", plan)
    grads = gradients(np.float64, size, 5000)
    results = []
    for parts in (1, 2, 5):
        params = [np.zeros_like(g) for g in grads]
        optimizer, phases = lrfast.SGD(params, lr=1.0, clip_norm=1.0), 0
        for run in optimizer._plan.phases(grads, 1.0):
            phases += 1
            for part in reversed(range(parts)):
                run(part, parts)
        assert phases == (2 if size == 1 else 3)
        results.append((params[0].tobytes(), params[1].tobytes(), optimizer.report))
    assert results[0] == results[1] == results[2]
    assert results[0][2].grad_norm == pytest.approx(float(exact_norm(grads)), rel=1e-13)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_second_look_on_threads(threads):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(200_001) * 1e200, rng.standard_normal(100_000).astype(np.float32)]
    with lrfast.num_threads(threads):
        _, report = descend(grads, clip_norm=1.0)
    assert report.grad_norm == pytest.approx(float(np.linalg.norm(grads[0] * 1e-200)) * 1e200, rel=1e-13)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", SIZES)
def test_what_is_not_finite_stays_so(dtype, isa):
    for bad, factor in ((np.inf, 0.0), (-np.inf, 0.0), (np.nan, math.nan)):
        grads = gradients(dtype, 1.0)
        grads[0][1234] = bad
        with lrfast.use_isa(isa):
            left, report = descend(grads, clip_norm=1.0)
        assert report.grad_norm == abs(bad) or math.isnan(bad)
        assert report.clip_factor == factor or math.isnan(factor)
        assert np.isnan(left[0][1234])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", SIZES)
def test_gradients_up_to_the_largest_number_are_finite(dtype, isa):
    """A tile whose norm is that of its one large element, on both sides of the largest number."""
    largest = float(np.finfo(dtype).max)
    for size, scale, skipped in [(0.6, 1.0, False), (1.0, 1.0, False), (0.6, 1.5, False), (0.6, 1.8, True)]:
        grads = gradients(dtype, 1.0)
        grads[0][1100] = largest * size
        with lrfast.use_isa(isa):
            _, report = descend(grads, scale, nonfinite="skip")
        assert report.skipped is skipped, (size, scale)
        assert report.grad_norm == pytest.approx(largest * size * scale) or size * scale > 1


@pytest.mark.parametrize("isa", ISAS)
def test_tiny_gradients_of_float64_beside_float32(isa):
    """Wherever they stand: float32 alone needs no second look."""
    for dtypes in ([np.float32, np.float64], [np.float64, np.float32]):
        optimizer = lrfast.SGD([np.ones(3, dtype) for dtype in dtypes], clip_norm=1.0)
        with lrfast.use_isa(isa):
            optimizer.step([np.full(3, 1e-200 if dtype is np.float64 else 0.0, dtype) for dtype in dtypes])
        assert optimizer.report.grad_norm == pytest.approx(1e-200 * math.sqrt(3), rel=1e-15)
