"""Promise 3 for settings, schedules and collections: a clear error, and not a byte is changed.

Every case runs on the compiled kernels and on the reference.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import lrfast
from lrfast import schedules

from arrays import f32, snapshot

pytestmark = [
    pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy"]),
    pytest.mark.usefixtures("forced_isa"),
]


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
    *[(lrfast.Adadelta, {"rho": value}) for value in (-0.1, 1.0, NAN)],
    *[(lrfast.Rprop, {"etas": value}) for value in [(0.0, 1.2), (1.0, 1.2), (0.5, 1.0), (0.5, math.inf), (NAN, 1.2)]],
    *[(lrfast.Rprop, {"step_sizes": value}) for value in [(-1.0, 1.0), (0.0, NAN), (0.5, 0.4)]],
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
    (lrfast.Rprop, {"etas": 0.5}, r"etas: expected a number in \(0, 1\) and a finite number > 1"),
    (lrfast.Rprop, {"step_sizes": 0.5}, "step_sizes: expected two finite numbers >= 0"),
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
    (lrfast.RAdam, {}, {"decoupled_weight_decay": True}),
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


NO_NUMBERS = [
    *(np.complex64(0.5 + 2j), 0.5j, np.array("0.5"), np.array(b"0.5"), np.str_("0.5"), np.void(b"0.5"), np.array(True)),
    *(bytearray(b"0.5"), memoryview(b"0.5"), {0.5: 1}, {0.5}, [0.5], np.array(0.5, dtype=object)),
]
PLACES = {
    "lr": lambda x: lrfast.SGD([f32()], lr=x),
    "edit": lambda x: edited(x),
    "schedule": lambda x: lrfast.SGD([f32()], lr=lambda t: x),
    "betas": lambda x: lrfast.Adam([f32()], betas=(x, 0.5)),
    "grad_scale": lambda x: lrfast.SGD([f32()]).step([f32()], grad_scale=x),
    "clip_norm": lambda x: lrfast.SGD([f32()], clip_norm=x),
    "ema": lambda x: lrfast.SGD([f32()], ema=x),
    "function": lambda x: lrfast.functional.sgd(f32(), f32(), step=1, lr=x),
    "cosine": lambda x: schedules.cosine(x, 10),
    "warm-up of averages": lambda x: schedules.ema_warmup(x),
    "loss": lambda x: with_loss(x),
    "loss of a trial": lambda x: lrfast.find_lr(lrfast.SGD([f32()]), lambda: (x, [f32()])),
}


def edited(value):
    optimizer = lrfast.SGD([f32()])
    optimizer.param_groups[0]["lr"] = value
    optimizer.step([f32()])


def with_loss(value):
    optimizer = lrfast.SGD([f32()])
    monitor = lrfast.Monitor(optimizer)
    optimizer.step([f32()])
    monitor.update(value)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=[f"{i}-{type(x).__name__}" for i, x in enumerate(NO_NUMBERS)])
@pytest.mark.parametrize("place", PLACES)
def test_what_only_float_takes_for_a_number(place, value):
    """It reads text and drops the imaginary part."""
    with pytest.raises((TypeError, ValueError), match="expected"):
        PLACES[place](value)


@pytest.mark.parametrize("value", [{0.5, 0.25}, {0.5: 1, 0.25: 2}])
def test_pairs_have_an_order(value):
    with pytest.raises(ValueError, match=r"betas: expected two numbers"):
        lrfast.Adam([f32()], betas=value)


def test_losses_that_floats_cannot_hold_are_infinite():
    with_loss(10**400)
    with_loss(-(10**400))
    w = np.ones(2)
    assert "not finite" in lrfast.find_lr(lrfast.SGD([w]), lambda: (10**400, [w.copy()])).reason


class Changing:
    """A number that is another one later, as a tensor is."""

    value = 0.5

    def __float__(self):
        return self.value


def test_a_number_is_read_at_each_call(isa):
    number = Changing()
    param = np.zeros(2)
    for number.value in (0.5, 0.25):
        lrfast.functional.sgd(param, np.ones(2), step=1, lr=number)
    assert np.all(param == -0.75)


def test_defaults_cannot_be_changed():
    optimizer = lrfast.SGD([f32()])
    with pytest.raises(TypeError):
        optimizer.defaults["lr"] = 1.0
    assert dict(optimizer.defaults) == dict(lrfast.SGD([f32()]).defaults)


def test_a_list_of_the_caller_is_not_kept():
    given = [schedules.constant(0.5), 0.999]
    optimizer = lrfast.Adam([f32()], betas=given)
    given[0] = schedules.constant(0.25)
    optimizer.step([f32()])
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
