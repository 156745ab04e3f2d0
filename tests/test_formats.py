"""Parameters, gradients and states of 16 bits, and masters: the bits of a training in float32 between conversions.

What every code is and what every number becomes is seen in tests/c/test_formats.c; here, that NumPy has the same.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import lrfast
from lrfast._engine import formats
from lrfast.diagnose.curvature import extreme_curvatures

from arrays import same_bits
from variants import VARIANTS

BF16, F16, F32 = ml_dtypes.bfloat16, np.float16, np.float32
ISAS = lrfast.available_isas()
COMPILED = [isa for isa in ISAS if isa != "numpy"]
COUNT = 1037

# Of a training: dtype of parameters and of gradients, options.
KINDS = {
    "bfloat16 gradients": (F32, BF16, {}),
    "float16 gradients": (F32, F16, {}),
    "bfloat16": (BF16, BF16, {}),
    "float16": (F16, F16, {}),
    "bits": (np.uint16, np.uint16, dict(uint16="bfloat16")),
    "bfloat16, gradients of float32": (BF16, F32, {}),
    "master": (BF16, BF16, dict(master="float32")),
    "master of float16": (F16, BF16, dict(master="float32")),
    "split": (BF16, BF16, dict(master="split")),
    "split bits": (np.uint16, F32, dict(master="split", uint16="bfloat16")),
}
SURROUNDED = dict(clip_norm=2.0, clip_value=0.5, nonfinite="skip", zero_grads=True, ema=0.9, stats=True)


@pytest.fixture(params=ISAS)
def isa(request):
    with lrfast.use_isa(request.param):
        yield request.param


def make_params(n=COUNT):
    """Ordinary float32 numbers."""
    return np.random.default_rng([1, n]).standard_normal(n).astype(F32)


def make_grads(t=0, n=COUNT):
    """Of some orders of magnitude, and two zeros."""
    rng = np.random.default_rng([2, t, n])
    grads = rng.standard_normal(n) * 10.0 ** rng.integers(-4, 1, n)
    grads[:2] = 0.0, -0.0
    return grads.astype(F32)


def as_dtype(values, dtype):
    """Float32 numbers in a dtype; uint16 are the bits of bfloat16."""
    return values.astype(BF16).view(np.uint16) if dtype == np.uint16 else values.astype(dtype)


def numbers(array):
    """What is in an array, as float32."""
    return array.view(BF16).astype(F32) if array.dtype == np.uint16 else array.astype(F32)


def train(variant, kind, isa, steps=4, **options):
    """(optimizer, everything that it has written) after some steps."""
    param_dtype, grad_dtype, own = KINDS[kind]
    param = as_dtype(make_params(), param_dtype)
    with lrfast.use_isa(isa):
        optimizer = VARIANTS[variant].make(param, **own, **options)
        for t in range(steps):
            grad = as_dtype(make_grads(t), grad_dtype)
            optimizer.step(grad, grad_scale=0.7)
    found = [param, grad, *(np.asarray(value) for value in optimizer.state[0].values()), *(optimizer.ema or [])]
    found += [*(optimizer.copy_to or []), optimizer.report.grad_norm]
    return optimizer, found + ([optimizer._recorder.rows] if options.get("stats") else [])


def written(*arguments, **options):
    return [np.asarray(array).tobytes() for array in train(*arguments, **options)[1]]


# ---- bits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_has_the_same_bits_compiled_and_in_numpy(kind):
    for variant in VARIANTS:
        for surrounding in ({}, SURROUNDED):
            copies = {"copy_to": np.zeros(COUNT, F16)} if surrounding else {}
            expected = written(variant, kind, "numpy", **surrounding, **copies)
            for isa in COMPILED:
                assert written(variant, kind, isa, **surrounding, **copies) == expected, (variant, isa, surrounding)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "m" in KINDS[kind][2].get("master", "") or "sp" in kind])
def test_a_master_is_what_a_training_in_float32_has(kind, isa):
    """Bit for bit; and the parameter is what it rounds to."""
    param_dtype, grad_dtype, _ = KINDS[kind]
    optimizer, (param, *_) = train("adamw", kind, isa, steps=6)
    single = numbers(as_dtype(make_params(), param_dtype))
    with lrfast.use_isa(isa):
        other = VARIANTS["adamw"].make(single)
        for t in range(6):
            other.step(numbers(as_dtype(make_grads(t), grad_dtype)), grad_scale=0.7)
    assert same_bits(formats.value(param, optimizer._buffers.states[0]), single)
    assert same_bits(optimizer.state[0]["exp_avg_sq"], other.state[0]["exp_avg_sq"])
    assert np.array_equal(
        numbers(param), single.astype(F16 if param_dtype == F16 else BF16).astype(F32)
    )  # no ties here


@pytest.mark.parametrize("isa", ISAS)
def test_without_a_master_each_step_rounds(isa):
    optimizer, (param, *_) = train("adam", "bfloat16", isa, steps=3)
    single = make_params().astype(BF16).astype(F32)
    states = {"exp_avg": np.zeros(COUNT, F32), "exp_avg_sq": np.zeros(COUNT, F32)}
    for t in range(3):
        grad = make_grads(t).astype(BF16).astype(F32)
        lrfast.reference.adam(single, grad, **states, step=t + 1, grad_scale=0.7)
        for array in (single, *states.values()):
            array[...] = array.astype(BF16).astype(F32)
    assert same_bits(param, single.astype(BF16))
    assert same_bits(optimizer.state[0]["exp_avg_sq"], states["exp_avg_sq"].astype(BF16))


@pytest.mark.parametrize("threads", [1, 3])
def test_large_tensors_on_threads(threads):
    param, grad = make_params(200_000).astype(BF16), make_grads(n=200_000).astype(BF16)
    before = lrfast.get_num_threads()
    lrfast.set_num_threads(threads)
    try:
        optimizer = lrfast.Adam(param, master="split", clip_norm=1.0)
        optimizer.step(grad)
    finally:
        lrfast.set_num_threads(before)
    expected = make_params(200_000).astype(BF16)
    with lrfast.use_isa("numpy"):
        other = lrfast.Adam(expected, master="split", clip_norm=1.0)
        other.step(grad)
    assert same_bits(param, expected)
    assert same_bits(optimizer.state[0]["remainder"], other.state[0]["remainder"])


def test_conversions_in_numpy():
    """All codes, and numbers around every one of them, beside ml_dtypes and NumPy's own."""
    codes = np.arange(1 << 16).astype(np.uint16)
    for dtype in (BF16, F16):
        dtype = np.dtype(dtype)
        decoded = formats.decode(codes.view(dtype))
        assert np.array_equal(decoded, codes.view(dtype).astype(F32), equal_nan=True)
        around = np.array([-1, 0, 1, 2**12, 2**15]).astype(np.uint32)
        words = decoded[np.isfinite(decoded)].view(np.uint32)[:, None] + around
        with np.errstate(all="ignore"):
            x = words.astype(np.uint32).view(F32).reshape(-1)
            expected = x.astype(dtype).view(np.uint16)
        expected[np.isnan(x)] = formats.NAN[dtype.name]
        assert np.array_equal(formats.encode(x, dtype).view(np.uint16), expected)
    upper, remainder = formats.split(x, np.dtype(BF16))
    assert np.array_equal(formats.join(upper, remainder), x, equal_nan=True)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], F32)
    assert formats.split(ties, np.dtype(BF16))[0].astype(F32).tolist() == [1 + 2**-7, 1 + 2**-6, -1 - 2**-7]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_nothing(kind, isa):
    for shape in ((), (0,), (1,), (3, 5)):
        param_dtype, grad_dtype, own = KINDS[kind]
        param = as_dtype(np.ones(shape, F32), param_dtype)
        with lrfast.use_isa(isa):
            optimizer = lrfast.SGD([param], lr=0.25, momentum=0.5, ema=0.5, **own)
            optimizer.step([as_dtype(np.ones(shape, F32), grad_dtype)])
            optimizer.step([None])
        assert np.all(numbers(param) == 0.75)
        assert param.shape == shape


