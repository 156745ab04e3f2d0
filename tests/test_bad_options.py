"""Options of what surrounds the update: what does not fit is refused in the user's words, and no byte changes."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
from test_options import everywhere, make

import lrfast

from arrays import snapshot

BAD_OPTIONS = [
    *[("clip_norm", x, ValueError) for x in (0, -1.0, np.nan, np.inf)],
    *[("clip_value", x, ValueError) for x in (0, -1.0, np.nan)],
    ("clip_norm", "1", TypeError),
    ("clip_norm", True, TypeError),
    ("nonfinite", "ignore", ValueError),
    ("nonfinite", None, ValueError),
    ("zero_grads", 1, TypeError),
    *[("ema", x, ValueError) for x in (1.0, -0.1, np.nan)],
    *[("stats", x, ValueError) for x in (0, -1, 1.5, "all", None)],
    ("clip", 1.0, TypeError),
]


@pytest.mark.parametrize(("name", "value", "error"), BAD_OPTIONS)
def test_options_out_of_range(name, value, error):
    with pytest.raises(error, match=name):
        lrfast.SGD(np.ones(3), **{name: value})
    if name in ("clip_norm", "clip_value", "nonfinite", "zero_grads", "stats"):
        optimizer = lrfast.SGD(np.ones(3))
        with pytest.raises(error, match=name):
            setattr(optimizer, name, value)
        optimizer.step(np.ones(3))
        assert optimizer.updates == 1
    if name in ("ema", "copy_to", "report", "skipped"):
        with pytest.raises(AttributeError):
            setattr(lrfast.SGD(np.ones(3)), name, value)


def bad_copies():
    read_only = np.zeros(4, "f")
    read_only.flags.writeable = False
    return [
        (np.zeros(3, "f"), ValueError, "shape"),
        (np.zeros(4, np.int16), TypeError, "dtype"),
        (np.zeros(4), TypeError, "dtype"),
        (np.zeros(4, ">f4"), TypeError, "dtype"),
        ([0.0] * 4, TypeError, "bare array"),
        (np.zeros(8, "f")[::2], ValueError, "C-contiguous"),
        (read_only, ValueError, "writable"),
    ]


@pytest.mark.parametrize(("copies", "error", "text"), bad_copies())
def test_copies_that_do_not_fit(copies, error, text):
    with pytest.raises(error, match=text):
        lrfast.SGD(np.ones(4, "f"), copy_to=copies)


def test_copies_that_overlap():
    memory = np.ones(12, "f")
    with pytest.raises(ValueError, match="overlap"):
        lrfast.SGD(memory[:4], copy_to=memory[3:7])
    with pytest.raises(ValueError, match="overlap"):
        lrfast.SGD([memory[:4], memory[8:]], copy_to=[memory[4:8], memory[4:8]])
    with pytest.raises(ValueError, match="one per parameter"):
        lrfast.SGD([memory[:4], memory[8:]], copy_to=[memory[4:8]])
    optimizer = lrfast.SGD(memory[:4], copy_to=memory[4:8])
    with pytest.raises(ValueError, match="overlap"):
        optimizer.step(memory[6:10])
    assert np.array_equal(memory, np.ones(12))


@everywhere
def test_gradients_that_cannot_be_zeroed(isa):
    optimizer, params = make({"zero_grads": True})
    locked = np.ones(2000, "f")
    locked.flags.writeable = False
    shared = np.ones(2000, "f")
    before = snapshot(optimizer, *params)
    with pytest.raises(ValueError, match=r"grads\[0\].*writable"):
        optimizer.step([locked, np.ones(3, "f")])
    with pytest.raises(ValueError, match="overlap"):
        optimizer.step([shared, shared[:3]])
    assert before == snapshot(optimizer, *params)
    assert shared.all()
    plain = lrfast.SGD([params[0][:3], params[1]], grads=[shared[:3], shared[:3]])
    with pytest.raises(ValueError, match="overlap"):
        plain.zero_grads = True
    assert not plain.zero_grads
    plain.step()


def test_use_ema_without_averages():
    with pytest.raises(ValueError, match="ema"), lrfast.SGD(np.ones(3)).use_ema():
        pass


def test_copies_resized_or_locked_after_binding():
    for isa in lrfast.available_isas():
        with lrfast.use_isa(isa):
            half = np.zeros(4, "f")
            optimizer = lrfast.SGD(np.ones(4, "f"), copy_to=half, lr=1.0)
            half.flags.writeable = False
            with pytest.raises(ValueError, match=r"copy_to\[0\].*writable"):
                optimizer.step(np.ones(4, "f"))
            half.flags.writeable = True
            half.resize(8, refcheck=False)
            with pytest.raises(ValueError, match=r"copy_to\[0\]"):
                optimizer.step(np.ones(4, "f"))
            assert optimizer.updates == 0
            assert optimizer.param_groups[0]["params"][0][0] == 1


def test_averages_cannot_be_replaced():
    optimizer = lrfast.SGD(np.ones(4, "f"), ema=0.5, lr=1.0)
    optimizer.ema[0] = np.zeros(4, "f")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2.5, for setting a shape
        optimizer.ema[0].shape = (2, 2)
    optimizer.step(np.ones(4, "f"))
    assert np.array_equal(optimizer.ema[0], np.full(4, 0.5))


def test_saving_while_averages_are_swapped_in():
    optimizer = lrfast.SGD(np.ones(4, "f"), ema=0.5)
    with optimizer.use_ema():
        for save in (optimizer.state_dict, lambda: copy.deepcopy(optimizer), lambda: pickle.dumps(optimizer)):
            with pytest.raises(RuntimeError, match="changed places"):
                save()
    optimizer.state_dict()


def test_use_ema_is_all_or_nothing():
    params = [np.ones(4, "f"), np.ones(4, "f")]
    optimizer = lrfast.SGD(params, ema=0.5, lr=1.0)
    optimizer.step([np.ones(4, "f"), np.ones(4, "f")])
    params[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"params\[1\]"), optimizer.use_ema():
        pass
    assert params[0][0] == 0
    params[1].flags.writeable = True
    with pytest.raises(ZeroDivisionError), optimizer.use_ema():
        1 / 0  # noqa: B018
    assert params[0][0] == 0
    optimizer.step([np.ones(4, "f"), np.ones(4, "f")])


def test_a_scale_that_only_float64_can_hold():
    for isa in lrfast.available_isas():
        with lrfast.use_isa(isa):
            param = np.ones(4, "f")
            optimizer = lrfast.SGD(param, nonfinite="skip")
            with pytest.raises(ValueError, match=r"grad_scale: expected .*float32.*got 1e\+39"):
                optimizer.step(np.full(4, 1e-30, "f"), grad_scale=1e39)
            assert (optimizer.updates, optimizer.skipped, param.tolist()) == (0, 0, [1, 1, 1, 1])


def test_skipped_steps_are_remembered():
    optimizer = lrfast.SGD([np.ones(4)], nonfinite="skip")
    optimizer.step([np.full(4, np.nan)])
    optimizer.add_param_group({"params": [np.ones(2)]})
    assert optimizer.skipped == 1
    assert copy.deepcopy(optimizer).skipped == 1
