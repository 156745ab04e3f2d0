"""Averages of the parameters: they arrive, with the decay of each update, and change places with parameters exactly."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
from test_options import with_both_plans

import lrfast
from lrfast import schedules

from arrays import same_bits
from variants import STILL, VARIANTS, taken

DTYPES = [np.float32, np.float64]
CLASSES = {variant.cls: variant for variant in VARIANTS.values()}


def still(cls=lrfast.SGD, value=1.0, dtype=np.float32, **options):
    """An optimizer with which nothing moves, and its parameter."""
    param = np.full(1, value, dtype)
    return cls(param, **taken(cls, STILL), **options), param


# ---- they arrive ----------------------------------------------------------------------------------------------


@with_both_plans
@pytest.mark.parametrize("dtype", DTYPES)
def test_float64_averages_arrive(isa, dtype):
    """The exact average after n updates of a parameter that stays: p - decay^n (p - start)."""
    optimizer, _ = still(dtype=dtype, ema=0.9999, ema_dtype="float64")
    optimizer.ema[0][...] = 0.9998
    grad, n = np.zeros(1, dtype), 1000
    for _ in range(n):
        optimizer.step(grad)
    decay, start = Fraction(0.9999), Fraction(0.9998)
    exact = 1 - (decay**n) * (1 - start)
    assert abs(Fraction(float(optimizer.ema[0][0])) - exact) < Fraction(1, 2**53) * n


def test_a5_prints_what_is_right():
    for dtype, expected in [("float64", pytest.approx(1, abs=1e-8)), (None, pytest.approx(0.9998, abs=1e-7))]:
        optimizer, _ = still(ema=0.9999, ema_dtype=dtype)
        optimizer.ema[0][...] = 0.9998
        for _ in range(100_000):
            optimizer.step(np.zeros(1, np.float32))
        assert optimizer.ema[0][0] == expected


@with_both_plans
@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_the_limit_in_the_manual(isa, decay):
    """Averages stop at most 2^-24 / (1 - decay) of the parameter short, and at least a quarter of that."""
    short, limit = [], 2**-24 / (1 - decay)
    for value in (1.0, 1.4, 1.9999999):
        optimizer, param = still(value=value, ema=decay)
        optimizer.ema[0][...] = (1 - 4 * limit) * param
        before = None
        while before != optimizer.ema[0][0]:
            before = optimizer.ema[0][0]
            optimizer.step(np.zeros(1, np.float32))
        short.append((float(param[0]) - float(before)) / float(param[0]))
    assert limit / 4 < max(short) <= limit


@with_both_plans
def test_the_same_limit_holds_for_first_moments(isa):
    optimizer, _ = still(lrfast.Adam, betas=(0.9999, 0.999))
    moment = optimizer.state[0]["exp_avg"]
    moment[...] = 0.9998
    optimizer.step(np.ones(1, np.float32))
    assert moment[0] == np.float32(0.9998)


@with_both_plans
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("dtype", DTYPES)
def test_averages_are_those_of_exact_arithmetic(isa, cls, dtype):
    """In float64, over parameters that move, of which one has no gradient in every other step."""
    variant = CLASSES[cls]
    params = [np.linspace(-1, 1, 5, dtype=dtype), np.linspace(1, 2, 3, dtype=dtype)]
    optimizer = variant.make(params, ema=schedules.ema_warmup(0.4), ema_dtype="float64")
    exact = [[Fraction(float(x)) for x in p] for p in params]
    for t in range(6):
        grads = [np.full(5, 0.5, dtype), None if t % 2 else np.full(3, -0.5, dtype)]
        optimizer.step(grads)
        weight = Fraction(1 - min(0.4, (1 + t) / (10 + t)))
        for averages, param in zip(exact, params, strict=True):
            averages[:] = [e + weight * (Fraction(float(x)) - e) for e, x in zip(averages, param, strict=True)]
    for average, expected in zip(optimizer.ema, exact, strict=True):
        assert average.dtype == np.float64
        assert np.allclose(average, [float(x) for x in expected], rtol=0, atol=2**-50)


# ---- the decay ------------------------------------------------------------------------------------------------


def moving(isa_options, steps, dtype=np.float64, edit=None):
    """The average, and the values that the parameter had after each update."""
    param = np.ones(1, dtype)
    optimizer = lrfast.SGD(param, lr=1.0, **isa_options)
    values = [float(param[0])]
    for t in range(steps):
        if edit is not None:
            edit(optimizer, t)
        optimizer.step(np.array([0.1 * (t + 1)], dtype))
        values.append(float(param[0]))
    return float(optimizer.ema[0][0]), values


@with_both_plans
def test_equal_weights_give_the_mean(isa):
    average, values = moving({"ema": schedules.equal_weight()}, 50)
    assert average == pytest.approx(float(sum(map(Fraction, values[1:])) / 50), rel=1e-14)


@with_both_plans
def test_from_a_start_on(isa):
    start = schedules.join([schedules.constant(0.0), schedules.equal_weight()], [20])
    average, values = moving({"ema": start}, 20)
    assert average == values[-1]  # a copy until then
    average, values = moving({"ema": start}, 50)
    assert average == pytest.approx(np.mean(values[21:]), rel=1e-14)


@with_both_plans
@pytest.mark.parametrize("first_copies", [False, True])
def test_the_first_average(isa, first_copies):
    """A copy of the start, as in TensorFlow, or of the first update, as in Keras and PyTorch."""
    constant = schedules.constant
    decay = schedules.join([constant(0.0), constant(0.75)], [1]) if first_copies else 0.75
    average, values = moving({"ema": decay}, 1)
    assert average == (values[1] if first_copies else 0.75 * values[0] + 0.25 * values[1])


@with_both_plans
@pytest.mark.parametrize("ema_dtype", [None, "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decay_of_0_copies_whatever_the_average_was(isa, dtype, ema_dtype):
    """Also from NaN and infinity, which a sum with 0 times the difference would keep, and the sign of a zero."""
    param = np.array([1, 2, 3, -0.0, np.inf], dtype)
    optimizer = lrfast.SGD(param, lr=0.0, ema=0.0, ema_dtype=ema_dtype)
    optimizer.ema[0][...] = [np.nan, np.inf, -np.inf, 1, 1]
    optimizer.step(np.full(5, -1.0, dtype))
    assert same_bits(optimizer.ema[0], param.astype(optimizer.ema[0].dtype))


@with_both_plans
@pytest.mark.parametrize("value", [0.5, schedules.equal_weight(), lambda t: t / (t + 2)])
def test_the_decay_may_be_edited(isa, value):
    """From then on, also between numbers and schedules."""

    def edit(optimizer, t):
        if t == 3:
            optimizer.ema_decay = value
            assert optimizer.ema_decay is value or optimizer.ema_decay == value

    for before in (0.9, schedules.ema_warmup(0.9)):
        average, values = moving({"ema": before}, 7, edit=edit)
        expected = values[0]
        for t, x in enumerate(values[1:]):
            source = before if t < 3 else value
            d = source(t) if callable(source) else source
            expected = expected + (1 - d) * (x - expected)
        assert average == pytest.approx(expected, rel=1e-14)


@with_both_plans
def test_with_schedules_of_settings_and_edits(isa):
    param = np.ones(1)
    optimizer = lrfast.SGD(param, lr=lambda t: 1.0 + t, ema=lambda t: t / (t + 1))
    values = []
    for t in range(4):
        optimizer.param_groups[0]["weight_decay"] = 0.01 * t
        optimizer.step(np.full(1, 0.1))
        values.append(param[0])
    assert optimizer.ema[0][0] == pytest.approx(np.mean(values), rel=1e-14)


@with_both_plans
@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), float("inf"), "0.5", True, None, 2])
def test_a_decay_that_is_none_is_refused_before_anything_is_written(isa, value):
    optimizer, param = still(ema=lambda t: 0.5 if t < 1 else value)
    optimizer.step(np.zeros(1, np.float32))
    before = param.tobytes(), optimizer.ema[0].tobytes(), optimizer.updates
    with pytest.raises((ValueError, TypeError), match=r"schedule at t=1: ema: expected a number in \[0, 1\)"):
        optimizer.step(np.ones(1, np.float32))
    assert before == (param.tobytes(), optimizer.ema[0].tobytes(), optimizer.updates)
    with pytest.raises((ValueError, TypeError), match="ema_decay: expected a number"):
        optimizer.ema_decay = value
    if value is not None:
        with pytest.raises((ValueError, TypeError), match="ema: expected a number"):
            still(ema=value)


def test_there_is_no_decay_without_averages():
    optimizer, _ = still()
    assert optimizer.ema_decay is None
    with pytest.raises(ValueError, match="made with ema"):
        optimizer.ema_decay = 0.5


@pytest.mark.parametrize("value", ["float16", "int32", np.float32, "nonsense", 5])
def test_other_types_of_averages_are_refused(value):
    with pytest.raises((ValueError, TypeError), match="ema_dtype: expected None"):
        still(ema=0.5, ema_dtype=value)


@with_both_plans
def test_every_decay_has_a_weight_in_float32(isa):
    """1 - decay, at least 2^-53, is a normal number of float32: no decay is lost by rounding."""
    for decay in (float(np.nextafter(1, 0)), 1 - 2**-24, 5e-324, 1e-30):
        optimizer, _ = still(value=1.0, ema=decay)
        optimizer.ema[0][...] = 0.0
        optimizer.step(np.zeros(1, np.float32))
        assert optimizer.ema[0][0] == np.float32(1 - decay)


# ---- in place of parameters -----------------------------------------------------------------------------------


def odd_params(dtype):
    """Numbers whose bits a conversion would change: NaNs with payloads, -0, denormals, infinities."""
    integer = np.dtype(f"u{np.dtype(dtype).itemsize}")
    quiet, signalling = (0x7FC01234, 0xFF801234) if dtype == np.float32 else (0x7FF8 << 48 | 9, 0xFFF0 << 48 | 9)
    bits = np.array([quiet, signalling, 1, 1 << (8 * integer.itemsize - 1)], integer)
    return np.concatenate([bits.view(dtype), np.array([np.inf, 1 / 3, 1e-30], dtype), np.ones(70_000, dtype)])


@with_both_plans
@pytest.mark.parametrize("copies", [None, np.float32, np.float16, np.uint16])
@pytest.mark.parametrize("ema_dtype", [None, "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_places_are_changed_and_changed_back(isa, dtype, ema_dtype, copies):
    params = [odd_params(dtype), np.full((3, 2), 1 / 3, dtype), np.zeros((), dtype), np.zeros(0, dtype)]
    copied = None if copies is None else [np.zeros(p.shape, copies) for p in params]
    optimizer = lrfast.SGD(params, ema=0.5, ema_dtype=ema_dtype, copy_to=copied)
    with np.errstate(invalid="ignore"):
        for average in optimizer.ema:
            average[...] = average + 1 / 7
    arrays = [*params, *optimizer.ema, *(copied or [])]
    before = [a.tobytes() for a in arrays]
    averages = [np.asarray(a.astype(dtype)) for a in optimizer.ema]
    for error in (None, ZeroDivisionError):
        with pytest.raises(error) if error else optimizer.use_ema():
            if error:
                with optimizer.use_ema():
                    raise error
            assert all(map(same_bits, params, averages))
            if copied is not None:
                fresh = [np.zeros_like(c) for c in copied]
                lrfast.SGD([p.copy() for p in params], copy_to=fresh)
                assert [c.tobytes() for c in copied] == [c.tobytes() for c in fresh]
            if ema_dtype == "float64" and dtype == np.float32:
                assert [a.tobytes() for a in optimizer.ema] == before[4:8]
            else:
                assert [a.tobytes() for a in optimizer.ema] == before[:4]
        assert before == [a.tobytes() for a in arrays]


def test_memory_is_there_before_anything_is_written(monkeypatch):
    optimizer, param = still(ema=0.5)
    optimizer.ema[0][...] = 3
    empty_like = np.empty_like

    def no_memory(*arguments, **keywords):
        raise MemoryError

    monkeypatch.setattr(np, "empty_like", no_memory)
    with pytest.raises(MemoryError), optimizer.use_ema():
        pass
    assert param[0] == 1
    monkeypatch.setattr(np, "empty_like", empty_like)
    with optimizer.use_ema():
        assert param[0] == 3


# ---- kept -----------------------------------------------------------------------------------------------------


@with_both_plans
@pytest.mark.parametrize("decay", [0.75, schedules.equal_weight()])
def test_pickle_and_deepcopy_keep_type_and_decay(isa, decay):
    optimizer, _ = still(ema=decay, ema_dtype="float64")
    optimizer.ema[0][...] = 1 / 3
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.ema[0].dtype == np.float64
        assert twin.ema_decay == decay
        assert twin.ema[0][0] == 1 / 3
        twin.add_param_group({"params": [np.ones(2, np.float32)]}) if twin._form.takes_list else None
        twin.step(np.zeros(1, np.float32))


@with_both_plans
def test_checkpoints_with_averages_of_either_type(isa):
    single, _ = still(ema=0.5)
    single.ema[0][...] = 1 / 3
    wide, _ = still(ema=0.5, ema_dtype="float64")
    wide.load_state_dict(single.state_dict())
    assert wide.ema[0].dtype == np.float64
    assert wide.ema[0][0] == np.float32(1 / 3)
    wide.ema[0][...] = 1 / 3
    other, _ = still(ema=0.5, ema_dtype="float64")
    other.load_state_dict(wide.state_dict())
    assert other.ema[0][0] == 1 / 3
    before = single.ema[0].tobytes()
    with pytest.raises(TypeError, match=r"ema\[0\]: expected dtype float32, got float64.*cast"):
        single.load_state_dict(wide.state_dict())
    assert single.ema[0].tobytes() == before
    single.ema[0][...] = 0
    single.load_state_dict(wide.state_dict(), dtype="cast")
    assert single.ema[0].tobytes() == before
    doubles, _ = still(dtype=np.float64, ema=0.5, ema_dtype="float64")
    with pytest.raises(TypeError, match=r"ema\[0\]: expected dtype float64, got float32"):
        doubles.load_state_dict({**doubles.state_dict(), "ema": single.state_dict()["ema"]})


@with_both_plans
def test_groups_that_join_have_averages_of_the_same_type(isa):
    optimizer = lrfast.SGD([np.ones(2, np.float32)], ema=schedules.equal_weight(), ema_dtype="float64")
    optimizer.step([np.zeros(2, np.float32)])
    optimizer.add_param_group({"params": [np.full(3, 7, np.float32)]})
    assert [a.dtype for a in optimizer.ema] == [np.float64] * 2
    assert optimizer.ema[1].tolist() == [7] * 3
    optimizer.step([np.zeros(2, np.float32), np.zeros(3, np.float32)])