# ---- what a step looks at ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_an_update_that_rounding_loses_counts_as_lost(isa):
    for options, lost in (({}, 4), (dict(master="float32"), 0), (dict(master="split"), 0)):
        param = np.ones(4, BF16)
        with lrfast.use_isa(isa):
            optimizer = lrfast.SGD(param, lr=2.0**-10, stats=True, **options)
            for _ in range(4):
                optimizer.step(np.ones(4, F32))
        assert optimizer.stats["total"]["lost"] == lost
        assert np.all(param == (1 if lost else BF16(1 - 2.0**-8)))


@pytest.mark.parametrize("isa", ISAS)
def test_squares_beyond_float16_are_counted(isa):
    with lrfast.use_isa(isa):
        optimizer = lrfast.Adagrad(np.ones(3, F16), nonfinite="skip")
        optimizer.step(np.array([1, 300, 2000], F32))
        assert optimizer.report.overflowed == 2
        assert np.isinf(optimizer.state[0]["sum"][1:]).all()
        optimizer = lrfast.Adam(np.ones(3, F16), nonfinite="skip")
        optimizer.step(np.array([1, np.inf, 1], F16))
        assert optimizer.report.skipped


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("master", [None, "float32", "split"])
def test_averages_take_the_place_of_parameters(master, isa):
    param = make_params(100).astype(BF16)
    with lrfast.use_isa(isa):
        optimizer = lrfast.Adam(param, ema=0.5, master=master, copy_to=np.zeros(100, F32))
        optimizer.step(make_grads(n=100))
        before, saved = param.copy(), optimizer.state_dict()
        average = optimizer.ema[0].copy()
        assert average.dtype == F32
        with optimizer.use_ema():
            assert same_bits(param, average.astype(BF16))
        assert same_bits(param, before)
        assert_equal_states(optimizer.state_dict(), saved)
        value = formats.value(param, optimizer._buffers.states[0])
        assert same_bits(optimizer.copy_to[0], value)


