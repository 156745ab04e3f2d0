"""Promise 2: compiled kernels give the bits of the reference, on every instruction set, length and alignment.

Each factor is covered in full while the others stay at representative values; of the lengths, which every variant
meets, a run takes those that are drawn.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import lrfast
from lrfast._engine.specification import argument_of

import drawn
import golden
from arrays import make_grads, make_params, same_bits
from variants import CORNERS, VARIANTS, rule_of

DTYPES = [np.float32, np.float64]
COMPILED = [isa for isa in lrfast.available_isas() if isa != "numpy"]
LENGTHS = sorted({*range(258), *(2**k + d for k in range(9, 14) for d in (-1, 0, 1))})
# Each length comes round within so many days, and every number modulo the elements of a vector each day.
LINES_OF_LENGTHS = 7

grads_of, params_of = cache(make_grads), cache(make_params)


def run(isa, variant, dtype, n, steps, settings=None, offset=0, grad_scale=1.0):
    """Parameters and states after some steps, in buffers that begin `offset` elements after a 64-byte boundary."""
    param = place(params_of(n, dtype), offset)
    with lrfast.use_isa(isa):
        optimizer = VARIANTS[variant].make(param, **(settings or {}))
        for t in range(steps):
            optimizer.step(place(grads_of(n, dtype, t), offset), grad_scale=grad_scale)
    states = [value for name, value in optimizer.state[0].items() if name != "step"]
    assert optimizer.state[0]["step"] == optimizer.updates == steps
    return [param, *states]


def place(values, offset):
    memory = np.zeros(values.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset * values.itemsize
    out = memory[start : start + values.nbytes].view(values.dtype)
    out[...] = values
    return out


def assert_equal_to_reference(*args, **kwargs):
    """On every instruction set."""
    reference = run("numpy", *args, **kwargs)
    for isa in COMPILED:
        for got, expected in zip(run(isa, *args, **kwargs), reference, strict=True):
            assert same_bits(got, expected), (isa, args, kwargs)


def test_there_are_compiled_kernels():
    assert COMPILED, "the extension is missing: nothing below would be tested"


@pytest.mark.parametrize("state", [None, 0.3])
def test_functional_is_the_reference(state):
    """Also from states that something else has left there, which update 1 of some rules does not read."""
    for variant, cls, settings, *_ in VARIANTS.values():
        name = cls.__name__.lower()
        options = {k: v for k, v in settings.items() if k != "initial_accumulator_value"}
        buffers = cls(np.zeros(300, np.float32), **settings)._buffers
        states = buffers.states[0] | buffers.carried_of(0)
        results = []
        for module in (lrfast.functional, lrfast.reference):
            param, found = make_params(300, np.float32), []
            arguments = {argument_of(cls.spec, n): s.copy() for n, s in states.items()}
            for value in arguments.values() if state else []:
                value[...] = state
            for step in range(1, 6):
                getattr(module, name)(param, make_grads(300, np.float32, step), **arguments, step=step, **options)
                found += [array.copy() for array in (param, *arguments.values())]
            results.append(found)
        assert all(same_bits(a, b) for a, b in zip(*results, strict=True)), variant


def assert_functions_agree(name, states, gradient=1.0, **settings):
    """lrfast.functional, which is compiled, and lrfast.reference, on one element of float64 from such states."""
    results = []
    for module in (lrfast.functional, lrfast.reference):
        param, grad, arrays = np.zeros(1), np.full(1, gradient), {k: np.full(1, v) for k, v in states.items()}
        getattr(module, name)(param, grad, **arrays, **settings)
        results.append([param, *arrays.values()])
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True)), (name, states, settings)


def test_radam_where_its_formula_changes():
    """Near y = 2^-8 each term of the series and of what comes after it counts; there is one beta2 where y is that, and
    there are some where rho is 5."""
    moments = {"exp_avg": 0.5, "exp_avg_sq": 0.5}
    assert_functions_agree("radam", moments, step=2**45, betas=(0.9, 1 - 2**-53))
    assert_functions_agree("radam", moments, step=6, betas=(0.9, 0.839768574865979))
    rng = np.random.default_rng(7)
    for step in [*range(1, 60), *np.unique(rng.integers(60, 10**5, 200)).tolist()]:
        for y in rng.uniform(2**-9, 2**-7, 5) if step < 60 else [2**-8 * 0.999]:
            assert_functions_agree("radam", moments, step=step, betas=(0.9, 1 - y / step))


def test_a_mean_of_squares_that_is_the_largest_number_is_no_infinite_one():
    largest = np.finfo(np.float64).max
    settings = dict(step=2, alpha=1 - 2**-53, centered=True)
    assert_functions_agree("rmsprop", {"square_avg": largest, "grad_avg": 2.0**511}, 2.0**512, **settings)
    square_avg = np.full(1, largest)
    lrfast.functional.rmsprop(np.zeros(1), np.full(1, 2.0**512), square_avg, grad_avg=np.zeros(1), **settings)
    assert square_avg[0] == largest


@pytest.mark.parametrize(("variant", "settings"), CORNERS)
def test_corners_of_settings(variant, settings):
    for dtype in DTYPES:
        assert_equal_to_reference(variant, dtype, 131, 6, settings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_for_100_steps(variant, dtype):
    assert_equal_to_reference(variant, dtype, 1037, 100)


@pytest.mark.parametrize("isa", lrfast.available_isas())
def test_ordinary_gradients_have_the_bits_that_they_always_had(isa):
    """golden.txt, whose gradients are of every kind, may change where what came out was wrong; this file never."""
    assert golden.ordinary_text(isa) == golden.ORDINARY.read_text(encoding="utf-8")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_length(variant, dtype, request):
    """All, or the share of them that is drawn; for each variant in any case."""
    whole = request.config.getoption("--whole")
    for n in LENGTHS if whole else LENGTHS[drawn.number() % LINES_OF_LENGTHS :: LINES_OF_LENGTHS]:
        assert_equal_to_reference(variant, dtype, n, 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_element_alignment(variant, dtype):
    for offset in range(64 // np.dtype(dtype).itemsize):
        assert_equal_to_reference(variant, dtype, 77, 3, offset=offset)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_tensors_between_cache_lines(dtype):
    """Long runs are split so that vectors do not straddle cache lines; the split must not show."""
    for variant in ("sgd", "adamw-amsgrad"):
        for n in (16_383, 16_384, 16_385, 20_000):
            for offset in (0, 1, 64 // np.dtype(dtype).itemsize - 1):
                assert_equal_to_reference(variant, dtype, n, 2, offset=offset)


@pytest.mark.parametrize("grad_scale", [1 / 3, 0.0, -2.0, 1e-30, 2.0**40])
def test_grad_scale(grad_scale):
    for variant in VARIANTS:
        assert_equal_to_reference(variant, np.float32, 67, 4, grad_scale=grad_scale)


@pytest.mark.parametrize("isa", COMPILED)
def test_late_steps(isa):
    """Bias correction, mean and lr_decay far into a training, through the step counter of a checkpoint."""
    for variant in VARIANTS:
        results = []
        for name in (isa, "numpy"):
            param = make_params(200, np.float32)
            with lrfast.use_isa(name):
                optimizer = VARIANTS[variant].make(param)
                optimizer.step(make_grads(200, np.float32))
                saved = optimizer.state_dict()
                for step in (3, 999, 123_456, 2**24 + 1, 2**40, 2**53 + 2):
                    saved["state"][0]["step"] = step
                    optimizer.load_state_dict(saved, updates=step)
                    optimizer.step(make_grads(200, np.float32, seed=step))
            results.append(param)
        assert same_bits(*results)


def test_several_tensors_are_like_one_each():
    """One call for all tensors of all groups and both dtypes gives what single calls give."""
    for variant in VARIANTS.values():
        sizes = [(5, np.float32), (0, np.float64), (2050, np.float64), (1, np.float32), (1024, np.float32)]
        together = [make_params(n, dtype, seed=i) for i, (n, dtype) in enumerate(sizes)]
        alone = [p.copy() for p in together]
        grads = [make_grads(n, dtype, seed=i) for i, (n, dtype) in enumerate(sizes)]
        optimizer = variant.make([{"params": together[:3]}, {"params": together[3:], "lr": 0.5}])
        singles = [variant.make(p, **({"lr": 0.5} if i >= 3 else {})) for i, p in enumerate(alone)]
        for _ in range(3):
            optimizer.step(grads)
            for single, grad in zip(singles, grads, strict=True):
                single.step(grad)
        assert all(same_bits(a, b) for a, b in zip(together, alone, strict=True)), variant.name


@pytest.mark.parametrize("dtype", DTYPES)
def test_dead_gradients_leave_no_denormals(dtype):
    for variant, cls, settings, *_ in VARIANTS.values():
        if cls is lrfast.Adagrad or "weight_decay" in settings:
            continue  # a sum never shrinks, and decay keeps the gradient alive
        optimizer = cls(np.ones(64, dtype), **{**settings, "lr": 1e-3})
        optimizer.step(np.full(64, 1e-3, dtype))
        saved = optimizer.state_dict()
        for state in saved["state"][0].values():
            if isinstance(state, np.ndarray):
                state[...] = np.finfo(dtype).smallest_normal * 3
        optimizer.load_state_dict(saved)
        for _ in range(40_000 if "beta2" in rule_of(optimizer).defaults else 3000):
            optimizer.step(np.zeros(64, dtype))
        states = [v for n, v in optimizer.state[0].items() if isinstance(v, np.ndarray) and n != "max_exp_avg_sq"]
        smallest = np.finfo(dtype).smallest_normal
        assert all(np.all((s == 0) | (np.abs(s) >= smallest)) for s in states), variant
        moving = [v for n, v in optimizer.state[0].items() if n in ("exp_avg", "momentum_buffer", "square_avg")]
        assert all(np.all(s == 0) for s in moving), variant
