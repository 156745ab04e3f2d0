"""Keys of a group that are no settings are kept and saved untouched; near misses of a setting's name are errors."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lrfast
from lrfast._engine.further_keys import OF_THE_OPTIMIZER, WAYS_TO_RUN
from lrfast._engine.options import StepOptions

from variants import VARIANTS

pytestmark = [
    pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy"]),
    pytest.mark.usefixtures("forced_isa"),
]

# What torch's schedulers, timm, transformers and Lightning write; names of others' settings among them.
KEPT = {
    **{"name": "backbone", "initial_lr": 0.1, "lr_scale": 0.5, "max_lr": 1.0, "min_lr": 0.0, "base_momentum": 0.8},
    **{"max_momentum": 0.95, "warmup": [1, 2], "tags": {"a": None}, "layer": 3, "of": np.float32, "swa_lr": 0.2},
    **{"foreach": None, "fused": True, "capturable": False, "differentiable": None},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_kept_and_saved_untouched(name, isa):
    variant = VARIANTS[name]

    def make(**more):
        return variant.make([{"params": [np.ones(3)], **more}, {"params": [np.ones(2)]}])

    optimizer, plain, kept = make(**KEPT), make(), copy.deepcopy(KEPT)
    for o in (optimizer, plain):
        o.step([np.ones(3), np.ones(2)])
    optimizer.param_groups[1]["initial_lr"] = 0.25  # as a scheduler does
    optimizer.param_groups[1]["momentun_of_the_teacher"] = None
    for o in (optimizer, plain):
        o.step([np.ones(3), np.ones(2)])
    assert all(
        np.array_equal(a, b)
        for mine, other in zip(optimizer.param_groups, plain.param_groups, strict=True)
        for a, b in zip(mine["params"], other["params"], strict=True)
    )
    saved = optimizer.state_dict()
    assert kept.items() <= saved["param_groups"][0].items()
    assert saved["param_groups"][0]["warmup"] is not optimizer.param_groups[0]["warmup"]
    assert saved["param_groups"][1]["initial_lr"] == 0.25
    for duplicate in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert kept.items() <= duplicate.param_groups[0].items()
        duplicate.step([np.ones(3), np.ones(2)])
    plain.load_state_dict(saved)
    assert plain.param_groups[0]["name"] == "backbone"
    del optimizer.param_groups[0]["name"], optimizer.param_groups[1]["initial_lr"]
    optimizer.step([np.ones(3), np.ones(2)])
    assert "name" not in optimizer.state_dict()["param_groups"][0]


def test_a_key_that_is_a_setting_of_another_rule_changes_nothing(isa):
    """Rules share numbers: Adagrad's mean runs on RMSprop's."""
    params = [np.ones(4), np.ones(4)]
    foreign = {"alpha": 0.1, "momentum": 5.0, "nesterov": True, "centered": True, "initial": "first-gradient"}
    optimizers = [lrfast.Adagrad([{"params": [p], **more}]) for p, more in zip(params, ({}, foreign), strict=True)]
    for optimizer in optimizers:
        optimizer.step([np.ones(4)])
    assert np.array_equal(*params)
    optimizers[1].load_state_dict(optimizers[1].state_dict())


NEAR = {
    "SGD": [
        "momentun",
        "Momentum",
        "weight_deacy",
        "weightdecay",
        "nestrov",
        "dampning",
        "learning_rate",
        "LR",
        "maximise",
    ],
    "Adam": ["beta", "Betas", "esp", "betaz", "amsgrads", "epsilon", "beta1", "weight_decays"],
    "RMSprop": ["centred", "alhpa", "initals"],
    "Rprop": ["eta_s", "step_size", "stepsizes"],
}


@pytest.mark.parametrize(("cls", "key"), [(cls, key) for cls, keys in NEAR.items() for key in keys])
def test_a_near_miss_is_an_error(cls, key, isa):
    make = getattr(lrfast, cls)
    with pytest.raises(ValueError, match=rf"group 0: unknown option '{key}'; did you mean '\w+'\? {cls} has lr"):
        make([{"params": [np.ones(2)], key: 0.5}])
    optimizer = make([np.ones(2)])
    optimizer.param_groups[0][key] = 0.5
    for refused in (lambda: optimizer.step([np.ones(2)]), optimizer.state_dict):
        with pytest.raises(ValueError, match="did you mean"):
            refused()
    del optimizer.param_groups[0][key]
    with pytest.raises(ValueError, match="group 1: unknown option"):
        optimizer.add_param_group({"params": [np.ones(2)], key: 0.5})
    optimizer.step([np.ones(2)])
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        make([np.ones(2)], **{key: 0.5})


WAYS = {key: [None, False] for key in ("foreach", "capturable", "differentiable")} | {"fused": [None, False, True]}


@pytest.mark.parametrize("key", WAYS)
@pytest.mark.parametrize("cls", lrfast.optim.all_optimizers())
def test_ways_to_run_of_pytorch(cls, key, isa):
    for value in WAYS[key]:
        cls([np.ones(2)], **{key: value}).step([np.ones(2)])
        cls([{"params": [np.ones(2)], key: value}]).step([np.ones(2)])
    for value in {True, 0, "no"} - {True if key == "fused" else None}:
        with pytest.raises(ValueError, match=f"{key}: expected None or False.*got .*one fused pass on the CPU"):
            cls([np.ones(2)], **{key: value})
        with pytest.raises(ValueError, match=f"group 0: {key}: expected None or False"):
            cls([{"params": [np.ones(2)], key: value}])
        optimizer = cls([np.ones(2)])
        optimizer.param_groups[0][key] = value
        with pytest.raises(ValueError, match=f"group 0: {key}: expected"):
            optimizer.step([np.ones(2)])


def test_a_group_does_not_turn_one_optimizer_into_another(isa):
    for cls, value in ((lrfast.Adam, True), (lrfast.AdamW, False)):
        cls([{"params": [np.ones(2)], "decoupled_weight_decay": not value}])
        with pytest.raises(ValueError, match=f"decoupled_weight_decay: expected {not value}, as {cls.__name__} has it"):
            cls([{"params": [np.ones(2)], "decoupled_weight_decay": value}])


def test_what_is_said_for_all_groups_is_refused_in_one():
    assert set(StepOptions.__annotations__) - set(WAYS_TO_RUN) <= OF_THE_OPTIMIZER
    for key in OF_THE_OPTIMIZER:
        group = {"params": [np.ones(2)], key: None}
        with pytest.raises(ValueError, match=f"group 0: {key}: expected among the optimizer's own keywords"):
            lrfast.SGD([group])
