"""Checkpoints of lrfast.torch: PyTorch's load here, of any version, and ours there; what is refused changes nothing."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch")


import torch_layouts  # noqa: E402
from test_torch_contract import ALL, NAMES, advance, bits, give_gradients, model, ours, pair, same, theirs  # noqa: E402


def through_a_file(saved):
    """With the defaults of torch.load, which take no code."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("name", NAMES)
def test_theirs_goes_on_here(name):
    a, b, _, its = pair(name)
    for t in range(3):
        give_gradients(b.parameters(), t)
        its.step()
    a.load_state_dict(b.state_dict())
    mine = ours(name, a.parameters(), lr=0.7)
    mine.load_state_dict(through_a_file(its.state_dict()))
    assert mine.param_groups[0]["lr"] == its.param_groups[0]["lr"]
    advance(a, b, mine, its, 3, 6)
    assert same(a.parameters(), b.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_ours_goes_on_there(name):
    a, b, mine, _ = pair(name)
    for t in range(3):
        give_gradients(a.parameters(), t)
        mine.step()
    b.load_state_dict(a.state_dict())
    its = theirs(name, b.parameters(), lr=0.7)
    its.load_state_dict(through_a_file(mine.state_dict()))
    advance(a, b, mine, its, 3, 6)
    assert same(a.parameters(), b.parameters())


@pytest.mark.parametrize("name", ALL)
def test_a_run_that_is_resumed_has_the_same_bits(name):
    """Also of numbers that PyTorch keeps in float32."""
    a, b = model(), model()
    mine = ours(name, a.parameters())
    for t in range(3):
        give_gradients(a.parameters(), t)
        mine.step()
    b.load_state_dict(a.state_dict())
    other = ours(name, b.parameters())
    other.load_state_dict(through_a_file(mine.state_dict()))
    advance(a, b, mine, other, 3, 6)
    assert same(a.parameters(), b.parameters(), 0)
    assert bits(mine) == bits(other)


@pytest.mark.parametrize("version", [(1, 13), (2, 0), (2, 3), (2, 13)])
@pytest.mark.parametrize("name", NAMES)
def test_old_checkpoints(name, version):
    """Groups with fewer flags, and steps that are integers."""
    a, b, mine, its = pair(name)
    advance(a, b, mine, its, 0, 3)
    saved = copy.deepcopy(its.state_dict())
    known = torch_layouts.group(name, version)
    saved["param_groups"] = [
        {key: x for key, x in group.items() if key in known or key == "params"} for group in saved["param_groups"]
    ]
    for form in (int, torch.tensor, lambda x: torch.tensor([x])):
        for state in saved["state"].values():
            if "step" in state:
                state["step"] = form(3)
        other = ours(name, a.parameters())
        other.load_state_dict(saved)
        assert other.state_dict()["param_groups"] == its.state_dict()["param_groups"]
        c = copy.deepcopy(b)
        its_too = theirs(name, c.parameters())
        its_too.load_state_dict(copy.deepcopy(its.state_dict()))  # with which it shares its states
        d = copy.deepcopy(a)
        mine_too = ours(name, d.parameters())
        mine_too.load_state_dict(saved)
        advance(d, c, mine_too, its_too, 3, 5)
        assert same(d.parameters(), c.parameters())


@pytest.mark.parametrize("name", ALL)
def test_what_is_loaded_is_not_shared(name):
    a, b = model(), model(1)
    mine, other = ours(name, a.parameters()), ours(name, b.parameters())
    give_gradients(a.parameters())
    mine.step()
    saved = mine.state_dict()
    other.load_state_dict(saved)
    before = bits(mine)
    give_gradients(b.parameters(), 1)
    other.step()
    other.step()
    assert bits(mine) == before


def test_another_dtype_is_converted():
    a, b = model(dtype=torch.float64), model()
    mine, other = ours("NAdam", a.parameters()), ours("NAdam", b.parameters())
    give_gradients(a.parameters())
    mine.step()
    other.load_state_dict(mine.state_dict())
    for x, y in zip(mine.state.values(), other.state.values(), strict=True):
        assert y["exp_avg"].dtype == torch.float32
        assert torch.equal(y["exp_avg"], x["exp_avg"].float())
        assert torch.equal(y["mu_product"], x["mu_product"])
    give_gradients(b.parameters())
    other.step()


def test_another_format_is_converted():
    a = torch.nn.Conv2d(3, 4, 3)
    b = copy.deepcopy(a).to(memory_format=torch.channels_last)
    mine, other = ours("Adam", a.parameters()), ours("Adam", b.parameters())
    give_gradients(a.parameters())
    mine.step()
    b.load_state_dict(a.state_dict())
    other.load_state_dict(mine.state_dict())
    assert other.state[b.weight]["exp_avg"].stride() == b.weight.stride()
    for t in range(2):
        give_gradients(a.parameters(), t)
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            q.grad = torch.empty_like(q).copy_(p.grad)
        mine.step()
        other.step()
    assert same(a.parameters(), b.parameters(), 0)


@pytest.mark.parametrize("way", ["shape", "missing", "optimizer", "setting", "mark", "step", "groups"])
def test_what_is_refused_changes_nothing(way):
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    mine.step()
    saved = copy.deepcopy(mine.state_dict())
    words = {
        "shape": r"state\[1\]\['exp_avg'\]: expected shape \(3,\) like its parameter, got \(4,\)",
        "missing": r"state\[1\]: expected 'exp_avg_sq' of Adam",
        "optimizer": r"another optimizer|'exp_avg' of Adam",
        "setting": r"lr: expected",
        "mark": r"expected decoupled_weight_decay=False of Adam",
        "step": r"state\[1\]\['step'\]: expected an integer",
        "groups": r"number of parameter groups",
    }[way]
    if way == "shape":
        saved["state"][1]["exp_avg"] = torch.ones(4)
    elif way == "missing":
        del saved["state"][1]["exp_avg_sq"]
    elif way == "optimizer":
        saved = theirs("RMSprop", model().parameters()).state_dict()
    elif way == "setting":
        saved["param_groups"][0]["lr"] = -1.0
    elif way == "mark":
        saved["param_groups"][0]["decoupled_weight_decay"] = True
    elif way == "step":
        saved["state"][1]["step"] = torch.tensor(1.5)
    else:
        saved["param_groups"].append(saved["param_groups"][0])
    before = bits(mine)
    with pytest.raises(ValueError, match=words):
        mine.load_state_dict(saved)
    assert bits(mine) == before
    give_gradients(a.parameters(), 1)
    mine.step()


def test_a_float32_step_goes_on_beyond_2_to_the_24():
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    mine.step()
    for state in mine.state.values():
        state["step"].fill_(2.0**24 - 1)
    for t in range(4):
        a[0].weight.data = a[0].weight.data.clone()  # so that all is bound anew
        give_gradients(a.parameters(), t)
        mine.step()
    assert mine.state[a[0].weight]["step"].item() == 2.0**24 + 4  # 2^24 + 3, rounded to even; theirs stays at 2^24


def test_a_loaded_scalar_is_used_as_it_is():
    """That of PyTorch in float32 goes on from there, not from what it would be in float64."""
    a, b, mine, its = pair("NAdam")
    advance(a, b, mine, its, 0, 3)
    saved = copy.deepcopy(its.state_dict())
    for state in saved["state"].values():
        state["mu_product"] = torch.tensor(0.125)
    for o in (mine, its):
        o.load_state_dict(saved)
        assert all(state["mu_product"].item() == 0.125 for state in o.state.values())
    advance(a, b, mine, its, 3, 5)
    assert same(a.parameters(), b.parameters())
