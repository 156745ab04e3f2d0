"""Names of parameters: kept, shown in errors, saved, compared; a state never moves to a parameter of another name."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lrfast

from variants import VARIANTS

pytestmark = [
    pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy"]),
    pytest.mark.usefixtures("forced_isa"),
]

NAMES = ["encoder.weight", "encoder.bias", "head"]


def arrays(names, dtype=np.float32):
    """Each name has values, and gradients, of its own; all have one shape, so that only names tell them apart."""
    return {name: np.full(4, 1.0 + NAMES.index(name), dtype) for name in names}


def gradient(name, dtype=np.float32):
    return np.full(4, 0.1 * (1 + NAMES.index(name)), dtype)


def as_mapping(names, dtype):
    return arrays(names, dtype)


def as_pairs(names, dtype):
    return list(arrays(names, dtype).items())


def as_groups(names, dtype):
    named = arrays(names, dtype)
    return [{"params": {name: named[name]}} for name in names]


def as_pairs_in_a_group(names, dtype):
    return [{"params": as_pairs(names, dtype)}]


def as_torch_has_it(names, dtype):
    return [{"params": list(arrays(names, dtype).values()), "param_names": list(names)}]


FORMS = [as_mapping, as_pairs, as_groups, as_pairs_in_a_group, as_torch_has_it]


def names_of(optimizer):
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def step(optimizer, dtype):
    grads = {name: gradient(name, dtype) for name in names_of(optimizer)}
    optimizer.step(grads if not optimizer._form.takes_list else list(grads.values()))


def params_by_name(optimizer):
    flat = [p for group in optimizer.param_groups for p in group["params"]]
    return dict(zip(names_of(optimizer), flat, strict=True))


@pytest.mark.matrix(4)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_follows_its_name(form, name, dtype, isa):
    optimizer = VARIANTS[name].make(form(NAMES, dtype), ema=0.5)
    other = VARIANTS[name].make(form(NAMES[::-1], dtype), ema=0.5)
    for _ in range(3):
        step(optimizer, dtype)
    for key, p in params_by_name(other).items():
        p[...] = params_by_name(optimizer)[key]
    saved = optimizer.state_dict()
    assert [n for group in saved["param_groups"] for n in group["param_names"]] == NAMES
    assert [len(g["param_names"]) for g in saved["param_groups"]] == [len(g["params"]) for g in saved["param_groups"]]
    other.load_state_dict(saved)
    averages = dict(zip(names_of(optimizer), optimizer.ema, strict=True))
    for key, average in zip(names_of(other), other.ema, strict=True):
        assert np.array_equal(average, averages[key])
    for o in (optimizer, other):
        step(o, dtype)
    for key, p in params_by_name(other).items():
        assert np.array_equal(p, params_by_name(optimizer)[key]), key


@pytest.mark.parametrize("form", FORMS)
def test_names_survive_and_stand_in_errors(form, isa):
    optimizer = lrfast.Adam(form(NAMES, np.float32))
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    for o in (optimizer, *copies):
        assert names_of(o) == NAMES
        assert [n for group in o.state_dict()["param_groups"] for n in group["param_names"]] == NAMES
        grads = [np.zeros(4, np.float32), np.zeros(3, np.float32), np.zeros(4, np.float32)]
        named = dict(zip(NAMES, grads, strict=True))
        with pytest.raises(ValueError, match=r"grads\['encoder.bias'\]: expected shape.*params\['encoder.bias'\]"):
            o.step(named if form is as_mapping else grads)
    assert "param_names" not in repr(optimizer)


@pytest.mark.parametrize("form", FORMS)
def test_other_names_are_refused_and_listed(form, isa):
    optimizer = lrfast.Adam(form(NAMES, np.float32))
    step(optimizer, np.float32)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        group["param_names"] = ["decoder" if name == "head" else name for name in group["param_names"]]
    before = pickle.dumps(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"param_names: .*missing: 'head'; unknown: 'decoder'"):
        optimizer.load_state_dict(saved)
    assert pickle.dumps(optimizer.state_dict()) == before


def test_names_that_are_none(isa):
    p = [np.ones(2), np.ones(2)]
    for params, words in [
        ([("a", p[0]), ("a", p[1])], "params: param_names: expected each name once, got 'a' twice"),
        ([("a", p[0]), p[1]], r"params\[1\]: expected a pair \(name, array\)"),
        ([{"params": p, "param_names": ["a"]}], "param_names: expected a sequence of 2 names"),
        ([{"params": p, "param_names": "ab"}], "param_names: expected a sequence of 2 names"),
        ([{"params": p, "param_names": [["a"], ["b"]]}], "expected names that are hashable"),
        ([{"params": {"a": p[0]}}, {"params": [p[1]]}], "group 1: params: expected names for the parameters of all"),
        ([{"params": [p[0]]}, {"params": {"a": p[1]}}], "group 1: params: expected names for the parameters of all"),
    ]:
        with pytest.raises(ValueError, match=words):
            lrfast.SGD(params)


def test_a_group_added_later(isa):
    """With names exactly if the others have them, as in PyTorch."""
    for named in (True, False):
        first, second = ([("a", np.ones(2))], {"b": np.ones(3)}) if named else ([np.ones(2)], [np.ones(3)])
        optimizer = lrfast.Adam([{"params": first}])
        with pytest.raises(ValueError, match="group 1: params: expected names for the parameters of all groups, or of"):
            optimizer.add_param_group({"params": [np.ones(3)] if named else {"b": np.ones(3)}})
        assert len(optimizer.param_groups) == 1
        optimizer.step([np.ones(2)])
        optimizer.add_param_group({"params": second})
        with pytest.raises(ValueError, match=r"grads\['b'\]: " if named else r"grads\[1\]: "):
            optimizer.step([np.ones(2), np.ones(2)])
        optimizer.step([np.ones(2), np.ones(3)])
        if named:
            groups = optimizer.state_dict()["param_groups"]
            assert [group["param_names"] for group in groups] == [["a"], ["b"]]


def test_groups_in_another_order_keep_their_settings(isa):
    def make(*order):
        groups = {"a": {"params": {"a": np.ones(2)}, "lr": 0.1}, "b": {"params": {"b": np.ones(2)}, "lr": 0.2}}
        return lrfast.Adam([groups[name] for name in order])

    optimizer, other = make("a", "b"), make("b", "a")
    optimizer.step([np.full(2, 1.0), np.full(2, 2.0)])
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.2, 0.1]
    assert np.array_equal(other.state[0]["exp_avg"], optimizer.state[1]["exp_avg"])

    split = lrfast.Adam([{"params": {"b": np.ones(2), "a": np.ones(2)}}, {"params": {"c": np.ones(2)}}])
    moved = lrfast.Adam([{"params": {"b": np.ones(2)}}, {"params": {"a": np.ones(2), "c": np.ones(2)}}])
    with pytest.raises(
        ValueError, match=r"param_groups\[0\]: .*missing: none; unknown: 'a'; they are in another group"
    ):
        moved.load_state_dict(split.state_dict())


def test_groups_may_use_the_same_names(isa):
    """Of two layers, both with a weight: groups stay apart."""
    optimizer = lrfast.Adam([{"params": {"weight": np.ones(2)}}, {"params": {"weight": np.ones(3)}}])
    optimizer.step([np.ones(2), np.ones(3)])
    optimizer.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"grads\[1\]: expected shape"):
        optimizer.step([np.ones(2), np.ones(2)])


def test_groups_of_the_same_names_in_another_order(isa):
    """Each takes one of its own names: that in its own place, or the first that is left."""
    optimizer = lrfast.Adam([{"params": {n: np.ones(2)}, "lr": lr} for n, lr in [("b", 0.1), ("w", 0.2), ("w", 0.3)]])
    other = lrfast.Adam([{"params": {name: np.ones(2)}} for name in ("w", "w", "b")])
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.3, 0.2, 0.1]


def test_where_one_side_has_no_names_the_order_counts(isa):
    named, plain = lrfast.Adam({"a": np.ones(2), "b": np.ones(2)}), lrfast.Adam([np.ones(2), np.ones(2)])
    named.step({"a": np.full(2, 1.0), "b": np.full(2, 2.0)})
    plain.load_state_dict(named.state_dict())
    assert "param_names" not in plain.param_groups[0]
    assert np.array_equal(plain.state[1]["exp_avg"], named.state[1]["exp_avg"])
    plain.step([np.full(2, 3.0), np.full(2, 4.0)])
    named.load_state_dict(plain.state_dict())
    assert names_of(named) == ["a", "b"]
    assert np.array_equal(plain.state[0]["exp_avg"], named.state[0]["exp_avg"])


def test_names_cannot_be_edited(isa):
    optimizer = lrfast.Adam({"a": np.ones(2)})
    group = optimizer.param_groups[0]
    names = group["param_names"]
    for edit in (lambda: group.update(param_names=("b",)), lambda: group.pop("param_names")):
        edit()
        with pytest.raises(ValueError, match="param_names cannot be replaced"):
            optimizer.step({"a": np.ones(2)})
        group["param_names"] = names
    optimizer.step({"a": np.ones(2)})
    other = lrfast.Adam([np.ones(2)])
    other.param_groups[0]["param_names"] = ["a"]
    with pytest.raises(ValueError, match="param_names cannot be replaced"):
        other.step([np.ones(2)])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x"], "missing: 'a'; unknown: 'x'"),
        (None, "expected a sequence of 1 names"),
        ([[1]], "names that are hashable"),
    ],
)
def test_a_dict_of_which_one_group_has_names(names, words):
    def make():
        return lrfast.Adam([{"params": {"a": np.ones(2)}}, {"params": {"b": np.ones(2)}}])

    saved = make().state_dict()
    del saved["param_groups"][1]["param_names"]
    make().load_state_dict(saved)
    saved["param_groups"][0]["param_names"] = names
    with pytest.raises(ValueError, match=words):
        make().load_state_dict(saved)
