"""Numbers fit the tensor: what its element type does not hold is refused wherever a number can come in, with nothing
written; what it holds, however large or small, moves a parameter as the formula says."""

from __future__ import annotations

import math
from inspect import signature

import numpy as np
import pytest

import lrfast
from lrfast._engine.settings import kinds_of
from lrfast._engine.specification import argument_of
from lrfast._engine.table import ELEMENTS, RANGES

from arrays import same_bits, snapshot
from variants import VARIANTS, rule_of, taken

ISAS = [lrfast.available_isas()[0], "numpy"]
DTYPES = [np.float32, np.float64]
HEAVY = [v for v, variant in VARIANTS.items() if "momentum_buffer" in rule_of(variant.make(np.ones(1))).states]
F4 = np.float32


@pytest.fixture(params=ISAS)
def isa(request):
    with lrfast.use_isa(request.param):
        yield request.param


def ones(dtype=F4, n=3):
    return np.ones(n, dtype)


# ---- single numbers, at every door ---------------------------------------------------------------------------


def numbers_of(variant):
    """Settings that are numbers and reach the formula of a variant."""
    kinds = kinds_of(variant.cls)
    return [name for name in kinds if isinstance(kinds[name], float) and name != "initial_accumulator_value"]


def too_large(name):
    """Whether a number of the setting may be too large for float32 and in its range."""
    return name not in ("alpha", "rho")


def wrong_values(variant):
    """(setting, value that float64 holds and float32 does not), for all of a variant."""
    found = [(name, 1e39) for name in numbers_of(variant) if too_large(name)]
    found += [("eps", x) for x in (1e-50, 7e-46, 1e-30, 9.9e-17) if "eps" in numbers_of(variant)]
    found += [("step_sizes", (1e-6, 1e39)), ("etas", (0.5, 1e39))]
    found = [(name, x) for name, x in found if name in taken(variant.cls, {name: x})]
    return [(name, x) for name, x in found if not (name == "dampening" and variant.settings.get("nesterov"))]


CASES = [(v, name, value) for v, variant in VARIANTS.items() for name, value in wrong_values(variant)]


@pytest.mark.parametrize(("variant", "name", "value"), CASES)
def test_a_number_that_float32_does_not_hold(variant, name, value, isa):
    variant, param, grad = VARIANTS[variant], ones(), ones()
    refused = pytest.raises(ValueError, match=rf"{name}.*float32")
    with refused:
        variant.make(param, **{name: value})
    with refused:  # of a group
        variant.make([{"params": [ones(np.float64)]}, {"params": [ones(np.float64), param], name: value}])
    wide = ones(np.float64)
    variant.make(wide, **{name: value})
    optimizer = variant.make([param])
    with refused:
        optimizer.add_param_group({"params": [ones()], name: value})
    assert len(optimizer.param_groups) == 1
    optimizer.step([grad])
    kept = optimizer.param_groups[0][name]
    if name != "momentum" or kept != 0:
        before = snapshot(optimizer, param)
        optimizer.param_groups[0][name] = value
        with refused:
            optimizer.step([grad])
        optimizer.param_groups[0][name] = kept
        assert snapshot(optimizer, param) == before
        saved = optimizer.state_dict()
        saved["param_groups"][0][name] = value
        with refused:
            optimizer.load_state_dict(saved)
        assert snapshot(optimizer, param) == before

        scheduled = VARIANTS[variant.name].make([param], **{name: following(kept, value)})
        scheduled.step([grad])
        before = snapshot(scheduled, param)
        with refused:
            scheduled.step([grad])
        assert snapshot(scheduled, param) == before
    optimizer.step([grad])


def following(first, then):
    if isinstance(then, tuple):
        return (first[0], lambda t: first[1] if t == 0 else then[1])
    return lambda t: first if t == 0 else then


