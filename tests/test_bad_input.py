"""Promise 3: what does not fit is refused with an error that names it, before any byte is written.

Every case runs on the compiled kernels and on the reference.
"""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest

import lrfast

from arrays import f32, snapshot

pytestmark = [
    pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy"]),
    pytest.mark.usefixtures("forced_isa"),
]


def misaligned(n=8, dtype=np.float32):
    return np.frombuffer(bytearray(n * 8 + 1), np.uint8)[1 : 1 + n * np.dtype(dtype).itemsize].view(dtype)


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


# What no array may be: (array, error, words of the message).
BAD_ARRAYS = {
    "bits": (np.ones(8, np.uint16), TypeError, "or float16, got uint16; uint16='bfloat16' says"),
    "integer": (np.ones(8, np.int32), TypeError, "float32, float64, bfloat16 or float16, got int32"),
    "complex": (np.ones(8, np.complex64), TypeError, "float32, float64, bfloat16 or float16, got complex64"),
    "longdouble": (np.ones(8, np.longdouble), TypeError, "float32, float64, bfloat16 or float16, got"),
    "object": (np.ones(8, object), TypeError, "float32, float64, bfloat16 or float16, got object"),
    "byte-swapped": (np.ones(8, ">f4"), TypeError, "foreign byte order"),
    "strided": (np.ones(16, np.float32)[::2], ValueError, "C-contiguous"),
    "reversed": (np.ones(8, np.float32)[::-1], ValueError, "C-contiguous"),
    "fortran": (np.ones((2, 4), np.float32, order="F"), ValueError, "C-contiguous"),
    "misaligned": (misaligned(), ValueError, "aligned to 4 bytes"),
    "list": ([1.0] * 8, TypeError, "expected a numpy array, got list"),
    "number": (1.0, TypeError, "expected a numpy array, got float"),
    "memoryview": (memoryview(bytearray(32)), TypeError, "expected a numpy array, got memoryview"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_parameter(kind, isa):
    bad, error, words = BAD_ARRAYS[kind]
    good = f32()
    before = good.tobytes()
    with pytest.raises(error, match=re.escape("params[1]") + ".*" + words):
        lrfast.Adam([good, bad])
    assert good.tobytes() == before


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.parametrize("bound", [False, True])
def test_gradient(kind, bound, isa):
    bad, error, words = BAD_ARRAYS[kind]
    shape = bad.shape if isinstance(bad, np.ndarray) else (8,)
    params = [f32(), f32().reshape(shape) if math.prod(shape) == 8 else f32()]
    before = [p.tobytes() for p in params]
    words = re.escape("grads[1]") + ".*" + words
    if bound:
        with pytest.raises(error, match=words):
            lrfast.Adam(params, grads=[f32(), bad])
    else:
        optimizer = lrfast.Adam(params)
        saved = snapshot(optimizer, *params)
        with pytest.raises(error, match=words):
            optimizer.step([f32(), bad])
        assert snapshot(optimizer, *params) == saved
    assert [p.tobytes() for p in params] == before


REFUSED_GRADS = {
    "mixed dtype": (lambda p: [p[0] * 0, np.zeros(8, np.float64)], TypeError, r"grads\[1\].*float32 like params\[1\]"),
    "wrong shape": (lambda p: [p[0] * 0, np.zeros((2, 4), np.float32)], ValueError, r"grads\[1\].*\(8,\).*\(2, 4\)"),
    "wrong length": (lambda p: [p[0] * 0, np.zeros(7, np.float32)], ValueError, r"grads\[1\].*\(8,\).*\(7,\)"),
    "too few": (lambda p: [p[0] * 0], ValueError, "expected 2 arrays, one per parameter, got 1"),
    "too many": (lambda p: [p[0] * 0] * 3, ValueError, "expected 2 arrays, one per parameter, got 3"),
    "the parameter itself": (lambda p: [p[0], p[1] * 0], ValueError, r"grads\[0\].*overlaps|params\[0\].*overlaps"),
    "another parameter": (lambda p: [p[1], p[1] * 0], ValueError, "overlaps"),
    "a mapping": (lambda p: {"a": p[0] * 0, "b": p[1] * 0}, TypeError, "a sequence like params, got dict"),
    "an array": (lambda p: np.zeros(8, np.float32), TypeError, "a sequence like params, got ndarray"),
    "text": (lambda p: "grads", TypeError, "grads: expected .* got str"),
    "nothing": (lambda p: None, ValueError, "none were bound"),
}


@pytest.mark.parametrize("kind", REFUSED_GRADS)
def test_gradients_of_a_step(kind, isa):
    make, error, words = REFUSED_GRADS[kind]
    params = [f32(), f32()]
    optimizer = lrfast.Adam(params)
    optimizer.step([f32(), f32()])
    saved = snapshot(optimizer, *params)
    with pytest.raises(error, match=words):
        optimizer.step(make(params))
    assert snapshot(optimizer, *params) == saved
    optimizer.step([f32(), f32()])
    assert optimizer.updates == 2


def test_gradient_overlapping_state(isa):
    param = f32()
    optimizer = lrfast.Adam([param])
    saved = snapshot(optimizer, param)
    with pytest.raises(ValueError, match=r"overlaps .*exp_avg|exp_avg.*overlaps"):
        optimizer.step([optimizer.state[0]["exp_avg"]])
    assert snapshot(optimizer, param) == saved


def test_gradient_partly_overlapping(isa):
    memory = np.ones(12, np.float32)
    optimizer = lrfast.SGD([memory[:8]])
    saved = snapshot(optimizer, memory)
    with pytest.raises(ValueError, match="overlaps"):
        optimizer.step([memory[4:]])
    assert snapshot(optimizer, memory) == saved


def test_unbound_step_of_a_bound_optimizer(isa):
    param, grad = f32(), f32()
    optimizer = lrfast.Adam(param, grads=grad)
    saved = snapshot(optimizer, param, grad)
    with pytest.raises(ValueError, match="bound at construction; got some"):
        optimizer.step(f32())
    assert snapshot(optimizer, param, grad) == saved


def test_same_array_twice(isa):
    param = f32()
    before = param.tobytes()
    with pytest.raises(ValueError, match=r"params\[1\].*overlaps params\[0\]"):
        lrfast.SGD([param, param])
    with pytest.raises(ValueError, match=r"overlaps"):
        lrfast.SGD([{"params": [param]}, {"params": [param[2:4]]}])
    assert param.tobytes() == before


def test_read_only_parameter(isa):
    with pytest.raises(ValueError, match="params: expected a writable array"):
        lrfast.SGD(read_only(f32()))


def test_parameter_locked_after_binding(isa):
    param = f32()
    optimizer = lrfast.Adam(param)
    param.setflags(write=False)
    saved = snapshot(optimizer, param)
    with pytest.raises(ValueError, match="params: expected a writable array"):
        optimizer.step(f32())
    assert snapshot(optimizer, param) == saved


def test_read_only_gradients_are_welcome(isa):
    param = f32()
    lrfast.SGD(param, lr=1.0).step(read_only(f32()))
    assert np.all(param == 0)


def test_scalar_and_empty_arrays_are_valid(isa):
    scalar, empty = np.array(3.0), np.zeros((0, 4), np.float32)
    optimizer = lrfast.Adam([scalar, empty], lr=0.5)
    optimizer.step([np.array(1.0), np.zeros((0, 4), np.float32)])
    assert scalar == pytest.approx(2.5)
    assert [s["step"] for s in optimizer.state] == [1, 1]


def test_tensor_without_gradient_is_skipped(isa):
    params = [f32(), f32()]
    optimizer = lrfast.Adam(params)
    optimizer.step([f32(), None])
    assert params[1].tobytes() == f32().tobytes()
    assert [s["step"] for s in optimizer.state] == [1, 0]
    assert optimizer.updates == 1
    optimizer.step([None, None])
    assert [s["step"] for s in optimizer.state] == [1, 0]
    assert optimizer.updates == 2


@pytest.mark.parametrize("which", ["params", "grads"])
def test_array_resized_after_binding(which, isa):
    param, grad = np.ones(8, np.float32), np.ones(8, np.float32)
    optimizer = lrfast.Adam(param, grads=grad)
    saved = snapshot(optimizer)
    (param if which == "params" else grad).resize(100_000, refcheck=False)
    resized = param.tobytes()
    with pytest.raises(ValueError, match=which):
        optimizer.step()
    assert snapshot(optimizer) == saved
    assert param.tobytes() == resized


def test_dtype_changed_after_binding(isa):
    param = f32()
    optimizer = lrfast.SGD(param)
    with warnings.catch_warnings(action="ignore"):
        param.dtype = np.int32
    before = param.tobytes()
    with pytest.raises(TypeError, match="got int32"):
        optimizer.step(f32())
    assert param.tobytes() == before


def test_state_arrays_cannot_be_replaced(isa):
    optimizer = lrfast.Adam(f32())
    with pytest.raises(TypeError):
        optimizer.state[0]["exp_avg"] = f32()
    with pytest.raises(ValueError, match="does not own"):
        optimizer.state[0]["exp_avg"].resize(100)


FUNCTIONAL = {
    "missing state": (dict(max_exp_avg_sq=None, amsgrad=True), ValueError, "max_exp_avg_sq: amsgrad needs this state"),
    "superfluous state": (dict(max_exp_avg_sq=f32()), ValueError, "max_exp_avg_sq: adam has no this state|has no"),
    "step 0": (dict(step=0), ValueError, "step: expected an integer >= 1"),
    "float step": (dict(step=1.0), TypeError, "step: expected an integer >= 1"),
    "lr": (dict(lr=float("nan")), ValueError, "lr: expected a finite number"),
    "shape": (dict(exp_avg=f32(7)), ValueError, r"exp_avg: expected shape \(8,\) like param"),
    "dtype": (dict(exp_avg=np.ones(8)), TypeError, "exp_avg: expected dtype float32 like param"),
    "read-only": (dict(exp_avg=read_only(f32())), ValueError, "exp_avg: expected a writable array"),
    "list": (dict(grad=[1.0] * 8), TypeError, "grad: expected a numpy array, got list"),
    "integer param": (dict(param=np.ones(8, np.int32)), TypeError, "param: expected dtype"),
    "unknown": (dict(momentum=0.9), TypeError, "momentum"),
}


@pytest.mark.parametrize("kind", FUNCTIONAL)
def test_functional(kind, isa):
    change, error, words = FUNCTIONAL[kind]
    good = dict(param=f32(), grad=f32(), exp_avg=f32(), exp_avg_sq=f32(), step=1)
    arrays = [a for a in {**good, **change}.values() if isinstance(a, np.ndarray)]
    before = [a.tobytes() for a in arrays]
    with pytest.raises(error, match=words):
        lrfast.functional.adam(**{**good, **change})
    assert [a.tobytes() for a in arrays] == before


def test_functional_overlap(isa):
    param, state = f32(), f32()
    before = (param.tobytes(), state.tobytes())
    with pytest.raises(ValueError, match="overlaps"):
        lrfast.functional.adam(param, f32(), state, state, step=1)
    with pytest.raises(ValueError, match="overlaps"):
        lrfast.functional.sgd(param, param, step=1)
    assert (param.tobytes(), state.tobytes()) == before


def test_overlap_is_found_after_any_refusal(isa):
    """A refused step leaves nothing behind that makes the next one look away."""
    params, grads = [f32(), f32()], [f32(), f32()]
    optimizer = lrfast.SGD(params)
    optimizer.step(grads)
    saved = snapshot(optimizer, *params)
    for bad in ([params[1], f32(3)], [params[1], grads[1]], [params[1], grads[1]], [params[1], None]):
        with pytest.raises(ValueError, match="expected"):
            optimizer.step(bad)
        assert snapshot(optimizer, *params) == saved
    optimizer.step(grads)


class Subclass(np.ndarray):
    """Arithmetic of its own, as np.matrix has."""


@pytest.mark.parametrize("odd", [np.ones((2, 2)).view(Subclass), np.ma.masked_array(np.ones((2, 2)), np.eye(2))])
def test_arrays_that_mean_something_else(odd, isa):
    with pytest.raises(TypeError, match="expected a plain numpy array"):
        lrfast.SGD([odd])
    param = np.ones((2, 2))
    with pytest.raises(TypeError, match="expected a plain numpy array"):
        lrfast.SGD([param]).step([odd])
    assert np.all(param == 1)


def test_state_locked_by_the_user(isa):
    param = f32()
    optimizer = lrfast.Adam(param)
    optimizer.state[0]["exp_avg"].setflags(write=False)
    optimizer.step(f32())
    assert np.all(optimizer.state[0]["exp_avg"] != 0)
