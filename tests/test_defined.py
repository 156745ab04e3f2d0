"""What an optimizer writes for its user is defined from construction on: averages, copies, statistics, report.

After every entry point, for tensors without a gradient too, with both plans.
"""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from test_options import with_both_plans

import lrfast
from lrfast import schedules

from arrays import same_bits
from variants import VARIANTS

CLASSES = {variant.cls: variant for variant in VARIANTS.values()}
COPIES = [np.float32, np.float16, np.uint16]
DTYPES = [np.float32, np.float64]


def made(cls=lrfast.Adam, dtype=np.float32, copies=np.float16, **options):
    """An optimizer of two tensors, and what it copies to, which held garbage before."""
    params = [np.linspace(-1, 1, 2100, dtype=dtype), np.linspace(2, 3, 5, dtype=dtype).reshape(5, 1)]
    copied = [np.full(p.shape, 77, copies) for p in params]
    options = {"ema": 0.5, "nonfinite": "skip", "stats": True, **options}
    return CLASSES[cls].make(params, copy_to=copied, **options)


def params_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def grads_of(optimizer, value=0.5, none=()):
    params = params_of(optimizer)
    return [None if i in none else np.full(p.shape, value, p.dtype) for i, p in enumerate(params)]


def rounded(x, dtype):
    """As a copy of that dtype has it, written once more: by way of float32, to nearest even."""
    single = x.astype(np.float32)
    if dtype != np.uint16:
        return single.astype(dtype)
    import ml_dtypes

    return single.astype(ml_dtypes.bfloat16).view(np.uint16)


def copies_are_right(optimizer):
    for param, copied in zip(params_of(optimizer), optimizer.copy_to, strict=True):
        assert copied.tobytes() == rounded(param, copied.dtype).tobytes()


def averages_are_the_parameters(optimizer):
    for param, average in zip(params_of(optimizer), optimizer.ema, strict=True):
        assert np.array_equal(average, param)


def statistics_are_unknown(optimizer):
    assert len(optimizer.stats) == 0
    assert optimizer.stats.updates == 0
    with pytest.raises(KeyError, match="no step was measured yet"):
        optimizer.stats["total"]


def nothing_happened(optimizer):
    report = optimizer.report
    assert math.isnan(report.grad_norm)
    assert (report.clip_factor, report.skipped, report.updated) == (1.0, False, 0)


# ---- construction, groups, loading, pickles ------------------------------------------------------------------


@with_both_plans
@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_from_construction_on(isa, cls, dtype, copies):
    optimizer = made(cls, dtype, copies)
    copies_are_right(optimizer)
    averages_are_the_parameters(optimizer)
    statistics_are_unknown(optimizer)
    nothing_happened(optimizer)