@pytest.mark.parametrize(("variant", "name", "value"), CASES)
def test_a_number_that_float32_does_not_hold_in_a_function(variant, name, value, isa):
    _, cls, settings, *_ = VARIANTS[variant]
    options = {k: v for k, v in settings.items() if k != "initial_accumulator_value"} | {name: value}
    buffers = VARIANTS[variant].make(ones())._buffers
    states = buffers.states[0] | buffers.carried_of(0)
    if name == "momentum" and "momentum_buffer" not in states:
        states = {**states, "momentum_buffer": ones()}
    arguments = {argument_of(cls.spec, n): s.copy() for n, s in states.items()}
    for module in (lrfast.functional, lrfast.reference):
        param = ones()
        with pytest.raises(ValueError, match=rf"{name}.*float32"):
            getattr(module, cls.__name__.lower())(param, ones(), **arguments, step=7, **options)
        assert np.all(param == 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_scale_or_bound_that_float32_does_not_hold(variant, isa):
    param, grad = ones(), ones()
    optimizer = VARIANTS[variant].make([param, ones(np.float64)])
    before = snapshot(optimizer, param)
    for value in (1e39, 1e-46, 2.0**-150):
        with pytest.raises(ValueError, match=r"grad_scale.*float32"):
            optimizer.step([grad, ones(np.float64)], grad_scale=value)
        with pytest.raises(ValueError, match=r"grad_scale.*float32"):
            optimizer.step([grad, ones(np.float64)], grad_scale=-value)
        for name in ("clip_norm", "clip_value"):
            with pytest.raises(ValueError, match=rf"{name}.*float32"):
                setattr(optimizer, name, value)
            with pytest.raises(ValueError, match=rf"{name}.*float32"):
                VARIANTS[variant].make(ones(), **{name: value})
            setattr(VARIANTS[variant].make(ones(np.float64)), name, value)
    assert snapshot(optimizer, param) == before
    optimizer.step([grad, ones(np.float64)], grad_scale=0.0)


@pytest.mark.parametrize("value", [1e39, 1e-46])
def test_an_accumulator_that_float32_does_not_hold(value, isa):
    with pytest.raises(ValueError, match=r"initial_accumulator_value.*float32"):
        lrfast.Adagrad(ones(), initial_accumulator_value=value)
    optimizer = lrfast.Adagrad([ones(np.float64)], initial_accumulator_value=value)
    with pytest.raises(ValueError, match=r"initial_accumulator_value.*float32"):
        optimizer.add_param_group({"params": [ones()]})
    optimizer.step([ones(np.float64)])


def test_an_eps_that_float64_does_not_hold(isa):
    for variant in VARIANTS.values():
        if "eps" in numbers_of(variant):
            with pytest.raises(ValueError, match=r"eps: expected 0 or a number >= 1e-150 for float64"):
                variant.make(ones(np.float64), eps=1e-151)
            variant.make(ones(np.float64), eps=1e-150)


# ---- what is made of several ---------------------------------------------------------------------------------

PRODUCTS = [
    (lrfast.Adam, dict(lr=1e38)),
    (lrfast.Adam, dict(lr=1e38, amsgrad=True)),
    (lrfast.AdamW, dict(lr=10.0, weight_decay=1e38)),
    (lrfast.RAdam, dict(lr=1e38)),
    (lrfast.RAdam, dict(lr=10.0, weight_decay=1e38, decoupled_weight_decay=True)),
    (lrfast.Adamax, dict(lr=1e38)),
    (lrfast.Lion, dict(lr=10.0, weight_decay=1e38)),
    (lrfast.SGD, dict(lr=1e30, momentum=1e30, nesterov=True)),
]


@pytest.mark.parametrize(("cls", "settings"), PRODUCTS)
def test_a_product_that_float32_does_not_hold(cls, settings, isa):
    refused = pytest.raises(ValueError, match=r"lr: expected a rate .* float32")
    with refused:
        cls(ones(), **settings)
    cls(ones(np.float64), **settings).step(ones(np.float64))
    ordinary = {**settings, "lr": 1e-3, "weight_decay": 0.0}
    ordinary = taken(cls, {**ordinary, "momentum": 0.9} if "momentum" in settings else ordinary)
    for change in ("edit", "load", "schedule"):
        param, first = ones(), ones()
        known = {name: settings[name] for name in ("lr", "weight_decay", "momentum") if name in settings}
        if change == "schedule":
            optimizer = cls([first, param], **ordinary | {k: following(ordinary[k], v) for k, v in known.items()})
        else:
            optimizer = cls([first, param], **ordinary)
        optimizer.step([ones(), ones()])
        if change == "edit":
            optimizer.param_groups[0].update(known)
        elif change == "load":
            saved = optimizer.state_dict()
            saved["param_groups"][0].update(known)
            saved["state"][0]["step"] = saved["state"][1]["step"] = 1
            optimizer.load_state_dict(saved)
        before = snapshot(optimizer, first, param)[:3]
        with refused:
            optimizer.step([ones(), ones()])
        assert snapshot(optimizer, first, param)[:3] == before
    states = cls(ones(), **ordinary)._buffers.states[0]
    arguments = {argument_of(cls.spec, n): s.copy() for n, s in states.items()}
    for module in (lrfast.functional, lrfast.reference):
        with refused:
            getattr(module, cls.__name__.lower())(param, ones(), **arguments, step=2, **settings)


def test_a_rate_that_only_later_updates_hold(isa):
    """lr / (1 - beta1^t) is finite from t = 4 on; each tensor has its own t."""
    param, other = ones(), ones()
    optimizer = lrfast.Adam([param, other], lr=1e-3)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"], saved["updates"] = 1e38, 3
    for steps, holds in [((3, 3), True), ((3, 2), False), ((2, 3), False)]:
        for i, step in enumerate(steps):
            saved["state"][i]["step"] = step
        optimizer.load_state_dict(saved)
        param[...] = other[...] = 1
        if holds:
            optimizer.step([ones(), ones()])
            assert np.all(np.isfinite(param))
        else:
            with pytest.raises(ValueError, match="lr: expected"):
                optimizer.step([ones(), ones()])
            assert np.all(param == 1)
            optimizer.step([ones() if steps[0] == 3 else None, ones() if steps[1] == 3 else None])


def test_a_rate_or_decay_that_rounds_to_0_is_0(isa):
    for variant in VARIANTS.values():
        settings = taken(variant.cls, {"lr": 1e-60, "weight_decay": 1e-60})
        param = ones()
        optimizer = variant.make(param, **settings)
        optimizer.step(ones())
        if variant.cls is not lrfast.Rprop:
            assert np.all(param == 1), variant.name


# ---- the smallest and the largest gradients ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", [v for v in VARIANTS if "eps" in numbers_of(VARIANTS[v])])
def test_without_eps_nothing_becomes_nan(variant, dtype, isa):
    """0 / 0 is 0; a gradient whose square vanishes moves its element by no more than lr / sqrt(1 - decay)."""
    tiny = float(np.sqrt(np.finfo(dtype).smallest_normal))
    grad = np.array([0.0, 1.0, tiny, tiny / 8, 32 * tiny, np.finfo(dtype).smallest_normal], dtype)
    param = np.zeros(grad.size, dtype)
    settings = taken(VARIANTS[variant].cls, {"weight_decay": 0.0, "lr": 1e-2})
    optimizer = VARIANTS[variant].make(param, eps=0.0, **settings)
    centered = optimizer.param_groups[0].get("centered", False)
    for _ in range(3 if centered else 20):  # the variance of a constant gradient fades
        optimizer.step(grad)
        assert np.all(np.isfinite(param))
    assert param[0] == 0
    if not centered:
        assert np.all(np.abs(param) <= 20 * 1e-2 * 100)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cls", [lrfast.Adam, lrfast.AdamW, lrfast.RMSprop, lrfast.Adagrad])
def test_the_least_eps_bounds_what_small_gradients_do(cls, dtype, isa):
    """No gradient, however small, moves further than one as large as 1 does; by more than 1 % in the stated range."""
    least = ELEMENTS[np.dtype(dtype).name].least_eps
    smallest = float(np.sqrt(np.finfo(dtype).smallest_normal / (1 - 0.999)))
    sizes = smallest * 10.0 ** np.arange(-25 if dtype == F4 else -150, 10)
    grads = np.array([*sizes, 1.0], dtype)
    options = taken(cls, {"betas": (0.9, 0.999), "weight_decay": 0.0}) if cls in (lrfast.Adam, lrfast.AdamW) else {}
    param = np.zeros(grads.size, dtype)
    optimizer = cls(param, lr=1e-2, eps=least, **options)
    for _ in range(5):
        optimizer.step(grads)
    assert np.all(np.abs(param) <= abs(param[-1]) * (1 + 1e-5))
    if options:
        exact = 5 * 1e-2 * sizes / (sizes + least)
        stated = sizes >= smallest
        np.testing.assert_allclose(-param[:-1][stated], exact[stated], rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_whose_square_overflows_makes_no_nan(dtype, isa):
    """The moment is infinite and stays so; what it divides is 0, and RAdam's first updates do not divide."""
    root = float(np.sqrt(np.finfo(dtype).max))
    for size in (1.5 * root, 100 * root, root * root**0.5):
        for variant in VARIANTS.values():
            param = np.zeros(2, dtype)
            optimizer = variant.make(param)
            for _ in range(8):
                optimizer.step(np.array([size, 1.0], dtype))
                assert not np.any(np.isnan(param)), (variant.name, size)
    param = np.ones(1, dtype)
    lrfast.RAdam(param).step(np.full(1, 100 * root, dtype))
    assert param[0] == pytest.approx(1 - 1e-3 * 100 * root, rel=1e-5)


# ---- rules, one by one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_variance_that_rounds_below_0_is_0(momentum, dtype, isa):
    """The constant gradient 1 whose average was rounded up."""
    param, square, average = np.ones(5, dtype), np.ones(5, dtype), np.nextafter(np.ones(5, dtype), dtype(2))
    buffer = np.zeros(5, dtype) if momentum else None
    lrfast.functional.rmsprop(
        param, np.ones(5, dtype), square, average, buffer, step=9, alpha=1 - 2**-30, centered=True, momentum=momentum
    )
    assert param == pytest.approx(np.full(5, 1 - 1e-2 / 1e-8), rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", HEAVY)
def test_the_buffer_of_dead_gradients_becomes_0(variant, dtype, isa):
    optimizer = VARIANTS[variant].make(np.zeros(40, dtype))
    optimizer.step(np.zeros(40, dtype))
    optimizer.state[0]["momentum_buffer"][...] = np.finfo(dtype).smallest_normal
    optimizer.step(np.zeros(40, dtype))
    assert np.all(optimizer.state[0]["momentum_buffer"] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_first_update_forgets_the_buffer(dtype, isa):
    """Momentum starts with the gradient, also where a buffer was loaded with step 0."""
    for name in HEAVY:
        variant = VARIANTS[name]
        optimizer = variant.make(np.zeros(40, dtype))
        if rule_of(optimizer).family != "sgd":
            continue
        saved = optimizer.state_dict()
        saved["state"][0]["momentum_buffer"][...] = 5
        optimizer.load_state_dict(saved)
        grad = np.arange(40, dtype=dtype)
        optimizer.step(grad)
        sign = -1 if variant.settings.get("maximize") else 1
        assert np.all(optimizer.state[0]["momentum_buffer"] == sign * grad), name


def test_radam_near_1_has_the_bits_of_the_specification():
    for beta2 in (0.9999, 1 - 2**-20, 1 - 2**-40, 1 - 2**-53):
        for step in (5, 6, 7, 100, 10**6, 2**40):
            results = []
            for module in (lrfast.functional, lrfast.reference):
                param, m, v = np.ones(9), np.ones(9), np.ones(9)
                module.radam(param, np.ones(9), m, v, step=step, lr=0.1, betas=(0.9, beta2))
                results.append(param)
            assert same_bits(*results), (beta2, step)


def test_every_range_without_an_end_is_tried():
    """What the sweep above takes for too large is what the table lets be."""
    unbounded = {name for name, r in RANGES.items() if r.largest > 1e300}
    assert unbounded == {"FINITE", "AT_LEAST_0", "ABOVE_0", "ABOVE_1"}
    assert math.isfinite(ELEMENTS["float32"].largest)
    assert {"lr", "eps"} <= set(signature(lrfast.Adam).parameters)