# ---- a parameter that somebody has written -----------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_a_written_parameter_wins_over_its_master(isa):
    with lrfast.use_isa(isa):
        for master in ("float32", "split"):
            param, grad = np.ones(3, BF16), np.full(3, 2.0**-10, F32)
            optimizer = lrfast.SGD(param, lr=1.0, momentum=0.5, master=master)
            optimizer.step(grad)
            moment = optimizer.state[0]["momentum_buffer"].copy()
            param[1] = 5
            if master == "split":
                optimizer.params_changed()
                kept = [1, 5, 1]  # nothing of any remainder
            else:
                kept = [1 - 2.0**-10, 5, 1 - 2.0**-10]
            assert same_bits(optimizer.state[0]["momentum_buffer"], moment)
            optimizer.step(grad)
            value = formats.value(param, optimizer._buffers.states[0])
            assert value.tolist() == [x - 2.0**-10 * 1.5 for x in kept], master


def test_params_changed_of_float32_masters_and_copies():
    param, copied = np.ones(2, BF16), np.zeros(2, F32)
    optimizer = lrfast.SGD(param, lr=1.0, master="float32", copy_to=copied)
    optimizer.step(np.full(2, 2.0**-10, F32))
    param[1] = 5
    optimizer.params_changed()
    assert optimizer.state[0]["master"].tolist() == copied.tolist() == [1 - 2.0**-10, 5]
    lrfast.SGD(np.ones(2)).params_changed()  # nothing to do


# ---- checkpoints -------------------------------------------------------------------------------------------------


def assert_equal_states(first, second):
    assert first["state"].keys() == second["state"].keys()
    for i, entry in first["state"].items():
        for name, value in entry.items():
            assert np.asarray(value).tobytes() == np.asarray(second["state"][i][name]).tobytes(), name


def trained(kind, steps=3):
    optimizer, (param, *_) = train("adamw", kind, ISAS[0], steps=steps)
    return optimizer, param


def fresh(kind):
    param_dtype, _, own = KINDS[kind]
    param = as_dtype(np.linspace(-3, 3, COUNT, dtype=F32), param_dtype)
    return VARIANTS["adamw"].make(param, **own), param


def go_on(optimizer, kind):
    optimizer.step(as_dtype(make_grads(77), KINDS[kind][1]))
    state = {name: np.asarray(value).tobytes() for name, value in optimizer.state[0].items()}
    return state, optimizer.param_groups[0]["params"][0].tobytes()


