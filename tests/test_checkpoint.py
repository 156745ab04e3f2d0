"""state_dict, load_state_dict, pickle, deepcopy, add_param_group: state travels whole or not at all."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lrfast
from lrfast import schedules

from arrays import make_grads, make_params, same_bits
from variants import VARIANTS


def train(optimizer, params, first, stop):
    for t in range(first, stop):
        optimizer.step([make_grads(p.size, p.dtype, seed=t) for p in params])


def make(variant, n=50):
    params = [make_params(n, np.float32), make_params(n + 1, np.float64)]
    return VARIANTS[variant].make(params, lr=schedules.cosine(0.1, 20).warmup(3)), params


def contents(optimizer):
    return [v for state in optimizer.state for v in state.values() if isinstance(v, np.ndarray)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_resuming_equals_going_on(variant):
    optimizer, params = make(variant)
    train(optimizer, params, 0, 7)
    other, other_params = make(variant)
    for own, p in zip(other_params, params, strict=True):
        own[...] = p
    other.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    assert other.updates == 7
    for o, p in ((optimizer, params), (other, other_params)):
        train(o, p, 7, 12)
    for a, b in zip([*params, *contents(optimizer)], [*other_params, *contents(other)], strict=True):
        assert same_bits(a, b)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_are_whole_and_independent(duplicate):
    params, grads = [make_params(40, np.float32)], [make_grads(40, np.float32)]
    optimizer = lrfast.AdamW(params, grads=grads, lr=schedules.cosine(0.1, 20), amsgrad=True)
    optimizer.step()
    twin = duplicate(optimizer)
    twin_param = twin.param_groups[0]["params"][0]
    assert twin_param is not params[0]
    before = twin_param.tobytes()
    optimizer.step()
    assert twin_param.tobytes() == before
    twin.step()
    assert same_bits(twin_param, params[0])
    assert all(same_bits(a, b) for a, b in zip(contents(twin), contents(optimizer), strict=True))
    assert twin.updates == optimizer.updates == 2


def test_a_living_optimizer_takes_over_what_was_pickled():
    source = lrfast.Adam([np.ones(3), np.ones(2)], lr=0.25)
    source.step([np.ones(3), np.ones(2)])
    other = lrfast.Adam([np.zeros(3), np.zeros(2)])
    other.__setstate__(pickle.loads(pickle.dumps(source)).__getstate__())
    source.step([np.ones(3), np.ones(2)])
    other.step([np.ones(3), np.ones(2)])
    assert other.updates == 2
    assert other.param_groups[0]["lr"] == 0.25
    for ours, theirs in zip(other.param_groups[0]["params"], source.param_groups[0]["params"], strict=True):
        assert same_bits(ours, theirs)


def test_state_dict_is_a_copy_in_torch_layout():
    optimizer, params = make("adamw")
    train(optimizer, params, 0, 3)
    saved = optimizer.state_dict()
    assert list(saved) == ["state", "param_groups", "updates"]
    assert saved["param_groups"][0]["params"] == [0, 1]
    assert saved["param_groups"][0]["decoupled_weight_decay"] is True
    assert all(type(saved["param_groups"][0][name]) is float for name in ("lr", "eps", "weight_decay"))
    assert saved["state"][1]["step"] == 3
    saved["state"][0]["exp_avg"][...] = 7
    assert not np.any(optimizer.state[0]["exp_avg"] == 7)


def without(d, *keys):
    return {k: v for k, v in d.items() if k not in keys}


def altered(saved, where, change):
    """A copy of a state_dict with one thing changed."""
    saved = copy.deepcopy(saved)
    if where == "state":
        saved["state"][1].update(change)
    elif where == "group":
        saved["param_groups"][0].update(change)
    else:
        saved.update(change)
    return saved


WRONG = {
    "no groups": (lambda s: without(s, "param_groups"), ValueError, "param_groups"),
    "more groups": (
        lambda s: {**s, "param_groups": s["param_groups"] * 2},
        ValueError,
        "expected 1 param_groups, got 2",
    ),
    "another number of tensors": (lambda s: altered(s, "group", {"params": [0]}), ValueError, "expected 2 parameters"),
    "another shape": (
        lambda s: altered(s, "state", {"exp_avg": np.zeros(3)}),
        ValueError,
        r"state\[1\]\['exp_avg'\]: expected shape \(51,\), got \(3,\)",
    ),
    "another dtype": (
        lambda s: altered(s, "state", {"exp_avg": np.zeros(51, np.float32)}),
        TypeError,
        "expected dtype float64, got float32",
    ),
    "a foreign state": (lambda s: altered(s, "state", {"sum": np.zeros(51)}), ValueError, "no such state"),
    "a missing state": (
        lambda s: {**s, "state": {0: s["state"][0], 1: without(s["state"][1], "exp_avg")}},
        ValueError,
        "'exp_avg', which is missing",
    ),
    "a broken step": (lambda s: altered(s, "state", {"step": 1.5}), ValueError, "step"),
    "a negative step": (lambda s: altered(s, "state", {"step": -1}), ValueError, "step"),
    "a nan step": (lambda s: altered(s, "state", {"step": float("nan")}), ValueError, "step"),
    "broken updates": (lambda s: altered(s, "top", {"updates": -1}), ValueError, "updates"),
    "a bad number": (lambda s: altered(s, "group", {"eps": -1.0}), ValueError, "eps: expected"),
    "another structure": (lambda s: altered(s, "group", {"amsgrad": True}), ValueError, "amsgrad: expected False"),
    "the twin": (lambda s: altered(s, "group", {"decoupled_weight_decay": True}), ValueError, "another optimizer"),
    "a missing step": (
        lambda s: {**s, "state": {0: s["state"][0], 1: without(s["state"][1], "step")}},
        ValueError,
        "expected 'step'",
    ),
    "state that is no mapping": (lambda s: {**s, "state": [1, 2]}, ValueError, "expected a mapping"),
    "groups that are none": (lambda s: {**s, "param_groups": None}, ValueError, "param_groups"),
    "a group without params": (lambda s: {**s, "param_groups": [{}]}, ValueError, "sequence 'params'"),
    "a tensor without state": (lambda s: {**s, "state": {0: None, 1: s["state"][1]}}, ValueError, "expected a mapping"),
    "huge updates": (lambda s: altered(s, "top", {"updates": 2**64}), ValueError, "updates"),
    "a stray tensor": (lambda s: {**s, "state": {**s["state"], 9: {}}}, ValueError, r"state\[9\]"),
    "of SGD": (
        lambda s: lrfast.SGD([np.zeros(50, np.float32), np.zeros(51)], momentum=0.9).state_dict(),
        ValueError,
        "another optimizer",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_state_dict_that_does_not_fit(kind):
    optimizer, params = make("adam")
    train(optimizer, params, 0, 3)
    good = optimizer.state_dict()
    train(optimizer, params, 3, 5)
    change, error, words = WRONG[kind]
    before = pickle.dumps([params, optimizer.state_dict()])
    with pytest.raises(error, match=words):
        optimizer.load_state_dict(change(good))
    assert pickle.dumps([params, optimizer.state_dict()]) == before
    optimizer.load_state_dict(good)
    assert optimizer.updates == 3


def test_what_pytorch_writes_is_accepted():
    """Float steps, missing states, further keys, no updates."""
    param = np.zeros(4, np.float32)
    state = {"step": np.float32(5.0), "exp_avg": np.ones(4, np.float32), "exp_avg_sq": np.ones(4, np.float32)}
    group = {
        **{"lr": 0.5, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0, "amsgrad": False, "maximize": False},
        **{"foreach": None, "capturable": False, "differentiable": False, "fused": None, "params": [0, 1]},
    }
    optimizer = lrfast.Adam([param, np.zeros(2, np.float32)])
    optimizer.load_state_dict({"state": {0: state}, "param_groups": [group]})
    assert [s["step"] for s in optimizer.state] == [5, 0]
    assert type(optimizer.state[0]["step"]) is int
    assert optimizer.updates == 5
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    assert optimizer.param_groups[0]["weight_decay"] == 0.0

    sgd = lrfast.SGD([param], momentum=0.9)
    buffer = np.full(4, 2.0, np.float32)
    group = {"lr": 1.0, "momentum": 0.5, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
    sgd.load_state_dict({"state": {0: {"momentum_buffer": buffer}}, "param_groups": [{**group, "params": [0]}]})
    sgd.step([np.zeros(4, np.float32)])
    assert np.all(param == -1.0), "the loaded buffer counts: this is not the first update"


def test_adding_a_group():
    first, second = [make_params(9, np.float32)], [make_params(5, np.float64)]
    optimizer = lrfast.Adam(first, lr=0.1)
    optimizer.step([make_grads(9, np.float32)])
    moment = optimizer.state[0]["exp_avg"].copy()
    optimizer.add_param_group({"params": second, "lr": schedules.constant(0.2)})
    assert [s["step"] for s in optimizer.state] == [1, 0]
    assert same_bits(optimizer.state[0]["exp_avg"], moment)
    optimizer.step([make_grads(9, np.float32), make_grads(5, np.float64)])
    assert [s["step"] for s in optimizer.state] == [2, 1]
    assert optimizer.updates == 2
    for bad, error in [
        ({"params": first}, ValueError),
        ({"params": [np.zeros(2)], "lr": -1.0}, ValueError),
        ({"params": [[1.0]]}, TypeError),
        ({"params": [np.zeros(2)], "grads": [np.zeros(2)]}, ValueError),
    ]:
        with pytest.raises(error):
            optimizer.add_param_group(bad)
        assert len(optimizer.param_groups) == len(optimizer.schedules) == 2
    optimizer.step([make_grads(9, np.float32), make_grads(5, np.float64)])


def test_adding_a_group_that_is_refused_late():
    """Whatever fails, the optimizer goes on as it was."""
    params, grads = [np.ones(3)], [np.ones(3)]
    optimizer = lrfast.SGD(params, lr=1.0, momentum=0.5)
    optimizer.step(grads)
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr: expected"):
        optimizer.add_param_group({"params": [np.ones(2)], "lr": lambda t: 0.1})
    optimizer.param_groups[0]["lr"] = 1.0
    buffer = optimizer.state[0]["momentum_buffer"]
    optimizer.step(grads)
    assert np.all(buffer == 1.5)
    assert np.all(params[0] == 1 - 1 - 1.5)
    optimizer.add_param_group({"params": [np.ones(2)], "lr": lambda t: float(t)})
    assert optimizer.param_groups[1]["lr"] == 2.0
    optimizer.step([*grads, np.ones(2)])
    assert np.all(buffer == 1.75), "states stay where they are"


def test_adding_a_bound_group():
    params, grads = [np.ones(3)], [np.ones(3)]
    optimizer = lrfast.SGD(params, lr=1.0, grads=grads)
    more, more_grads = np.ones(2), np.ones(2)
    with pytest.raises(ValueError, match="expected those of the group, because all are bound"):
        optimizer.add_param_group({"params": [more]})
    optimizer.add_param_group({"params": [more], "grads": [more_grads]})
    optimizer.step()
    assert np.all(more == 0)
    optimizer.zero_grad()
    assert not np.any(more_grads)


def test_zero_grad_needs_bound_writable_gradients():
    with pytest.raises(ValueError, match="bound at construction"):
        lrfast.SGD(np.ones(2)).zero_grad()
    grads = [np.ones(2), np.ones(2)]
    grads[1].setflags(write=False)
    optimizer = lrfast.SGD([np.ones(2), np.ones(2)], grads=grads)
    with pytest.raises(ValueError, match=r"grads\[1\]: expected a writable"):
        optimizer.zero_grad()
    assert np.all(grads[0] == 1)
