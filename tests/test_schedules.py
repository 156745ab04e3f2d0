"""Schedules: published values, purity, bounds, composition, pickling."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest

import lrfast
from lrfast import schedules as s

ALL = {
    "constant": s.constant(0.1),
    "linear": s.linear(1.0, 0.1, 10),
    "polynomial": s.polynomial(1.0, 0.01, 100, power=2),
    "cosine": s.cosine(1.0, 50, end=0.1),
    "step": s.step(1.0, 7, gamma=0.5),
    "multistep": s.multistep(1.0, [5, 20], gamma=0.3),
    "exponential": s.exponential(1.0, 0.97),
    "inverse_time": s.inverse_time(1.0, 0.1),
    "inverse_sqrt": s.inverse_sqrt(1.0),
    "warmup": s.cosine(1.0, 50).warmup(10),
    "join": s.join([s.linear(0.1, 1.0, 10), s.cosine(1.0, 40)], [10]),
    "product": s.cosine(1.0, 50) * s.step(1.0, 10),
    "scaled": 0.5 * s.inverse_sqrt(1.0),
}


def values(schedule, n):
    return [schedule(t) for t in range(n)]


def test_published_values():
    """Warm-up and decay as in the tests of widely used libraries (peak 10, 2 + 8 updates)."""
    ramp = s.linear(0.0, 10.0, 2)
    assert values(s.join([ramp, s.linear(10.0, 0.0, 8)], [2]), 10) == pytest.approx(
        [0, 5, 10, 8.75, 7.5, 6.25, 5, 3.75, 2.5, 1.25]
    )
    assert values(s.cosine(10.0, 8).warmup(2, start="zero"), 10) == pytest.approx(
        [0, 5, 10, 9.6194, 8.5355, 6.9134, 5, 3.0866, 1.4645, 0.3806], abs=1e-4
    )
    assert values(s.join([ramp, s.polynomial(10.0, 0.0, 8, power=2)], [2]), 10) == pytest.approx(
        [0, 5, 10, 7.656, 5.625, 3.906, 2.5, 1.406, 0.625, 0.156], abs=1e-3
    )
    polynomial = s.join([s.constant(1.0), s.polynomial(1.0, 0.01, 100, power=2)], [5])
    assert [polynomial(t) for t in (4, 5, 6, 104, 105, 10**9)] == pytest.approx(
        [1, 1, 0.9803, 0.0101, 0.01, 0.01], abs=1e-4
    )
    assert values(s.join([s.constant(1), s.constant(2), s.constant(1)], [3, 6]), 7) == [1, 1, 1, 2, 2, 2, 1]
    assert values(s.step(1.0, 2), 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert values(s.multistep(1.0, [2, 3]), 5) == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert values(s.inverse_time(1.0, 1.0), 3) == pytest.approx([1, 1 / 2, 1 / 3])
    assert values(s.inverse_sqrt(1.0), 4) == pytest.approx([1, 1 / math.sqrt(2), 1 / math.sqrt(3), 0.5])
    assert values(s.exponential(1.0, 0.5), 4) == [1, 0.5, 0.25, 0.125]


def test_warmup_never_starts_at_zero_by_default():
    schedule = s.constant(8.0).warmup(4)
    assert values(schedule, 6) == [2, 4, 6, 8, 8, 8]
    assert values(s.cosine(8.0, 10).warmup(0), 10) == values(s.cosine(8.0, 10), 10)


def test_ends_hold():
    assert s.cosine(1.0, 10, end=0.2)(10) == s.cosine(1.0, 10, end=0.2)(10**12) == 0.2
    assert s.linear(1.0, 0.2, 10)(10) == s.linear(1.0, 0.2, 10)(10**12) == 0.2
    assert s.exponential(1.0, 0.9)(10**9) == 0.0


@pytest.mark.parametrize("name", ALL)
def test_bounds_and_monotony(name):
    v = values(ALL[name], 300)
    assert all(0 <= x <= 1 for x in v)
    if name not in ("warmup", "join"):
        assert all(a >= b for a, b in itertools.pairwise(v))


@pytest.mark.parametrize("name", ALL)
def test_pure_and_picklable(name):
    schedule = ALL[name]
    backwards = [schedule(t) for t in reversed(range(120))][::-1]
    assert backwards == values(schedule, 120) == values(pickle.loads(pickle.dumps(schedule)), 120)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert name in ("scaled", "product") or "=" in repr(schedule)


@pytest.mark.parametrize("name", ALL)
def test_optimizer_follows(name):
    """The t-th update uses s(t), and the group shows it."""
    param = np.zeros(3)
    optimizer = lrfast.SGD(param, lr=ALL[name])
    for t in range(30):
        before = param.copy()
        optimizer.step(np.ones(3))
        assert optimizer.param_groups[0]["lr"] == ALL[name](t)
        assert np.all(param == before - ALL[name](t))
    assert optimizer.schedules[0] == {"lr": ALL[name]}


def test_any_number_of_any_group_may_be_scheduled():
    settings = {"lr": s.constant(0.1), "eps": lambda t: 1e-8 * (t + 1), "weight_decay": s.linear(0.1, 0.0, 5)}
    params = [np.ones(4), np.ones(4)]
    optimizer = lrfast.AdamW(
        [{"params": [params[0]], **settings}, {"params": [params[1]], "betas": (s.constant(0.5), 0.9)}]
    )
    expected = [np.ones(4), np.ones(4)]
    states = [[np.zeros(4), np.zeros(4)] for _ in range(2)]
    for t in range(4):
        grad = np.full(4, 0.5 + t)
        optimizer.step([grad, grad])
        now = {key: schedule(t) for key, schedule in settings.items()}
        lrfast.reference.adamw(expected[0], grad, *states[0], step=t + 1, **now)
        lrfast.reference.adamw(expected[1], grad, *states[1], step=t + 1, betas=(0.5, 0.9))
    assert np.array_equal(params, expected)
    assert optimizer.param_groups[1]["betas"] == (0.5, 0.9)
    assert set(optimizer.schedules[0]) == set(settings)


def test_scheduled_momentum_counts_as_momentum():
    param, buffer, expected = np.ones(2), np.zeros(2), np.ones(2)
    optimizer = lrfast.SGD(param, lr=0.1, momentum=lambda t: 0.0 if t == 0 else 0.9)
    for t in range(3):
        optimizer.step(np.ones(2))
        buffer = np.ones(2) if t == 0 else 0.9 * buffer + np.ones(2)
        expected -= 0.1 * buffer
    assert param == pytest.approx(expected)


@pytest.mark.parametrize("decoupled", [False, True])
def test_scheduled_decay_is_the_one_that_was_chosen(decoupled):
    settings = {"lr": 0.1, "decoupled_weight_decay": decoupled}
    constant, scheduled = np.ones(40), np.ones(40)
    for param, decay in ((constant, 0.3), (scheduled, lambda t: 0.3)):
        optimizer = lrfast.RAdam(param, weight_decay=decay, **settings)
        for grad in np.random.default_rng(0).standard_normal((5, 40)):
            optimizer.step(grad)
    assert np.array_equal(constant, scheduled)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: s.cosine(1.0, 0), "steps: expected an integer >= 1"),
        (lambda: s.cosine(float("nan"), 10), "lr: expected a finite number"),
        (lambda: s.linear(1.0, math.inf, 10), "end: expected a finite number"),
        (lambda: s.polynomial(1.0, 0.0, 10, power=0), "power: expected"),
        (lambda: s.step(1.0, 2.5), "every: expected an integer"),
        (lambda: s.multistep(1.0, [5, 5]), "milestones: expected increasing"),
        (lambda: s.join([s.constant(1)], [5]), "boundaries: expected 0 for 1 schedules, got 1"),
        (lambda: s.join([], []), "boundaries: expected"),
        (lambda: s.constant(1).warmup(-1), "steps: expected an integer >= 0"),
        (lambda: s.constant(1).warmup(5, start="one"), "start: expected"),
        (lambda: s.inverse_time(1.0, -1.0), "rate: expected"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
