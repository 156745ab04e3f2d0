"""state_dicts of PyTorch of every version since 1.13, and older ones, load as they do there; others are told apart.

Made from the layouts of torch_layouts.py, without PyTorch; tests/torch/ compares those with PyTorch itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lrfast

from torch_layouts import FILLED_IN, GROUPS, NO_STATE_OF_SGD_FROM, VERSIONS, group, steps
from variants import VARIANTS, rule_of

RUNTIME = {"foreach", "fused", "capturable", "differentiable"}
NEUTRAL = (False, 0, "sum", "zero")  # what a setting says that PyTorch does not have
CHANGES = [(1, 13), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4), (2, 7)]  # versions in which a layout changed
CLASSES = {"SGD": "momentum"} | {name: name.lower() for name in GROUPS if name != "SGD"}


def trained(variant, dtype=np.float32, count=5):
    params = [np.linspace(-1, 1, 6, dtype=dtype), np.ones(3, dtype)]
    optimizer = variant.make(params)
    for _ in range(count):
        optimizer.step([np.full_like(p, 0.1) for p in params])
    return optimizer, params


def as_torch_wrote(optimizer, version, step=None) -> dict[str, Any]:
    """Its state_dict as the class of the same name in a version of PyTorch would have written it."""
    cls, saved = type(optimizer).__name__, optimizer.state_dict()
    own = saved["param_groups"][0]
    known = group(cls, version)
    groups = [{**known, **{key: own[key] for key in known if key in own}, "params": own["params"]}]
    count = 5 if step is None else step
    states = {
        i: ({} if cls == "SGD" else {"step": count}) | {name: x for name, x in state.items() if name != "step"}
        for i, state in saved["state"].items()
    }
    if cls == "SGD" and own["momentum"] == 0:
        states = {i: {"momentum_buffer": None} for i in states} if version < NO_STATE_OF_SGD_FROM else {}
    return {"state": states, "param_groups": groups}


def expressible(optimizer, version):
    """Whether the class of the same name in a version of PyTorch has what these settings say."""
    cls = type(optimizer).__name__
    if cls not in GROUPS or version not in VERSIONS:
        return False
    known = group(cls, version)
    return all(key in known or value in NEUTRAL for key, value in optimizer.param_groups[0].items() if key != "params")


@pytest.mark.parametrize("name", [name for name, v in VARIANTS.items() if expressible(v.make([np.ones(1)]), (2, 13))])
def test_every_version_loads_and_goes_on(name):
    variant = VARIANTS[name]
    for version in CHANGES:
        for count in steps(variant.cls.__name__, version, 5):
            optimizer, params = trained(variant)
            if not expressible(optimizer, version):
                continue
            other, other_params = trained(variant, count=2)
            for own, p in zip(other_params, params, strict=True):
                own[...] = p
            saved = as_torch_wrote(optimizer, version, count)
            other.load_state_dict(saved, **({"updates": 5} if variant.cls is lrfast.SGD else {}))
            assert other.updates == 5
            grads = [np.full_like(p, 0.2) for p in params]
            optimizer.step(grads)
            other.step(grads)
            assert all(np.array_equal(p, own) for p, own in zip(params, other_params, strict=True))


def filled_in():
    """(class, key, version), but not what would be a group of RAdam: without amsgrad, before there was fused."""
    for version in (VERSIONS[0], VERSIONS[-1]):
        for cls in GROUPS:
            for key in FILLED_IN[cls]:
                if key != "amsgrad" or "fused" in group(cls, version):
                    yield cls, key, version


@pytest.mark.parametrize(("cls", "key", "version"), list(filled_in()))
def test_a_key_that_is_missing_means_what_it_meant_before_it_came(cls, key, version):
    optimizer, _ = trained(VARIANTS[CLASSES[cls]])
    saved = as_torch_wrote(optimizer, version)
    saved["param_groups"][0].pop(key, None)
    optimizer.load_state_dict(saved)
    if key in optimizer.defaults:
        assert optimizer.param_groups[0][key] == 0
    assert key not in RUNTIME & set(optimizer.param_groups[0])


@pytest.mark.parametrize("cls", GROUPS)
def test_a_missing_flag_does_not_pass_for_a_set_one(cls):
    """A checkpoint from before amsgrad, centered, ... does not load where it is on, nor one without momentum."""
    flags = {"amsgrad": True, "centered": True, "decoupled_weight_decay": True, "momentum": 0.9}
    variant = VARIANTS[CLASSES[cls]]._replace(settings={})
    plain, _ = trained(variant)
    for flag in set(flags) & set(FILLED_IN[cls]) & set(plain.defaults):
        optimizer, _ = trained(variant._replace(settings={flag: flags[flag]}))
        saved = as_torch_wrote(plain, VERSIONS[-1])
        del saved["param_groups"][0][flag]
        with pytest.raises(ValueError, match=rf"{flag}: expected|no such state|is missing"):
            optimizer.load_state_dict(saved)


@pytest.mark.parametrize("cls", GROUPS)
def test_newer_keys_are_kept(cls):
    optimizer, _ = trained(VARIANTS[CLASSES[cls]])
    saved = as_torch_wrote(optimizer, VERSIONS[-1])
    saved["param_groups"][0] |= {"of_the_future": "x", "initial_lr": 0.5, "capturable": True, "foreach": True}
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["of_the_future"] == "x"
    assert optimizer.state_dict()["param_groups"][0]["initial_lr"] == 0.5
    optimizer.step([np.ones(6, np.float32), np.ones(3, np.float32)])


FIRST_OF_RULE = {rule_of(v.make([np.ones(1)])).name + v.cls.__name__: v for v in reversed(VARIANTS.values())}


@pytest.mark.parametrize("name", [variant.name for variant in FIRST_OF_RULE.values()])
def test_another_optimizer_is_told_apart(name):
    """Of all pairs of classes: ours, and as each version of PyTorch wrote it."""
    source, _ = trained(VARIANTS[name])
    written = [as_torch_wrote(source, version) for version in CHANGES if expressible(source, version)]
    for other in FIRST_OF_RULE.values():
        target, _ = trained(other, count=2)
        if type(target) is type(source):
            continue
        before = target.state_dict()
        for saved in [source.state_dict(), *written]:
            if {type(source), type(target)} == {lrfast.Adam, lrfast.AdamW} and not MARK & set(saved["param_groups"][0]):
                continue  # written before PyTorch could tell them apart
            with pytest.raises(ValueError, match=r"another optimizer|expected"):
                target.load_state_dict(saved, updates=5)
            check_same(target.state_dict(), before)


MARK = {"decoupled_weight_decay"}


def check_same(now, before):
    assert now["param_groups"] == before["param_groups"]
    for i, state in before["state"].items():
        assert all(np.array_equal(now["state"][i][name], array) for name, array in state.items())
