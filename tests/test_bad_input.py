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
from lrfast import schedules

pytestmark = pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy"])


@pytest.fixture(autouse=True)
def forced_isa(isa):
    with lrfast.use_isa(isa):
        yield


def f32(n=8):
    return np.arange(1, n + 1, dtype=np.float32)


def snapshot(optimizer, *arrays):
    """Everything that a refused call must leave alone."""
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    states = [{k: v if k == "step" else v.tobytes() for k, v in s.items()} for s in optimizer.state]
    return [a.tobytes() for a in arrays], states, optimizer.updates, groups


def misaligned(n=8, dtype=np.float32):
    return np.frombuffer(bytearray(n * 8 + 1), np.uint8)[1 : 1 + n * np.dtype(dtype).itemsize].view(dtype)


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


# What no array may be: (array, error, words of the message).
BAD_ARRAYS = {
    "float16": (np.ones(8, np.float16), TypeError, "float32 or float64, got float16"),
    "integer": (np.ones(8, np.int32), TypeError, "float32 or float64, got int32"),
    "complex": (np.ones(8, np.complex64), TypeError, "float32 or float64, got complex64"),
    "longdouble": (np.ones(8, np.longdouble), TypeError, "float32 or float64, got"),
    "object": (np.ones(8, object), TypeError, "float32 or float64, got object"),
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


NAN = float("nan")
BAD_NUMBERS = [
    *[(lrfast.SGD, {name: value}) for name in ("lr", "momentum", "weight_decay") for value in (-1e-9, NAN, math.inf)],
    *[(lrfast.SGD, {"dampening": value}) for value in (NAN, -math.inf)],
    *[(lrfast.Adagrad, {name: value}) for name in ("lr", "lr_decay", "weight_decay", "eps") for value in (-1.0, NAN)],
    *[(lrfast.Adagrad, {"initial_accumulator_value": value}) for value in (-1.0, NAN)],
    *[(lrfast.RMSprop, {"alpha": value}) for value in (-0.1, 1.0, 1.5, NAN)],
    *[(lrfast.RMSprop, {name: value}) for name in ("eps", "momentum") for value in (-1.0, NAN)],
    *[(cls, {"eps": value}) for cls in (lrfast.Adam, lrfast.AdamW) for value in (-1e-8, NAN, math.inf)],
    *[(lrfast.Adam, {"betas": (value, 0.9)}) for value in (-0.1, 1.0, NAN)],
    *[(lrfast.AdamW, {"betas": (0.9, value)}) for value in (-0.1, 1.0, NAN)],
    *[(lrfast.AdamW, {"weight_decay": value}) for value in (-0.1, NAN)],
]


@pytest.mark.parametrize(("cls", "settings"), BAD_NUMBERS)
def test_number_out_of_range(cls, settings, isa):
    (name,) = settings
    param = f32()
    with pytest.raises(ValueError, match=f"group 0: {name}"):
        cls(param, **settings)
    if name == "initial_accumulator_value":
        return
    optimizer = cls(param, **({"momentum": 0.9} if cls is lrfast.SGD else {}))
    optimizer.param_groups[0].update(settings)
    before = param.tobytes()
    with pytest.raises(ValueError, match=f"group 0: {name}"):
        optimizer.step(f32())
    assert param.tobytes() == before
    assert optimizer.updates == 0


@pytest.mark.parametrize("grad_scale", [NAN, math.inf])
def test_grad_scale(grad_scale, isa):
    param = f32()
    optimizer = lrfast.SGD(param)
    saved = snapshot(optimizer, param)
    with pytest.raises(ValueError, match="grad_scale: expected a finite number"):
        optimizer.step(f32(), grad_scale=grad_scale)
    with pytest.raises(TypeError, match="grad_scale: expected a finite number"):
        optimizer.step(f32(), grad_scale="1")
    assert snapshot(optimizer, param) == saved


WRONG_KIND = [
    (lrfast.SGD, {"lr": "0.1"}, "lr: expected a finite number"),
    (lrfast.SGD, {"lr": None}, "lr: expected a finite number"),
    (lrfast.SGD, {"lr": True}, "lr: expected a finite number"),
    (lrfast.SGD, {"nesterov": 1}, "nesterov: expected True or False"),
    (lrfast.Adam, {"amsgrad": "yes"}, "amsgrad: expected True or False"),
    (lrfast.Adam, {"betas": 0.9}, "betas: expected two numbers"),
    (lrfast.Adam, {"betas": (0.9, 0.9, 0.9)}, "betas: expected two numbers"),
    (lrfast.RMSprop, {"initial": "one"}, "initial: expected one of"),
    (lrfast.Adagrad, {"accumulate": "max"}, "accumulate: expected one of"),
]


@pytest.mark.parametrize(("cls", "settings", "words"), WRONG_KIND)
def test_wrong_kind_of_option(cls, settings, words, isa):
    with pytest.raises((TypeError, ValueError), match=words):
        cls(f32(), **settings)


CONTRADICTIONS = [
    (lrfast.SGD, {"nesterov": True}, "nesterov: expected momentum > 0"),
    (lrfast.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov: expected momentum > 0"),
    (lrfast.RMSprop, {"centered": True, "initial": "first-gradient"}, "first-gradient.*centered"),
    (lrfast.Adagrad, {"accumulate": "mean", "initial_accumulator_value": 0.1}, "initial_accumulator_value: expected 0"),
]


@pytest.mark.parametrize(("cls", "settings", "words"), CONTRADICTIONS)
def test_contradicting_options(cls, settings, words, isa):
    with pytest.raises(ValueError, match=words):
        cls(f32(), **settings)


STRUCTURAL = [
    (lrfast.SGD, {}, {"momentum": 0.9}),
    (lrfast.SGD, {"momentum": 0.9}, {"momentum": 0.0}),
    (lrfast.Adam, {}, {"amsgrad": True}),
    (lrfast.AdamW, {"amsgrad": True}, {"amsgrad": False}),
    (lrfast.RMSprop, {}, {"centered": True}),
    (lrfast.RMSprop, {}, {"momentum": 0.5}),
    (lrfast.RMSprop, {}, {"initial": "first-gradient"}),
    (lrfast.Adagrad, {}, {"accumulate": "mean"}),
    (lrfast.Adagrad, {}, {"initial_accumulator_value": 1.0}),
]


@pytest.mark.parametrize(("cls", "settings", "edit"), STRUCTURAL)
def test_structural_option_changed_after_construction(cls, settings, edit, isa):
    param = f32()
    optimizer = cls(param, **settings)
    optimizer.param_groups[0].update(edit)
    before = param.tobytes()
    (name,) = edit
    with pytest.raises(ValueError, match=f"{name} decides which state exists"):
        optimizer.step(f32())
    assert param.tobytes() == before
    assert optimizer.updates == 0
    optimizer.param_groups[0].update({name: settings.get(name, optimizer.defaults[name])})
    optimizer.step(f32())


def test_momentum_may_change_between_nonzero_values(isa):
    optimizer = lrfast.SGD(f32(), momentum=0.9)
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step(f32())


@pytest.mark.parametrize("value", [NAN, -1.0, "x", None, math.inf])
def test_schedule_that_returns_nonsense(value, isa):
    param = f32()
    optimizer = lrfast.Adam([{"params": [param]}, {"params": [f32()], "lr": lambda t: value if t == 1 else 0.1}])
    grads = [f32(), f32()]
    optimizer.step(grads)
    saved = snapshot(optimizer, param)
    with pytest.raises((TypeError, ValueError), match="group 1, schedule at t=1: lr: expected"):
        optimizer.step(grads)
    assert snapshot(optimizer, param) == saved


def test_schedule_of_a_beta_that_returns_nan(isa):
    param = f32()
    optimizer = lrfast.Adam(param, betas=(0.9, lambda t: 0.99 if t == 0 else NAN))
    optimizer.step(f32())
    saved = snapshot(optimizer, param)
    with pytest.raises(ValueError, match=r"schedule at t=1: betas\[1\]"):
        optimizer.step(f32())
    assert snapshot(optimizer, param) == saved


def test_editing_a_scheduled_number(isa):
    param = f32()
    optimizer = lrfast.Adam(param, lr=schedules.constant(0.1))
    optimizer.step(f32())
    saved = param.tobytes()
    optimizer.param_groups[0]["lr"] = 0.2
    with pytest.raises(ValueError, match=r"lr follows a schedule and cannot be edited, got 0\.2"):
        optimizer.step(f32())
    assert param.tobytes() == saved


def test_groups_taken_apart(isa):
    param = f32()
    optimizer = lrfast.Adam([param])
    group = optimizer.param_groups[0]
    before = param.tobytes()
    params = group["params"]
    group["params"] = [param]
    with pytest.raises(ValueError, match="params cannot be replaced"):
        optimizer.step([f32()])
    group["params"] = params
    del group["eps"]
    with pytest.raises(ValueError, match="'eps', which was removed"):
        optimizer.step([f32()])
    assert param.tobytes() == before


def test_collections_that_are_none(isa):
    with pytest.raises(ValueError, match="at least one array"):
        lrfast.SGD([])
    with pytest.raises(TypeError, match="a sequence or a mapping"):
        lrfast.SGD(3)
    with pytest.raises(TypeError, match="expected groups like"):
        lrfast.SGD([{"params": [f32()]}, f32()])
    with pytest.raises(ValueError, match="unknown option 'learning_rate'"):
        lrfast.SGD([{"params": [f32()], "learning_rate": 1.0}])
    with pytest.raises(TypeError, match="base class"):
        lrfast.Optimizer(f32(), None, {})


def test_mapping_of_gradients(isa):
    params = {"w": f32(), "b": f32()}
    optimizer = lrfast.SGD(params, lr=1.0)
    saved = snapshot(optimizer, *params.values())
    for grads, error, words in [
        ({"w": f32()}, ValueError, r"grads\['b'\]: missing"),
        ({"w": f32(), "b": f32(), "c": f32()}, ValueError, r"grads\['c'\]: there is no parameter"),
        ({"w": f32(), "b": f32(7)}, ValueError, r"grads\['b'\].*params\['b'\]"),
        ([f32(), f32()], TypeError, "a mapping like params, got list"),
    ]:
        with pytest.raises(error, match=words):
            optimizer.step(grads)
        assert snapshot(optimizer, *params.values()) == saved
    optimizer.step({"b": f32(), "w": None})
    assert np.all(params["b"] == 0)
    assert params["w"].tobytes() == f32().tobytes()


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
    "lr": (dict(lr=NAN), ValueError, "lr: expected a finite number"),
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


def test_groups_replaced_or_appended(isa):
    param = f32()
    optimizer = lrfast.SGD([param])
    group = optimizer.param_groups[0]
    optimizer.param_groups[0] = dict(group)
    for _ in range(2):
        with pytest.raises(ValueError, match="param_groups: expected the groups that the optimizer made"):
            optimizer.step([f32()])
        optimizer.param_groups[:] = [group, dict(group)]
    optimizer.param_groups[:] = [group]
    with pytest.raises(AttributeError):
        optimizer.param_groups = [group]
    group["momentun"] = 0.9
    with pytest.raises(ValueError, match="unknown option 'momentun'"):
        optimizer.step([f32()])
    assert param.tobytes() == f32().tobytes()


@pytest.mark.parametrize("name", ["maximize", "nesterov"])
def test_schedule_of_what_is_no_number(name, isa):
    with pytest.raises(TypeError, match=f"{name}: expected True or False"):
        lrfast.SGD(f32(), **{name: lambda t: True})


def test_scheduled_numbers_that_contradict_each_other(isa):
    param = f32()
    optimizer = lrfast.SGD(param, momentum=0.9, nesterov=True, dampening=lambda t: 0.0 if t == 0 else 0.5)
    optimizer.step(f32())
    saved = snapshot(optimizer, param)
    with pytest.raises(ValueError, match="schedule at t=1: nesterov: expected momentum > 0 and dampening = 0"):
        optimizer.step(f32())
    assert snapshot(optimizer, param) == saved


def test_state_locked_by_the_user(isa):
    param = f32()
    optimizer = lrfast.Adam(param)
    optimizer.state[0]["exp_avg"].setflags(write=False)
    optimizer.step(f32())
    assert np.all(optimizer.state[0]["exp_avg"] != 0)
