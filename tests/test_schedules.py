"""Schedules: published values, purity, bounds, composition, pickling."""

from __future__ import annotations

import hashlib
import itertools
import math
import pickle

import numpy as np
import pytest

import lrfast
from lrfast import schedules as s
from lrfast._engine import elementary as twin

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
    "fractional power": s.polynomial(1.0, 0.1, 50, power=0.9),
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
        (lambda: s.inverse_time(1.0, math.nan), "rate: expected"),
        (lambda: s.exponential(10**400, 0.5), "lr: expected"),
        (lambda: s.step(1.0, math.inf), "every: expected an integer >= 1, got inf"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()


GOOD = {
    s.constant: dict(lr=0.1),
    s.polynomial: dict(lr=1.0, end=0.1, steps=10, power=2.0),
    s.cosine: dict(lr=1.0, steps=10, end=0.1),
    s.step: dict(lr=1.0, every=3, gamma=0.5),
    s.multistep: dict(lr=1.0, milestones=[2, 4], gamma=0.5),
    s.exponential: dict(lr=1.0, gamma=0.9),
    s.inverse_time: dict(lr=1.0, rate=0.1),
    s.inverse_sqrt: dict(lr=1.0),
    s.join: dict(schedules=[s.constant(0.1), s.constant(0.2)], boundaries=[3]),
    s.constant(1.0).warmup: dict(steps=5),
}


@pytest.mark.parametrize(
    ("make", "name"), [pytest.param(make, name, id=f"{make.__name__}-{name}") for make in GOOD for name in GOOD[make]]
)
def test_every_argument_is_refused_by_name(make, name):
    """No value of a wrong type becomes a number on the way, nor does NaN; what is a number to NumPy is one here."""
    for wrong in ("x", "0.1", b"1", None, True, np.True_, 1j, [0.5], {}, object()):
        with pytest.raises((TypeError, ValueError), match=rf"^{make.__name__}: {name}(\[0\])?: expected .*, got "):
            make(**{**GOOD[make], name: [wrong] if name in ("milestones", "boundaries", "schedules") else wrong})
    for wrong in (math.nan, math.inf, -math.inf, np.float32(np.nan)):
        with pytest.raises((TypeError, ValueError), match=rf"^{make.__name__}: {name}(\[0\])?: expected .*, got "):
            make(**{**GOOD[make], name: [wrong] if name in ("milestones", "boundaries", "schedules") else wrong})
    assert make(**GOOD[make]) == make(**{key: as_numpy(value) for key, value in GOOD[make].items()})
    assert "np." not in repr(make(**{key: as_numpy(value) for key, value in GOOD[make].items()}))


def as_numpy(value):
    if isinstance(value, list):
        return [as_numpy(x) for x in value]
    return np.array(value)[()] if isinstance(value, (int, float)) else value


# ---- overflow -----------------------------------------------------------------------------------------------------

GROWING = [s.exponential(1.0, 2.0), s.step(1.0, 1, 10.0), s.multistep(1.0, range(1, 4000), gamma=2.0)]


@pytest.mark.parametrize("growing", GROWING)
def test_nothing_times_what_overflows_is_nothing(growing):
    zero = type(growing)(**{**vars(growing), "lr": 0.0})
    products = [zero, s.constant(0.0) * growing, growing * 0.0, 0 * growing, growing.warmup(3, start="zero")]
    assert [schedule(t) for schedule in products[:4] for t in (0, 10, 5000)] == [0.0] * 12
    ever = s.Warmup(lambda t: growing(5000), 3, "zero")
    assert [ever(t) for t in range(4)] == [0.0, math.inf, math.inf, math.inf]


@pytest.mark.parametrize("growing", [*GROWING, s.exponential(1e-3, 1.001), s.exponential(-1.0, 2.0)])
def test_what_overflows_is_infinite_and_refused(growing):
    """Never 0, never NaN, and the step says which schedule it was, and when."""
    t = 10**6
    assert abs(growing(t)) == math.inf
    assert math.copysign(1, growing(t)) == math.copysign(1, growing(0))
    optimizer = lrfast.SGD(np.zeros(1), lr=s.join([s.constant(0.1), lambda _: growing(t)], [1]))
    optimizer.step(np.zeros(1))
    with pytest.raises(ValueError, match="group 0, schedule at t=1: lr: expected a finite number"):
        optimizer.step(np.zeros(1))


def test_nan_of_a_callable_is_not_hidden():
    assert math.isnan((s.constant(0.0) * (lambda t: math.nan))(0))
    assert math.isnan(s.Warmup(lambda t: math.nan, 3, "zero")(0))


# ---- the same bits everywhere ---------------------------------------------------------------------------------

PROMISED = {
    "constant": "407ea734b135a7ef",
    "linear": "a8cbd406d221f8a3",
    "polynomial": "f16e6186425acf26",
    "cosine": "dfe0c2abcd8790bd",
    "step": "0ae25f2d3a37e063",
    "multistep": "a812b4dd32e566f2",
    "exponential": "4d7c4fa953f0b887",
    "inverse_time": "ef83300117043c79",
    "inverse_sqrt": "a81659166ebf6383",
    "warmup": "3704e7d549ccfcea",
    "join": "30aa3a2d02e13f7f",
    "product": "4c9d91d03a097632",
    "scaled": "2aaa05ff8a3fe3b7",
    "fractional power": "8dbdc8d5fac08554",
}


@pytest.mark.parametrize("name", ALL)
def test_values_have_the_promised_bits(name):
    assert hash_of(values(ALL[name], 300)) == PROMISED[name]


@pytest.mark.parametrize("name", ALL)
def test_values_have_the_same_bits_without_the_extension(name, monkeypatch):
    compiled = values(ALL[name], 100)
    monkeypatch.setattr(s, "elementary", twin)
    assert values(ALL[name], 100) == compiled


def hash_of(numbers):
    return hashlib.sha256(" ".join(x.hex() for x in numbers).encode()).hexdigest()[:16]


def test_ends_of_what_floats_hold():
    assert s.cosine(1e308, 10)(0) == 1e308
    assert s.equal_weight()(2**60) == math.nextafter(1, 0)
    with pytest.raises(TypeError, match="join: schedules: expected a sequence"):
        s.join(5, [1])
