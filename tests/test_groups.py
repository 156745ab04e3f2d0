"""Groups by name: nanoGPT's and timm's rules, written once more here; patterns, layers, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import lrfast
from lrfast import schedules
from lrfast.groups import layers_of


def transformer(embeddings, block, after, depth=3):
    """Shapes by name, in the order of a model."""
    shapes = dict(embeddings)
    for i in range(depth):
        shapes |= {name.format(i): shape for name, shape in block.items()}
    return {name: np.ones(shape, np.float32) for name, shape in {**shapes, **after}.items()}


GPT = transformer(
    {"transformer.wte.weight": (50, 8), "transformer.wpe.weight": (10, 8)},
    {
        "transformer.h.{}.ln_1.weight": (8,),
        "transformer.h.{}.ln_1.bias": (8,),
        "transformer.h.{}.attn.c_attn.weight": (24, 8),
        "transformer.h.{}.attn.c_attn.bias": (24,),
    },
    {"transformer.ln_f.weight": (8,), "transformer.ln_f.bias": (8,)},
)
VIT = transformer(
    {
        "cls_token": (1, 1, 8),
        "pos_embed": (1, 5, 8),
        "patch_embed.proj.weight": (8, 3, 2, 2),
        "patch_embed.proj.bias": (8,),
    },
    {"blocks.{}.norm1.weight": (8,), "blocks.{}.attn.qkv.weight": (24, 8), "blocks.{}.attn.qkv.bias": (24,)},
    {"norm.weight": (8,), "norm.bias": (8,), "head.weight": (4, 8), "head.bias": (4,)},
)


def content(groups):
    """The settings of each parameter."""
    return {
        name: {key: value for key, value in group.items() if key != "params"}
        for group in groups
        for name, _ in group["params"]
    }


@pytest.mark.parametrize("named", [GPT, VIT])
def test_nanogpt(named):
    """Its configure_optimizers: matrices decay, vectors do not."""
    groups = lrfast.param_groups(named, weight_decay=0.1)
    assert len(groups) == 2
    decay = [name for name, p in named.items() if p.ndim >= 2]
    others = [name for name, p in named.items() if p.ndim < 2]
    assert [[name for name, _ in group["params"]] for group in groups] == [decay, others]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p is named[name] for group in groups for name, p in group["params"])


def test_timm():
    """Its param_groups_weight_decay: no decay for what is listed, for vectors, and for biases of any shape."""
    named = {**VIT, "rel.bias": np.ones((3, 3), np.float32)}
    listed = ["cls_token", "pos_embed"]
    groups = lrfast.param_groups(named, weight_decay=0.05, no_decay=["1d", *listed])
    for name, settings in content(groups).items():
        keeps = named[name].ndim <= 1 or name.endswith(".bias") or name in listed
        assert settings == {"weight_decay": 0.0 if keeps else 0.05}


@pytest.mark.parametrize("decay", [0.75, 0.5])
def test_timm_layer_decay(decay):
    """Its param_groups_layer_decay of its ViT: the final norm belongs to the last block, the head is a layer."""

    def layer(name):
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return 3 if name.startswith("norm") else 4 if name.startswith("head") else 0

    groups = lrfast.param_groups(VIT, 0.05, ["1d", "pos_embed", "cls_token"], layer_decay=decay, lr=1e-3)
    found = content(groups)
    assert set(found) == set(VIT)
    for name, settings in found.items():
        assert settings["lr"] == 1e-3 * decay ** (4 - layer(name))
        keeps = VIT[name].ndim == 1 or name in ("pos_embed", "cls_token")
        assert settings["weight_decay"] == (0.0 if keeps else 0.05)
    assert len(groups) == len({(settings["lr"], settings["weight_decay"]) for settings in found.values()})


def test_layers_of_other_models():
    resnet = [
        "conv1.weight",
        "bn1.weight",
        "layer1.0.conv1.weight",
        "layer1.1.conv1.weight",
        "layer2.0.bn1.bias",
        "fc.bias",
    ]
    assert list(layers_of(resnet).values()) == [0, 0, 1, 2, 3, 4]
    assert list(layers_of(list(GPT)).values())[:3] == [0, 0, 1]
    assert layers_of(list(GPT))["transformer.ln_f.bias"] == 4
    assert list(layers_of(["0.weight", "0.bias", "2.weight"]).values()) == [1, 1, 2]
    assert layers_of(["a", "b"]) == {"a": 0, "b": 1}


def test_factors_of_the_rate():
    rate = schedules.cosine(1e-3, 10)
    groups = lrfast.param_groups(GPT, lr_scale={"*.wte.*": 0.5, "transformer.w*": 3.0}, lr=rate)
    found = {name: settings["lr"](0) for name, settings in content(groups).items()}
    assert found["transformer.wte.weight"] == 0.5e-3
    assert found["transformer.wpe.weight"] == 3e-3
    assert found["transformer.ln_f.bias"] == 1e-3


def test_an_optimizer_takes_them():
    groups = lrfast.param_groups(GPT, lr_scale={"*.wte.*": 0.5}, lr=0.1)
    optimizer = lrfast.AdamW(groups)
    assert [name for group in optimizer.param_groups for name in group["param_names"]] == [
        name for group in groups for name, _ in group["params"]
    ]
    before = GPT["transformer.wte.weight"].copy()
    optimizer.step([np.ones_like(p) for group in groups for _, p in group["params"]])
    assert not np.array_equal(before, GPT["transformer.wte.weight"])


def test_what_went_where_is_printed():
    text = str(lrfast.param_groups(VIT))
    assert text.splitlines()[0] == "group 0: 7 tensors, 752 elements, weight_decay=0.1"
    assert "    blocks.0.norm1.weight (8,)" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"no_decay": "*.biass"}, r"no_decay: expected patterns .*'\*.biass'"),
        ({"lr_scale": {"heads.*": 2.0}, "lr": 1e-3}, r"lr_scale: expected patterns .*'heads.\*'"),
        ({"lr_scale": {"head.*": 2.0}}, "lr: expected the learning rate"),
        ({"layer_decay": 0.5}, "lr: expected the learning rate"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        lrfast.param_groups(VIT, **arguments)


def test_nothing_to_learn():
    with pytest.raises(ValueError, match="at least one parameter"):
        lrfast.param_groups({})
