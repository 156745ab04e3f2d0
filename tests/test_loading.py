"""What load_state_dict does with counts, schedules, dtypes, edits, and dicts that were cut or contradict themselves."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

import lrfast
from lrfast import schedules
from lrfast._engine import backend
from lrfast._engine.table import NOT_NEGATIVE, NUMBERS_OF, RULES

from arrays import snapshot
from variants import VARIANTS, taken

pytestmark = [
    pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy"]),
    pytest.mark.usefixtures("forced_isa"),
]


def trained(variant, steps=45, dtypes=(np.float32, np.float64), **more):
    params = [np.linspace(-1, 1, 5).astype(dtype) for dtype in dtypes]
    optimizer = VARIANTS[variant].make(params, **more)
    for _ in range(steps):
        optimizer.step([np.full_like(p, 0.1) for p in params])
    return optimizer, params


def equal(a, b):
    return pickle.dumps(a) == pickle.dumps(b)


def scheduled(variant, share=0.9):
    """Every number of a variant as a schedule that moves a little from where it is."""
    optimizer, _ = trained(variant, 0)
    found = {}
    for key, value in optimizer.param_groups[0].items():
        if key in NUMBERS_OF and not isinstance(value, (bool, str)) and key not in ("step_sizes", "dampening"):
            parts = [schedules.linear(x, x * share, 100) for x in (value if isinstance(value, tuple) else (value,))]
            if key == "etas":
                parts[1] = schedules.linear(value[1], value[1] * 1.1, 100)
            moves = all(x for x in (value if isinstance(value, tuple) else (value,)))
            if moves:
                found[key] = tuple(parts) if isinstance(value, tuple) else parts[0]
    return found


# ---- schedules and counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_scheduled_settings_show_what_was_saved(variant, isa):
    """Until the next step; saving again gives the same, and without schedules training goes on with them."""
    follow = scheduled(variant)
    optimizer, params = trained(variant, **follow)
    saved = optimizer.state_dict()
    other, others = trained(variant, 0, **follow)
    other.load_state_dict(saved)
    assert equal(other.state_dict(), saved)
    plain, own = trained(variant, 0)
    plain.load_state_dict(saved)
    for key in follow:
        assert other.param_groups[0][key] == plain.param_groups[0][key] == optimizer.param_groups[0][key]
        assert other.param_groups[0][key] != VARIANTS[variant].make([np.ones(1)], **follow).param_groups[0][key]
    assert equal(plain.state_dict(), saved)
    for mine, p in zip(others, params, strict=True):
        mine[...] = p
    for o in (optimizer, other):
        o.step([np.full_like(p, 0.1) for p in params])
    assert equal(other.state_dict(), optimizer.state_dict())
    plain.step([np.full_like(p, 0.1) for p in own])
    assert plain.param_groups[0]["lr"] == saved["param_groups"][0]["lr"]


def without_counts(saved):
    """As PyTorch's SGD has it: no step, no updates."""
    saved = {key: value for key, value in saved.items() if key != "updates"}
    saved["state"] = {i: {k: v for k, v in s.items() if k != "step"} for i, s in saved["state"].items()}
    return saved


@pytest.mark.parametrize("variant", ["sgd", "momentum", "lion"])
def test_a_schedule_needs_a_count(variant, isa):
    lr = schedules.cosine(0.1, 100)
    optimizer, params = trained(variant, lr=lr)
    saved = without_counts(optimizer.state_dict())
    other, _ = trained(variant, 2, lr=lr)
    before = snapshot(other)
    for cut in (saved, {**saved, "state": {}}):
        with pytest.raises(ValueError, match=r"expected a count of updates.*load_state_dict\(state_dict, updates=45\)"):
            other.load_state_dict(cut)
        assert snapshot(other) == before
    other.load_state_dict(saved, updates=45)
    assert other.updates == 45
    assert other.state[0]["step"] == (0 if variant == "sgd" else 45)
    optimizer.step([np.full_like(p, 0.1) for p in params])
    other.step([np.full_like(p, 0.1) for p in params])
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == lr(45)
    plain, _ = trained(variant, 2)
    plain.load_state_dict(saved)
    assert plain.updates == (0 if variant == "sgd" else 1)
    other.load_state_dict({**saved, "updates": 45} if variant != "sgd" else saved, updates=45)


