"""Numbers that a tensor carries from step to step: advanced with its step or not at all, and part of its state."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest

import lrfast
from lrfast._engine import backend, numpy_plan

from arrays import make_grads, make_params, same_bits
from variants import VARIANTS, rule_of

CARRYING = [name for name, variant in VARIANTS.items() if rule_of(variant.make(np.zeros(1))).carried]
PLANS = [pytest.param(backend.Plan, id="compiled"), pytest.param(numpy_plan.Plan, id="numpy")]


@pytest.fixture(params=PLANS)
def plan_class(request, monkeypatch):
    """Optimizers are bound to this plan."""
    monkeypatch.setattr(backend, "Plan", request.param)


def made(variant, **more):
    return VARIANTS[variant].make([make_params(50, np.float32), make_params(7, np.float64)], **more)


def grads(t):
    finite = [
        np.nan_to_num(make_grads(n, dtype, t), posinf=1.0, neginf=-1.0)
        for n, dtype in ((50, np.float32), (7, np.float64))
    ]
    return [np.clip(g, -1, 1) for g in finite]


def carried(optimizer):
    return [{k: v for k, v in state.items() if type(v) is float} for state in optimizer.state]


def test_there_are_such_rules():
    assert {VARIANTS[name].cls for name in CARRYING} >= {lrfast.NAdam, lrfast.ASGD}


@pytest.mark.parametrize("variant", CARRYING)
def test_both_plans_carry_the_same(variant, monkeypatch):
    found = []
    for plan in (backend.Plan, numpy_plan.Plan):
        monkeypatch.setattr(backend, "Plan", plan)
        optimizer = made(variant)
        found.append([carried(optimizer)])
        for t in range(5):
            optimizer.step(grads(t))
            found[-1].append(carried(optimizer))
    assert found[0] == found[1]
    assert [numbers[0] == numbers[1] for numbers in found[0]] == [True] * 6
    assert found[0][1] != found[0][5]


@pytest.mark.parametrize("variant", CARRYING)
@pytest.mark.usefixtures("plan_class")
def test_they_advance_with_the_step_of_their_tensor(variant):
    optimizer = made(variant, nonfinite="skip")
    optimizer.step(grads(0))
    before = carried(optimizer)
    bad = grads(1)
    bad[1][0] = np.nan
    optimizer.step(bad)
    assert carried(optimizer) == before
    with pytest.raises(TypeError):
        optimizer.step([grads(1)[0], "x"])
    assert carried(optimizer) == before
    for t in range(1, 5):  # eta and mu may stay for a while, but not both to the last bit for long
        optimizer.step([grads(t)[0], None])
    assert carried(optimizer)[1] == before[1]
    assert carried(optimizer)[0] != before[0]
    assert [state["step"] for state in optimizer.state] == [5, 1]


@pytest.mark.parametrize("variant", CARRYING)
@pytest.mark.parametrize("move", ["state_dict", "file", "json", "pickle", "deepcopy", "torch"])
@pytest.mark.usefixtures("plan_class")
def test_they_move_with_the_state(variant, move, tmp_path):
    optimizer = made(variant)
    for t in range(4):
        optimizer.step(grads(t))
    saved = optimizer.state_dict()
    if move == "json":
        numbers = json.loads(
            json.dumps([{k: v for k, v in s.items() if not isinstance(v, np.ndarray)} for s in saved["state"].values()])
        )
        saved["state"] = {i: {**saved["state"][i], **numbers[i]} for i in range(2)}
    if move == "torch":  # has arrays without dimensions
        saved["state"] = {i: {k: np.array(v) for k, v in s.items()} for i, s in saved["state"].items()}
    if move in ("pickle", "deepcopy"):
        other = pickle.loads(pickle.dumps(optimizer)) if move == "pickle" else copy.deepcopy(optimizer)
    else:
        other = made(variant)
        for mine, its in zip(other.param_groups[0]["params"], optimizer.param_groups[0]["params"], strict=True):
            mine[...] = its
        if move == "file":
            optimizer.save(tmp_path / "state.npz")
            other.load(tmp_path / "state.npz")
        else:
            other.load_state_dict(saved)
    assert carried(other) == carried(optimizer)
    for o in (optimizer, other):
        o.step(grads(9))
    for mine, its in zip(other.param_groups[0]["params"], optimizer.param_groups[0]["params"], strict=True):
        assert same_bits(mine, its)
    assert carried(other) == carried(optimizer)


@pytest.mark.parametrize("variant", CARRYING)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0, "x", True, [1.0, 2.0], np.ones(2), "missing"])
def test_what_is_none_is_not_loaded(variant, wrong):
    optimizer = made(variant)
    optimizer.step(grads(0))
    for name in carried(optimizer)[0]:
        saved = optimizer.state_dict()
        if isinstance(wrong, str) and wrong == "missing":
            del saved["state"][1][name]
        else:
            saved["state"][1][name] = wrong
        before = pickle.dumps(optimizer.state_dict())
        with pytest.raises(ValueError, match=name):
            optimizer.load_state_dict(saved)
        assert pickle.dumps(optimizer.state_dict()) == before


@pytest.mark.parametrize("variant", CARRYING)
def test_a_group_that_joins_begins_anew(variant):
    optimizer = made(variant)
    fresh = carried(optimizer)
    optimizer.step(grads(0))
    kept = carried(optimizer)
    optimizer.add_param_group({"params": [np.ones(3)]})
    assert carried(optimizer) == [*kept, fresh[0]]
    optimizer.step([*grads(1), np.ones(3)])
    assert carried(optimizer)[2] == kept[0]


@pytest.mark.parametrize("variant", CARRYING)
@pytest.mark.parametrize("isa", lrfast.available_isas())
def test_functional_advances_them_in_place(variant, isa):
    optimizer = made(variant)
    rule, (param, _) = rule_of(optimizer), optimizer.param_groups[0]["params"]
    own, g = param.copy(), [grads(t)[0] for t in range(3)]
    arrays = {name: np.zeros_like(own) for name in rule.state_names}
    numbers = {name: np.zeros((1,) * k) for k, name in enumerate(rule.carried)}  # what they begin with means nothing
    update = getattr(lrfast.functional, VARIANTS[variant].cls.__name__.lower())
    with lrfast.use_isa(isa):
        for t in range(3):
            optimizer.step([g[t], None])
            update(own, g[t], **arrays, **numbers, step=t + 1, **VARIANTS[variant].settings)
            assert same_bits(own, param)
            assert {name: float(x[()] if x.ndim == 0 else x[0]) for name, x in numbers.items()} == carried(optimizer)[0]
        locked = np.zeros(1)
        locked.flags.writeable = False
        for wrong in (1.0, None, np.zeros(2), np.zeros(1, np.float32), locked, np.array([np.nan]), np.array([-1.0])):
            before = own.copy()
            for name in numbers:
                with pytest.raises((TypeError, ValueError), match=name):
                    update(own, g[0], **arrays, **{**numbers, name: wrong}, step=4)
            assert same_bits(own, before)


def test_what_asgd_carries():
    """eta and mu of the update to come: an edited rate is felt one update later."""
    optimizer = lrfast.ASGD([np.ones(2)], lr=0.5, lambd=0.0, t0=1.0)
    assert carried(optimizer) == [{"eta": 0.5, "mu": 1.0}]
    optimizer.step([np.ones(2)])
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.step([np.ones(2)])
    assert np.all(optimizer.param_groups[0]["params"][0] == 0.0)
    assert carried(optimizer) == [{"eta": 0.25, "mu": 1.0}]
    optimizer.step([np.ones(2)])
    assert np.all(optimizer.param_groups[0]["params"][0] == -0.25)
    assert carried(optimizer) == [{"eta": 0.25, "mu": 0.5}]
    optimizer.step([np.ones(2)])
    assert np.all(optimizer.state[0]["ax"] == -0.375)


@pytest.mark.usefixtures("plan_class")
def test_what_float32_does_not_hold_is_refused():
    optimizer = lrfast.ASGD([np.ones(2, np.float32), np.ones(2)])
    optimizer.step([np.ones(2, np.float32), np.ones(2)])
    saved = optimizer.state_dict()
    saved["state"][0]["eta"] = saved["state"][1]["eta"] = 1e39
    optimizer.load_state_dict(saved)
    with pytest.raises(ValueError, match="finite in float32, got eta"):
        optimizer.step([np.zeros(2, np.float32), np.zeros(2)])
    optimizer.step([None, np.zeros(2)])
    assert [state["step"] for state in optimizer.state] == [1, 2]


@pytest.mark.parametrize(("cls", "name"), [(lrfast.NAdam, "mu_product"), (lrfast.ASGD, "mu")])
def test_what_cannot_be_is_refused(cls, name):
    optimizer = cls([np.ones(3)])
    optimizer.step([np.ones(3)])
    saved = optimizer.state_dict()
    for value in (1.0, 0.0):
        saved["state"][0][name] = value
        cls([np.ones(3)]).load_state_dict(saved)
    for value in (math.nextafter(1, 2), 5.0, -0.1, math.nan):
        saved["state"][0][name] = value
        with pytest.raises(ValueError, match=rf"{name}.*expected a number in \[0, 1\]"):
            optimizer.load_state_dict(saved)


def test_states_of_frozen_tensors():
    """The average of a parameter that has not moved is the parameter; a step size is lr until the first update."""
    averaged = lrfast.ASGD([np.full(2, 3.0), np.full(2, 5.0)])
    averaged.step([np.ones(2), None])
    assert averaged.state[1]["ax"].tolist() == [5.0, 5.0]
    assert not np.shares_memory(averaged.state[1]["ax"], averaged.param_groups[0]["params"][1])
    signs = lrfast.Rprop([np.ones(2), np.ones(2)], lr=0.25)
    signs.step([np.ones(2), None])
    assert signs.state[1]["step_size"].tolist() == [0.25, 0.25]