@pytest.mark.parametrize("way", ["state_dict", "file", "pickle", "deepcopy"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_goes_on_with_the_same_bits(kind, way, tmp_path):
    optimizer, param = trained(kind)
    if way == "pickle":
        other = pickle.loads(pickle.dumps(optimizer))
    elif way == "deepcopy":
        other = copy.deepcopy(optimizer)
    else:
        other, other_param = fresh(kind)
        if "master" not in KINDS[kind][2]:
            other_param[...] = param
        if way == "file":
            optimizer.save(tmp_path / "state")
            other.load(tmp_path / "state")
        else:
            other.load_state_dict(optimizer.state_dict())
    assert go_on(other, kind) == go_on(optimizer, kind)


@pytest.mark.parametrize("order", ["parameters first", "optimizer first"])
@pytest.mark.parametrize("kind", ["master", "split"])
def test_both_orders_of_loading(kind, order):
    """Neither loses what the master has and the parameter has not."""
    optimizer, param = trained(kind)
    saved = optimizer.state_dict()
    other, other_param = fresh(kind)
    if order == "parameters first":
        other_param[...] = param
        other.params_changed()
        other.load_state_dict(saved)
    else:
        other.load_state_dict(saved)
        other_param[...] = param
        other.params_changed()
    assert_equal_states(other.state_dict(), saved)
    assert go_on(other, kind) == go_on(optimizer, kind)


def test_a_later_rollback_of_parameters_resets_halves():
    """What was loaded is known until the next step."""
    optimizer, param = trained("split")
    other, other_param = fresh("split")
    other.load_state_dict(optimizer.state_dict())
    go_on(other, "split")
    other_param[...] = param
    other.params_changed()
    assert not other.state[0]["remainder"].any()


def test_kinds_of_masters_read_each_other():
    optimizer, _param = trained("master")
    other, other_param = fresh("split")
    other.load_state_dict(optimizer.state_dict())
    assert same_bits(formats.value(other_param, other._buffers.states[0]), optimizer.state[0]["master"])


def test_a_parameter_of_another_moment_is_refused():
    optimizer, _ = trained("master")
    other, other_param = fresh("master")
    other_param[3] = 99
    before, saved = other_param.tobytes(), other.state_dict()
    with pytest.raises(ValueError, match=r"params: expected the parameter that belongs to the master"):
        other.load_state_dict(optimizer.state_dict())
    assert other_param.tobytes() == before
    assert_equal_states(other.state_dict(), saved)


def test_checkpoints_without_a_master():
    """Of our own they are refused, but where one asks for conversions; PyTorch's have none."""
    optimizer, _ = trained("bfloat16")
    saved = optimizer.state_dict()
    other, param = fresh("master")
    with pytest.raises(TypeError, match=r"state\[0\]\['exp_avg'\]: expected dtype float32, got bfloat16"):
        other.load_state_dict(saved)
    other.load_state_dict(saved, dtype="cast")
    assert same_bits(other.state[0]["master"], param.astype(F32))
    assert same_bits(other.state[0]["exp_avg"], saved["state"][0]["exp_avg"].astype(F32))
    whole = other.state_dict()
    del whole["state"][0]["master"]
    with pytest.raises(ValueError, match="the state 'master', which is missing"):
        other.load_state_dict(whole)
    with pytest.raises(ValueError, match="no such state: made without master"):
        fresh("bfloat16 gradients")[0].load_state_dict(other.state_dict())
    whole["state"][0]["master"] = np.zeros(3, F32)
    with pytest.raises(ValueError, match=r"'master'\]: expected shape \(1037,\), got \(3,\)"):
        other.load_state_dict(whole)


def test_words_for_bfloat16_read_each_other():
    optimizer, _ = trained("bfloat16")
    other, _ = fresh("bits")
    other.load_state_dict(optimizer.state_dict())
    assert same_bits(other.state[0]["exp_avg"], optimizer.state[0]["exp_avg"].view(np.uint16))
    back, _ = fresh("bfloat16")
    back.load_state_dict(other.state_dict())
    assert_equal_states(back.state_dict(), optimizer.state_dict())
    single = lrfast.AdamW(np.zeros(COUNT, F32), weight_decay=0.1)
    for t in range(2):
        single.step(make_grads(t))
    with pytest.raises(TypeError, match="expected dtype bfloat16, got float32"):
        back.load_state_dict(single.state_dict())
    back.load_state_dict(single.state_dict(), dtype="cast")
    assert same_bits(back.state[0]["exp_avg"], single.state[0]["exp_avg"].astype(BF16))


# ---- refusals ----------------------------------------------------------------------------------------------------

REFUSED = {
    "no bits without a word": (lambda: lrfast.Adam(np.ones(2, np.uint16)), TypeError, "uint16='bfloat16' says"),
    "bits of something else": (
        lambda: lrfast.Adam(np.ones(2, F32), uint16="float16"),
        ValueError,
        "None or 'bfloat16'",
    ),
    "a master of nothing": (lambda: lrfast.Adam(np.ones(2, F32), master="float32"), ValueError, "of 16 bits"),
    "an unknown master": (lambda: lrfast.Adam(np.ones(2, BF16), master=True), ValueError, "'float32' or 'split'"),
    "halves of float16": (
        lambda: lrfast.Adam([np.ones(2, F16)], master="split"),
        TypeError,
        r"params\[0\]: .*bfloat16",
    ),
    "float64 gradients": (lambda: lrfast.Adam(np.ones(2, BF16)).step(np.ones(2)), TypeError, "grads: .*got float64"),
    "gradients of float64": (
        lambda: lrfast.Adam(np.ones(2)).step(np.ones(2, BF16)),
        TypeError,
        "expected dtype float64 like params, got bfloat16",
    ),
    "shared memory": (
        lambda: (lambda p: lrfast.Adam(p, master="split").step(p.view(F16)))(np.ones(2, BF16)),
        ValueError,
        "overlaps",
    ),
    "a gradient of 16 bits for a function": (
        lambda: lrfast.functional.sgd(np.ones(2, F32), np.ones(2, F16), step=1),
        TypeError,
        "grad: expected dtype float32 or float64, got float16",
    ),
    "a state of 16 bits for a function": (
        lambda: lrfast.functional.sgd(np.ones(2, F32), np.ones(2, F32), np.ones(2, BF16), step=1, momentum=0.5),
        TypeError,
        "momentum_buffer: expected dtype float32 or float64, got bfloat16",
    ),
    "a parameter as the reference's": (
        lambda: lrfast.reference.sgd(np.ones(2, F16), np.ones(2, F16), step=1),
        TypeError,
        "expected dtype float32 or float64, got float16; the optimizer classes take more",
    ),
    "a parameter as a function's": (
        lambda: lrfast.functional.sgd(np.ones(2, BF16), np.ones(2, BF16), step=1),
        TypeError,
        "expected dtype float32 or float64, got bfloat16; the optimizer classes take it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, isa):
    make, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        make()


def test_gradients_change_their_dtype_from_step_to_step(isa):
    """Bound to one plan, in the same memory."""
    param, memory = np.zeros(8, F32), np.ones(8, F32)
    optimizer = lrfast.SGD(param, lr=1.0)
    optimizer.step(memory)
    half = memory.view(F16)[:8]
    half[...] = 2
    optimizer.step(half)
    codes = half.view(BF16)
    codes[...] = 4
    optimizer.step(codes)
    memory[...] = 8
    optimizer.step(memory)
    assert np.all(param == -15)


def test_mixed_tensors(isa):
    """Of all dtypes in one group, of which those of 16 bits have masters."""
    params = [np.ones(3, dtype) for dtype in (F32, BF16, np.float64, F16, BF16)]
    optimizer = lrfast.SGD(params, lr=2.0**-12, master="float32")
    optimizer.step([np.ones(3, np.float64 if p.dtype == np.float64 else F32) for p in params])
    assert [sorted(state) for state in optimizer.state] == [
        ["step"],
        ["master", "step"],
        ["step"],
        *[["master", "step"]] * 2,
    ]
    assert all(np.all(s["master"] == 1 - 2.0**-12) for s in optimizer.state if "master" in s)
    assert np.all(params[0] == 1 - 2.0**-12)
    assert np.all(params[1] == 1)


def test_bfloat16_is_diagnosed():
    """Updates that it loses are found; and it has too few digits to differentiate by."""
    param = np.ones(40, BF16)
    optimizer = lrfast.SGD(param, lr=2.0**-12, stats=True)
    monitor = lrfast.Monitor(optimizer)
    for _ in range(60):
        optimizer.step(np.ones(40, BF16))
        monitor.update(loss=1.0)
    assert str(monitor.verdict()).startswith("lost_updates")
    with pytest.raises(TypeError, match="gradient: expected parameters of float32 or float64"):
        extreme_curvatures(optimizer, lambda p: p)
    sweep = lrfast.find_lr(optimizer, lambda: (float((param.astype(F32) ** 2).sum()), 2 * param), steps=10)
    assert np.all(param == 1)
    assert sweep is not None


def test_import_leaves_ml_dtypes_alone():
    code = "import sys, lrfast, numpy; lrfast.Adam(numpy.ones(2, 'u2'), uint16='bfloat16'); "
    code += "assert 'ml_dtypes' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