@with_both_plans
@pytest.mark.parametrize("ema_dtype", [None, "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_after_steps_with_and_without_gradients(isa, cls, dtype, ema_dtype):
    """A tensor whose gradient is None is written from outside meanwhile: what mirrors it follows in the step."""
    optimizer = made(cls, dtype, ema=0.5, ema_dtype=ema_dtype)
    params, expected = params_of(optimizer), [a.copy() for a in optimizer.ema]
    for none in [(1,), (0, 1), (0,), ()]:
        for i in none:
            params[i] += params[i].dtype.type(0.25)
        optimizer.step(grads_of(optimizer, none=none))
        copies_are_right(optimizer)
        for average, expect, param in zip(optimizer.ema, expected, params, strict=True):
            half = expect.dtype.type(0.5)
            expect[...] = param - half * (param.astype(expect.dtype) - expect)
            assert same_bits(average, expect)
        assert optimizer.report.updated == 2 - len(none)
        for i in none:
            assert optimizer.stats[i]["elements"] == 0
            assert math.isnan(optimizer.stats[i]["cosine"])
    assert optimizer.updates == 4
    assert [state["step"] for state in optimizer.state] == [2, 2]


@with_both_plans
def test_frozen_from_the_beginning(isa):
    optimizer = made(ema=schedules.equal_weight())
    before = params_of(optimizer)[1].copy()
    for _ in range(3):
        optimizer.step(grads_of(optimizer, none=(1,)))
        assert np.array_equal(optimizer.ema[1], before)
        copies_are_right(optimizer)


@with_both_plans
@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_after_a_skipped_step(isa, policy):
    """Nothing is written, also nothing that mirrors a parameter, and statistics are those of the step before."""
    optimizer = made(nonfinite=policy)
    for first in (True, False):
        arrays = [*params_of(optimizer), *optimizer.ema, *optimizer.copy_to]
        before = [a.tobytes() for a in arrays]
        grads = grads_of(optimizer)
        grads[0][7] = np.nan
        if policy == "raise":
            with pytest.raises(FloatingPointError):
                optimizer.step(grads)
        else:
            optimizer.step(grads)
        assert before == [a.tobytes() for a in arrays]
        assert optimizer.report.skipped == (policy == "skip")
        assert optimizer.report.updated == 0
        if first:
            statistics_are_unknown(optimizer)
        else:
            assert optimizer.stats.updates == 1
        copies_are_right(optimizer)
        optimizer.step(grads_of(optimizer))


@with_both_plans
def test_after_a_refused_step(isa):
    optimizer = made()
    with pytest.raises(ValueError, match="shape"):
        optimizer.step([np.zeros(3, "f")] * 2)
    copies_are_right(optimizer)
    averages_are_the_parameters(optimizer)
    statistics_are_unknown(optimizer)
    nothing_happened(optimizer)


@with_both_plans
def test_a_refused_step_leaves_the_report(isa):
    """Also where what is refused is found late."""
    optimizer = made(clip_norm=1.0)
    optimizer.step(grads_of(optimizer))
    report = optimizer.report
    for scale in (1e39, math.inf):
        with pytest.raises(ValueError, match="grad_scale"):
            optimizer.step(grads_of(optimizer), grad_scale=scale)
        assert optimizer.report == report


@with_both_plans
def test_the_norm_of_nothing(isa):
    optimizer = lrfast.SGD([np.ones(0)], clip_norm=1.0)
    optimizer.step([np.ones(0)])
    assert (optimizer.report.grad_norm, optimizer.report.limited_norm, optimizer.report.clip_factor) == (0, 0, 1)


@with_both_plans
@pytest.mark.parametrize("with_averages", [True, False])
def test_after_loading(isa, with_averages):
    """Copies are of the parameters as they are; averages those that were saved, or else the parameters."""
    source, optimizer = made(), made()
    source.step(grads_of(source))
    saved = source.state_dict()
    optimizer.step(grads_of(optimizer, value=-0.5))
    for param, new in zip(params_of(optimizer), params_of(source), strict=True):
        param[...] = new
    if not with_averages:
        del saved["ema"]
    optimizer.load_state_dict(saved)
    copies_are_right(optimizer)
    statistics_are_unknown(optimizer)
    if with_averages:
        assert all(map(same_bits, optimizer.ema, source.ema))
    else:
        averages_are_the_parameters(optimizer)


@with_both_plans
@pytest.mark.parametrize("steps", [0, 2])
def test_copies_of_the_optimizer(isa, steps):
    optimizer = made()
    for _ in range(steps):
        optimizer.step(grads_of(optimizer))
    params_of(optimizer)[0][...] = 9  # written from outside: the copy of the copy is fresh, ours is as it was
    stale = optimizer.copy_to[0].copy()
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        copies_are_right(twin)
        assert all(map(same_bits, twin.ema, optimizer.ema))
        statistics_are_unknown(twin)
        nothing_happened(twin)
    assert np.array_equal(optimizer.copy_to[0], stale)


@with_both_plans
def test_groups_that_join(isa):
    optimizer = made()
    optimizer.step(grads_of(optimizer))
    before = [a.copy() for a in optimizer.ema]
    more = np.full(3, 77, np.float16)
    optimizer.add_param_group({"params": [np.full(3, 1 / 3, np.float32)], "copy_to": [more]})
    copies_are_right(optimizer)
    assert all(map(same_bits, optimizer.ema, [*before, params_of(optimizer)[2]]))
    statistics_are_unknown(optimizer)
    optimizer.step(grads_of(optimizer, none=(2,)))
    copies_are_right(optimizer)


def test_a_refused_constructor_writes_no_copy():
    param, copied = np.ones(4, "f"), np.full(4, 77, np.float16)
    memory = np.zeros(8, "f")
    for grads in (np.zeros(3, "f"), memory[::2]):
        with pytest.raises(ValueError, match="grads"):
            lrfast.SGD(param, grads=grads, copy_to=copied)
    with pytest.raises(ValueError, match="overlap"):
        lrfast.SGD([param, param], copy_to=[copied, copied.copy()])
    assert (copied == 77).all()
    optimizer = lrfast.SGD([param], copy_to=[copied])
    copied[...] = 77
    with pytest.raises(ValueError, match="overlap"):
        optimizer.add_param_group({"params": [param], "copy_to": [np.zeros(4, np.float16)]})
    assert (copied == 77).all()


# ---- options, averages in place, writes from outside ---------------------------------------------------------


@with_both_plans
def test_after_options_change(isa):
    optimizer = made()
    optimizer.step(grads_of(optimizer))
    before = [a.tobytes() for a in (*optimizer.ema, *optimizer.copy_to)]
    for name, value in [("clip_norm", 1.0), ("clip_value", 1.0), ("nonfinite", "propagate"), ("zero_grads", True)]:
        setattr(optimizer, name, value)
        assert optimizer.stats.updates == 1
    optimizer.stats = 2
    statistics_are_unknown(optimizer)
    optimizer.stats = False
    assert len(optimizer.stats) == 0
    optimizer.ema_decay = 0.25
    assert before == [a.tobytes() for a in (*optimizer.ema, *optimizer.copy_to)]
    optimizer.step(grads_of(optimizer))
    copies_are_right(optimizer)


@with_both_plans
@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("ema_dtype", [None, "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_while_averages_take_the_place_of_parameters(isa, dtype, ema_dtype, copies):
    """Copies are of what the parameters hold, also where those were written from outside before."""
    optimizer = made(dtype=dtype, copies=copies, ema=0.9, ema_dtype=ema_dtype)
    optimizer.step(grads_of(optimizer))
    for written in (False, True):
        if written:
            params_of(optimizer)[0][...] = 5 / 3
        averages = [a.astype(dtype) for a in optimizer.ema]
        with optimizer.use_ema():
            assert all(map(same_bits, params_of(optimizer), averages))
            copies_are_right(optimizer)
        copies_are_right(optimizer)


@with_both_plans
@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_refreshed_on_demand(isa, dtype, copies):
    optimizer = made(dtype=dtype, copies=copies)
    params_of(optimizer)[0][:4] = [1 / 3, np.inf, -0.0, np.nan]
    averages = [a.tobytes() for a in optimizer.ema]
    optimizer.refresh_copies()
    for param, copied in zip(params_of(optimizer), optimizer.copy_to, strict=True):
        expected = rounded(param, copied.dtype)
        places = ~np.isnan(param)
        assert np.array_equal(copied[places], expected[places])
    assert averages == [a.tobytes() for a in optimizer.ema]
    assert optimizer.updates == 0
    with optimizer.use_ema(), pytest.raises(RuntimeError, match="changed places"):
        optimizer.refresh_copies()
    with pytest.raises(ValueError, match="made with copy_to"):
        lrfast.SGD(np.ones(2)).refresh_copies()


@with_both_plans
@pytest.mark.parametrize("action", ["refresh_copies", "load_state_dict", "use_ema"])
def test_copies_that_were_locked_are_named_before_anything_is_written(isa, action):
    optimizer = made()
    optimizer.step(grads_of(optimizer))
    saved = made().state_dict()
    arrays = [*params_of(optimizer), *optimizer.ema, *optimizer.copy_to]
    params_of(optimizer)[0][...] = 3
    before = [a.tobytes() for a in arrays], optimizer.updates, optimizer.state[0]["exp_avg"].tobytes()
    optimizer.copy_to[1].flags.writeable = False
    acts = {
        "refresh_copies": optimizer.refresh_copies,
        "load_state_dict": lambda: optimizer.load_state_dict(saved),
        "use_ema": optimizer.use_ema().__enter__,
    }
    with pytest.raises(ValueError, match=r"copy_to\[1\].*writable"):
        acts[action]()
    assert before == ([a.tobytes() for a in arrays], optimizer.updates, optimizer.state[0]["exp_avg"].tobytes())


# ---- what is remembered of arrays, looked at anew ------------------------------------------------------------


@with_both_plans
def test_a_copy_that_was_retyped_where_it_is(isa):
    copied = np.zeros(3, np.float16)
    optimizer = lrfast.SGD([np.ones(3, np.float32)], copy_to=[copied])
    copied.dtype = np.uint16
    before = copied.copy()
    with pytest.raises((TypeError, ValueError), match="copy_to"):
        optimizer.step([np.ones(3, np.float32)])
    assert np.array_equal(copied, before)
    assert optimizer.updates == 0


@with_both_plans
def test_a_copy_that_was_cut_short_where_it_is(isa):
    """resize may leave the address: then the size tells."""
    stayed = 0
    for n in (64, 1000, 4096, 100_000):
        copied = np.zeros(n, np.float16)
        param = np.ones(n, np.float32)
        optimizer = lrfast.SGD(param, lr=1.0, copy_to=copied)
        address = copied.ctypes.data
        copied.resize(n - 8, refcheck=False)
        stayed += copied.ctypes.data == address
        with pytest.raises(ValueError, match=r"copy_to\[0\]: expected shape"):
            optimizer.step(np.ones(n, np.float32))
        assert param[0] == 1
    assert stayed > 0


@with_both_plans
def test_gradients_that_share_memory_when_zeroing_is_switched_on(isa):
    params = [np.ones(4), np.ones(4)]
    optimizer = lrfast.SGD(params, lr=1.0)
    grads = [np.ones(4)] * 2
    optimizer.step(grads)
    optimizer.zero_grads = True
    with pytest.raises(ValueError, match="overlap"):
        optimizer.step(grads)
    assert grads[0].all()
    assert optimizer.updates == 1
    optimizer.zero_grads = False
    optimizer.step(grads)
    assert (params[0] == -1).all()