def test_a_schedule_of_averages_needs_a_count(isa):
    optimizer, _ = trained("momentum", ema=lambda t: 0.5)
    with pytest.raises(ValueError, match="expected a count of updates"):
        optimizer.load_state_dict(without_counts(optimizer.state_dict()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_empty_state_is_no_count(variant, isa):
    for key, schedule in scheduled(variant).items():
        optimizer, _ = trained(variant, 0, **{key: schedule})
        saved = optimizer.state_dict()
        with pytest.raises(ValueError, match="expected a count of updates"):
            optimizer.load_state_dict({"state": {}, "param_groups": saved["param_groups"]})
        optimizer.load_state_dict({"state": {}, "param_groups": saved["param_groups"]}, updates=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_updates_that_contradict_steps(variant, isa):
    optimizer, _ = trained(variant, 3)
    saved, before = optimizer.state_dict(), snapshot(optimizer)
    for updates in (0, 2):
        for load in (lambda: {**saved, "updates": updates}, lambda: saved):  # noqa: B023
            with pytest.raises(ValueError, match=f"expected updates >= 3, the largest step, got {updates}"):
                optimizer.load_state_dict(load(), **({} if load()["updates"] == updates else {"updates": updates}))
    for updates in (-1, 2**63, 1.5, "3", True, float("nan")):
        with pytest.raises(ValueError, match="updates: expected an integer >= 0"):
            optimizer.load_state_dict(saved, updates=updates)
    assert snapshot(optimizer) == before
    optimizer.load_state_dict(saved, updates=7)
    assert (optimizer.updates, optimizer.state[0]["step"]) == (7, 3)


def test_without_updates_the_largest_step_counts(isa):
    optimizer = lrfast.Adam([np.ones(2), np.ones(2), np.ones(2)])
    for t in range(5):
        optimizer.step([np.ones(2) if t < limit else None for limit in (2, 4, 1)])
    saved = optimizer.state_dict()
    del saved["updates"]
    optimizer.load_state_dict(saved)
    assert optimizer.updates == 4
    optimizer.load_state_dict({**saved, "updates": 9})
    assert optimizer.updates == 9
    assert [s["step"] for s in optimizer.state] == [2, 4, 1]
    with pytest.raises(ValueError, match="expected updates >= 4, the largest step, got 3"):
        optimizer.load_state_dict(saved, updates=3)


# ---- dicts that are not whole --------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_dict_from_which_something_was_cut(variant, isa):
    optimizer, _ = trained(variant, 3)
    saved, before = optimizer.state_dict(), snapshot(optimizer)
    cut = [{**saved, "state": {}}, {**saved, "state": {0: saved["state"][0]}}]
    for i in (0, 1):
        for name in optimizer.state[i]:
            if name != "step":
                short = {k: v for k, v in saved["state"][i].items() if k != name}
                cut += [{**saved, "state": {**saved["state"], i: x}} for x in (short, {**short, "step": 0})]
    for dict_ in cut:
        with pytest.raises(ValueError, match="missing"):
            optimizer.load_state_dict(dict_)
        assert snapshot(optimizer) == before


@pytest.mark.parametrize("variant", VARIANTS)
def test_negative_squares(variant, isa):
    optimizer, _ = trained(variant, 3)
    before = snapshot(optimizer)
    for name in set(optimizer.state[0]) & NOT_NEGATIVE:
        saved = optimizer.state_dict()
        saved["state"][1][name][2] = -1e-30
        with pytest.raises(ValueError, match=rf"state\[1\]\['{name}'\]: expected numbers >= 0, got -1e-30"):
            optimizer.load_state_dict(saved)
        assert snapshot(optimizer) == before
        saved["state"][1][name][2] = np.nan  # a run that was lost may be looked at
        optimizer.load_state_dict(saved)
        optimizer, _ = trained(variant, 3)


def test_of_each_state_it_is_known_whether_it_may_be_negative(isa):
    signed = {"momentum_buffer", "exp_avg", "grad_avg", "prev", "ax"}
    assert {name for rule in RULES.values() for name in rule.state_names} <= NOT_NEGATIVE | signed
    assert not NOT_NEGATIVE & signed


@pytest.mark.parametrize("variant", VARIANTS)
def test_through_json(variant, isa):
    """Strings for numbers as keys, lists for arrays and pairs."""
    optimizer, _ = trained(variant, 3, dtypes=(np.float64, np.float64))
    saved = optimizer.state_dict()
    text = json.dumps(saved, default=lambda array: array.tolist())
    other, _ = trained(variant, 1, dtypes=(np.float64, np.float64))
    other.load_state_dict(json.loads(text))
    assert equal(other.state_dict(), saved)
    single, _ = trained(variant, 1, dtypes=(np.float32, np.float32))
    single.load_state_dict(json.loads(text), dtype="cast")
    for broken in ({**saved["state"], "0": {}}, {**saved["state"], "7": {}}, {**saved["state"], None: {}}):
        with pytest.raises(ValueError, match="belongs to no parameter"):
            other.load_state_dict({**saved, "state": broken})


@pytest.mark.parametrize("params", [[0, 0], [0, [1]], [[], []]])
def test_numbers_of_parameters(params, isa):
    optimizer, _ = trained("adam", 3)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["params"] = params
    with pytest.raises(ValueError, match="expected one number for each parameter"):
        optimizer.load_state_dict(saved)


# ---- other dtypes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_cast(variant, isa):
    single, _ = trained(variant, 3, (np.float32, np.float32), ema=0.5)
    double, own = trained(variant, 0, (np.float64, np.float64), ema=0.5)
    if len(single.state[0]) > 1:
        with pytest.raises(
            TypeError, match=r"expected dtype float64, got float32; load_state_dict\(..., dtype='cast'\)"
        ):
            double.load_state_dict(single.state_dict())
    double.load_state_dict(single.state_dict(), dtype="cast")
    again, _ = trained(variant, 0, (np.float32, np.float32), ema=0.5)
    again.load_state_dict(double.state_dict(), dtype="cast")
    assert equal(again.state_dict(), single.state_dict()), "there and back"
    double.step([np.full_like(p, 0.1) for p in own])
    for name in [name for name, value in double.state[1].items() if isinstance(value, np.ndarray)]:
        saved = double.state_dict()
        saved["state"][1][name][0] = 1e39
        before = snapshot(again)
        with pytest.raises(
            ValueError, match=rf"state\[1\]\['{name}'\]: expected numbers that float32 can hold, got 1e\+39"
        ):
            again.load_state_dict(saved, dtype="cast")
        assert snapshot(again) == before
        saved["state"][1][name][0] = np.inf  # was infinite before
        again.load_state_dict(saved, dtype="cast")
    for value in ("float32", np.float32, True):
        with pytest.raises(ValueError, match="dtype: expected None or 'cast'"):
            double.load_state_dict(double.state_dict(), dtype=value)


class Tensor:
    """What NumPy makes no array of, with an error of its own; as one of PyTorch in bfloat16, or that requires grad."""

    def __init__(self, error):
        self.error = error

    def __array__(self, *arguments, **keywords):
        raise self.error


@pytest.mark.parametrize(
    "error", [TypeError("Got unsupported ScalarType BFloat16"), RuntimeError("that requires grad")]
)
def test_what_is_no_array_is_named(error, isa):
    optimizer, _ = trained("adam", 3)
    saved, before = optimizer.state_dict(), snapshot(optimizer)
    saved["state"][1]["exp_avg_sq"] = Tensor(error)
    with pytest.raises(
        TypeError, match=rf"state\[1\]\['exp_avg_sq'\]: expected an array of float64, got Tensor: {error}"
    ):
        optimizer.load_state_dict(saved)
    for value in ("abc", {}, [1, [2]], np.array([None] * 5), np.full(5, 1j)):
        for dtype in (None, "cast"):
            saved["state"][1]["exp_avg_sq"] = value
            with pytest.raises(TypeError, match=r"state\[1\]\['exp_avg_sq'\]: expected"):
                optimizer.load_state_dict(saved, dtype=dtype)
    assert snapshot(optimizer) == before


# ---- edits ---------------------------------------------------------------------------------------------------

BAD_EDITS = {"lr": [-1.0, float("nan"), "0.1", None, schedules.constant(0.1)], "eps": [-1.0], "maximize": [1]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_edited_settings_are_checked_before_they_are_saved(variant, isa, tmp_path):
    optimizer, params = trained(variant, 3)
    good = optimizer.state_dict()
    group = optimizer.param_groups[0]
    for key, values in taken(VARIANTS[variant].cls, BAD_EDITS).items():
        kept = group[key]
        for value in values:
            group[key] = value
            for save in (optimizer.state_dict, lambda: optimizer.save(tmp_path / "file")):
                with pytest.raises((TypeError, ValueError), match=f"group 0: {key}: expected"):
                    save()
        group[key] = kept
    assert equal(optimizer.state_dict(), good)
    group["lr"] = np.float32(0.25)
    saved = optimizer.state_dict()
    assert type(saved["param_groups"][0]["lr"]) is type(group["lr"]) is float
    json.dumps(saved["param_groups"])
    optimizer.step([np.full_like(p, 0.1) for p in params])
    scheduled, _ = trained(variant, 1, lr=schedules.constant(0.1))
    scheduled.param_groups[0]["lr"] = 0.2
    with pytest.raises(ValueError, match="lr follows a schedule and cannot be edited"):
        scheduled.state_dict()


def test_what_is_loaded_belongs_to_the_optimizer(isa):
    """A dict can be changed afterwards, and what it holds beside settings."""
    optimizer = lrfast.Adam([{"params": [np.ones(2)], "tags": [1]}])
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    saved["param_groups"][0]["tags"].append(2)
    saved["state"][0]["exp_avg"][...] = 5
    assert optimizer.param_groups[0]["tags"] == [1]
    assert not optimizer.state[0]["exp_avg"].any()


def test_a_setting_that_only_others_have_tells_them_apart(isa):
    """As a further key it would be kept."""
    classes = {type(variant.make([np.ones(2)])) for variant in VARIANTS.values()}
    settings = {cls: set(cls([np.ones(2)], lr=0.1).defaults) for cls in classes}
    for cls, own in settings.items():
        optimizer = cls([np.ones(2)], lr=0.1)
        for key in set.union(*settings.values()) - own:
            saved = optimizer.state_dict()
            saved["param_groups"][0][key] = 0.5
            with pytest.raises(ValueError, match="another optimizer"):
                optimizer.load_state_dict(saved)


def test_a_group_whose_plan_fails_leaves_edits_to_be_found(isa, monkeypatch):
    """add_param_group that is refused at its very end, then an edited step."""
    param = np.ones(2)
    optimizer = lrfast.SGD([param], lr=1.0, momentum=lambda t: 0.5 + t / 100)
    optimizer.step([np.ones(2)])
    twin = copy.deepcopy(optimizer)
    for place in ("Plan", "tell"):
        with monkeypatch.context() as patched:
            if place == "Plan":
                patched.setattr(backend, "Plan", failing)
            else:
                patched.setattr(type(optimizer._settings), "tell", failing)
            with pytest.raises(MemoryError):
                optimizer.add_param_group({"params": [np.ones(3)], "lr": lambda t: 0.25})
        assert len(optimizer.param_groups) == len(optimizer.schedules) == 1
    for o in (optimizer, twin):
        o.param_groups[0]["lr"] = 0.5
        o.step([np.ones(2)])
        o.param_groups[0]["weight_decay"] = 0.125
        o.step([np.ones(2)])
    assert equal(optimizer.state_dict(), twin.state_dict())
    assert np.array_equal(param, twin.param_groups[0]["params"][0])
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="group 0: lr: expected"):
        optimizer.step([np.ones(2)])


def failing(*arguments, **keywords):
    raise MemoryError


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_count_is_reached_that_could_not_be_loaded(variant, isa):
    optimizer, params = trained(variant, 3)
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        state["step"] = 2**63 - 2
    optimizer.load_state_dict(saved, updates=2**63 - 2)
    optimizer.step([np.full_like(p, 0.1) for p in params])
    saved = optimizer.state_dict()
    assert saved["updates"] == saved["state"][0]["step"] == 2**63 - 1
    optimizer.load_state_dict(saved)
    before = snapshot(optimizer, *params)
    with pytest.raises(ValueError, match=f"expected fewer than {2**63 - 1} completed updates"):
        optimizer.step([np.full_like(p, 0.1) for p in params])
    assert snapshot(optimizer, *params) == before
    with pytest.raises(ValueError, match="expected an integer >= 0"):
        optimizer.load_state_dict(saved, updates=2**63)
