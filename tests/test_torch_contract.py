"""What PyTorch expects of a torch.optim.Optimizer, line by line: construction, hooks, closures, schedulers, AMP, memory
that moves, and what is refused instead."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook  # noqa: E402

import lrfast  # noqa: E402
import lrfast.torch  # noqa: E402
from lrfast import schedules  # noqa: E402
from lrfast.torch import reader  # noqa: E402

NAMES = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Rprop", "ASGD"]
ALL = [*NAMES, "Lion"]
SETTINGS = {"SGD": {"momentum": 0.9, "dampening": 0.5}, "RMSprop": {"momentum": 0.9, "centered": True}}


@pytest.fixture(autouse=True, params=["in C", "in Python"])
def way_of_reading(request, monkeypatch):
    """Both readers say the same of everything here."""
    if request.param == "in Python":
        monkeypatch.setattr(reader, "Reader", None)


def model(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).to(dtype)


def ours(name, params, **more):
    return getattr(lrfast.torch, name)(params, **{**SETTINGS.get(name, {}), **more})


def theirs(name, params, **more):
    return getattr(torch.optim, name)(params, **{**SETTINGS.get(name, {}), **more})


def give_gradients(params, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.dtype)


def bits(x):
    """Everything of a model or optimizer, to be compared."""
    buffer = io.BytesIO()
    torch.save(x.state_dict(), buffer)
    return buffer.getvalue()


def same(xs, ys, tolerance=1e-6):
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(xs, ys, strict=True))


def pair(name, **more):
    """Models that are equal, with ours and theirs."""
    a, b = model(), model()
    return a, b, ours(name, a.parameters(), **more), theirs(name, b.parameters(), **more)


def advance(a, b, mine, its, first, stop):
    for t in range(first, stop):
        give_gradients(a.parameters(), t)
        give_gradients(b.parameters(), t)
        mine.step()
        its.step()


# ---- the class -----------------------------------------------------------------------------------------------------


def test_importing_lrfast_does_not_import_torch():
    code = "import sys, lrfast; lrfast.Monitor, lrfast.find_lr; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", NAMES)
def test_constructors_are_theirs(name):
    def parameters(cls):
        found = inspect.signature(cls).parameters.values()
        return [(p.name, p.kind, p.default) for p in found if p.kind != inspect.Parameter.VAR_KEYWORD]

    assert parameters(getattr(lrfast.torch, name)) == parameters(getattr(torch.optim, name))


@pytest.mark.parametrize("name", NAMES)
def test_groups_and_states_have_their_keys(name):
    a, b, mine, its = pair(name)
    assert isinstance(mine, torch.optim.Optimizer)
    assert mine.defaults == its.defaults
    advance(a, b, mine, its, 0, 2)
    assert mine.state_dict()["param_groups"] == its.state_dict()["param_groups"]
    for state, other in zip(mine.state.values(), its.state.values(), strict=True):
        assert set(state) == set(other)
        assert all(isinstance(value, torch.Tensor) and value.shape == other[key].shape for key, value in state.items())
        assert state.get("step") == other.get("step")


def test_adamw_is_an_adam():
    assert issubclass(lrfast.torch.AdamW, lrfast.torch.Adam)
    with pytest.raises(TypeError, match="base class"):
        lrfast.torch.Optimizer([torch.ones(1)])


@pytest.mark.parametrize("flags", [{"foreach": False}, {"foreach": None, "fused": True}, {"capturable": False}])
def test_flags_that_are_true_here_are_accepted(flags):
    optimizer = ours("Adam", model().parameters(), **flags)
    assert flags.items() <= optimizer.param_groups[0].items()


@pytest.mark.parametrize("flag", ["foreach", "capturable", "differentiable"])
@pytest.mark.parametrize("name", ["Adam", "ASGD"])
def test_flags_that_are_not_are_refused(name, flag):
    with pytest.raises(ValueError, match=flag):
        ours(name, model().parameters(), **{flag: True})


@pytest.mark.parametrize("name", ALL)
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match="lr: expected"):
        ours(name, model().parameters(), lr=-1.0)
    optimizer = ours(name, model().parameters())
    with pytest.raises(ValueError, match="lr: expected"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": -1.0})
    assert len(optimizer.param_groups) == 1
    give_gradients(optimizer.param_groups[0]["params"])
    optimizer.param_groups[0]["lr"] = -1.0
    before = [p.clone() for p in optimizer.param_groups[0]["params"]]
    with pytest.raises(ValueError, match="lr: expected"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(before, optimizer.param_groups[0]["params"], strict=True))
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()


# ---- step, hooks, closures -----------------------------------------------------------------------------------------


def test_hooks_in_their_order():
    order = []
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    handles = [
        register_optimizer_step_pre_hook(lambda *_: order.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: order.append("global post")),
    ]
    mine.register_step_pre_hook(lambda *_: order.append("pre"))
    mine.register_step_post_hook(lambda *_: order.append("post"))
    mine.register_state_dict_pre_hook(lambda _: order.append("saving"))
    mine.register_state_dict_post_hook(lambda _, saved: {**saved, "mine": 1})
    mine.register_load_state_dict_pre_hook(lambda _, saved: order.append("loading"))
    mine.register_load_state_dict_post_hook(lambda o: order.append(("loaded", o.state[a[0].weight]["step"].item())))
    try:
        mine.step()
        saved = mine.state_dict()
        assert saved["mine"] == 1
        mine.load_state_dict(saved)
    finally:
        for handle in handles:
            handle.remove()
    assert order == ["global pre", "pre", "post", "global post", "saving", "loading", ("loaded", 1.0)]


def test_a_pre_hook_may_replace_the_closure():
    _, _, mine, _ = pair("SGD")
    mine.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: 5.0), kwargs))
    assert mine.step(lambda: 3.0) == 5.0


def test_a_load_pre_hook_may_replace_the_dict():
    a, b, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    mine.step()
    good, other = mine.state_dict(), ours("Adam", b.parameters())
    other.register_load_state_dict_pre_hook(lambda _, saved: good)
    other.load_state_dict({"state": {}, "param_groups": "nonsense"})
    assert same([s["exp_avg"] for s in other.state.values()], [s["exp_avg"] for s in mine.state.values()], 0)


def test_closure_with_gradients_enabled():
    a, _, mine, _ = pair("Adam")

    def closure():
        mine.zero_grad()
        loss = a(torch.ones(2, 4)).square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        before = mine.step(closure)
    assert mine.step(closure).item() < before.item()


def test_the_profiler_sees_it():
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    with torch.profiler.profile() as profile:
        mine.step()
    assert any(event.key == "Optimizer.step#Adam.step" for event in profile.key_averages())


@pytest.mark.parametrize("name", ALL)
def test_late_and_missing_gradients(name):
    a, b = model(), model()
    mine = ours(name, a.parameters())
    frozen = a[0].bias
    for t in range(4):
        give_gradients(a.parameters(), t)
        if t < 2:
            frozen.grad = None
        before = frozen.detach().clone()
        mine.step()
        assert torch.equal(before, frozen) == (t < 2)
        if name != "Adagrad":
            assert (frozen in mine.state) == (t >= 2)
    if name == "Lion":
        return
    its = theirs(name, b.parameters())
    for t in range(4):
        give_gradients(b.parameters(), t)
        if t < 2:
            b[0].bias.grad = None
        its.step()
    assert same(a.parameters(), b.parameters())
    steps = [(s.get("step"), o.get("step")) for s, o in zip(mine.state.values(), its.state.values(), strict=True)]
    assert all(x == y for x, y in steps)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none):
    a, b, mine, its = pair("SGD")
    for t in range(3):
        for m, o in ((a, mine), (b, its)):
            o.zero_grad(set_to_none=set_to_none)
            m(torch.full((2, 4), float(t))).square().sum().backward()
            o.step()
    assert same(a.parameters(), b.parameters())


@pytest.mark.parametrize("name", ALL)
def test_nothing_moves_with_gradients_and_lr_0(name):
    """distributed.checkpoint makes states by such a step: none is missing afterwards."""
    a = model()
    mine = ours(name, a.parameters(), lr=0.0, **({} if name == "Rprop" else {"weight_decay": 0.1}))
    before = [p.detach().clone() for p in a.parameters()]
    for p in a.parameters():
        p.grad = torch.zeros_like(p)
    mine.step()
    assert all(torch.equal(p, q) for p, q in zip(before, a.parameters(), strict=True))
    assert len(mine.state) == 4
    saved = mine.state_dict()
    ours(name, model().parameters()).load_state_dict(saved)


def test_a_stale_graph_raises():
    a, _, mine, _ = pair("Adam")
    loss = a(torch.ones(2, 4)).square().sum()
    loss.backward(retain_graph=True)
    mine.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", ALL)
def test_parameters_of_no_elements_and_of_no_dimension(name):
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in ((), (0,), (3, 0), (1,))]
    optimizer = ours(name, params)
    give_gradients(params)
    optimizer.step()
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in params)


# ---- groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_group_added_late(name):
    a, b, mine, its = pair(name)
    advance(a, b, mine, its, 0, 2)
    more = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    mine.add_param_group({"params": more[0], "lr": 0.05})
    its.add_param_group({"params": [more[1]], "lr": 0.05})
    for t in range(3):
        give_gradients([more[0]], t)
        give_gradients([more[1]], t)
        advance(a, b, mine, its, 2 + t, 3 + t)
    assert same([*a.parameters(), more[0]], [*b.parameters(), more[1]])


def test_names():
    a = model()
    mine = ours("Adam", a.named_parameters())
    assert mine.param_groups[0]["param_names"] == [name for name, _ in a.named_parameters()]
    give_gradients(a.parameters())
    a[2].weight.grad = a[2].weight.grad.t().contiguous().t()
    with pytest.raises(ValueError, match=r"grads\['2.weight'\]: expected strides"):
        mine.step()


def test_a_parameter_that_is_replaced_takes_its_state_along():
    """As programs do that add and remove points."""
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    mine.step()
    old = mine.param_groups[0]["params"][1]
    new = torch.nn.Parameter(torch.cat([old.detach(), torch.ones(2)]))
    state = mine.state.pop(old)
    mine.state[new] = {
        key: torch.cat([value, torch.zeros(2)]) if value.dim() else value for key, value in state.items()
    }
    mine.param_groups[0]["params"][1] = new
    give_gradients(mine.param_groups[0]["params"], 1)
    before = [p.detach().clone() for p in (old, new)]
    mine.step()
    assert torch.equal(old, before[0])
    assert not torch.equal(new, before[1])
    assert mine.state[new]["step"].item() == 2


@pytest.mark.parametrize("name", ["SGD"])
def test_momentum_that_comes_later_begins_a_buffer(name):
    a, b = model(), model()
    mine, its = lrfast.torch.SGD(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.1)
    advance(a, b, mine, its, 0, 2)
    assert len(mine.state) == 0
    mine.param_groups[0].update(momentum=0.9, dampening=0.5)
    its.param_groups[0].update(momentum=0.9, dampening=0.5)
    advance(a, b, mine, its, 2, 5)
    assert same(a.parameters(), b.parameters())


def test_a_state_that_there_was_not_is_refused():
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    mine.step()
    mine.param_groups[0]["amsgrad"] = True
    with pytest.raises(ValueError, match="amsgrad decides which state exists"):
        mine.step()


# ---- learning rates ------------------------------------------------------------------------------------------------

SCHEDULERS = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=12),
    "cyclic": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (t + 1)),
    "sequential": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
        [3],
    ),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_their_schedulers(name, kind):
    a, b, mine, its = pair(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR's own
        both = [SCHEDULERS[kind](mine), SCHEDULERS[kind](its)]
        for t in range(10):
            advance(a, b, mine, its, t, t + 1)
            for scheduler in both:
                scheduler.step(*([1.0] if kind == "plateau" else []))
    assert mine.param_groups[0]["lr"] == its.param_groups[0]["lr"]
    assert mine.param_groups[0]["lr"] != mine.defaults["lr"]
    assert same(a.parameters(), b.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_that_is_a_tensor(name):
    a, b = model(), model()
    rate = torch.tensor(0.1)
    mine, its = ours(name, a.parameters(), lr=rate), theirs(name, b.parameters(), lr=0.1)
    for t in range(4):
        rate.fill_(0.1 / (t + 1))
        its.param_groups[0]["lr"] = 0.1 / (t + 1)
        advance(a, b, mine, its, t, t + 1)
    assert mine.param_groups[0]["lr"] is rate
    assert same(a.parameters(), b.parameters(), 1e-5)


def test_a_rate_of_several_elements_is_refused():
    with pytest.raises(ValueError, match="expected a tensor of one element"):
        ours("Adam", model().parameters(), lr=torch.ones(2))


def test_our_schedules():
    a, b = model(), model()
    rate = schedules.cosine(0.1, 8).warmup(3)
    mine, its = ours("SGD", a.parameters(), lr=rate), theirs("SGD", b.parameters())
    for t in range(6):
        its.param_groups[0]["lr"] = rate(t)
        advance(a, b, mine, its, t, t + 1)
        assert mine.param_groups[0]["lr"] == rate(t)
    assert same(a.parameters(), b.parameters())
    saved = mine.state_dict()
    assert saved["updates"] == 6
    other = ours("SGD", a.parameters(), lr=rate)
    other.load_state_dict(saved)
    give_gradients(a.parameters())
    other.step()
    assert other.param_groups[0]["lr"] == rate(6)
    with pytest.raises(ValueError, match="expected a count of updates"):
        other.load_state_dict(its.state_dict())
    other.load_state_dict(its.state_dict(), updates=6)
    assert other.updates == 6
    other.step()
    other.param_groups[0]["lr"] = 0.5
    with pytest.raises(ValueError, match="lr follows a schedule"):
        other.step()


# ---- AMP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adagrad"])
@pytest.mark.parametrize("unscaled", [False, True])
def test_grad_scaler(name, unscaled):
    """Also where the first step is skipped: then there is no state."""
    a, b, mine, its = pair(name)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) for _ in range(2)]
    for t in range(6):
        for m, o, scaler in ((a, mine, scalers[0]), (b, its, scalers[1])):
            o.zero_grad()
            x = torch.full((2, 4), float("inf") if t in (0, 3) else 0.5)
            scaler.scale(m(x).square().sum()).backward()
            if unscaled:
                scaler.unscale_(o)
            before = bits(o)
            scaler.step(o)
            if t in (0, 3):
                assert bits(o) == before
            scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale() != 1024.0
    assert same(a.parameters(), b.parameters())
    assert not hasattr(mine, "grad_scale")
    if name != "Adagrad":
        assert all(s.get("step", torch.tensor(4.0)) == 4 for s in mine.state.values())


def test_gradients_are_not_unscaled_in_place():
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    before = [p.grad.clone() for p in a.parameters()]
    mine.grad_scale, mine.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    mine.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(a.parameters(), before, strict=True))
    mine.found_inf = torch.tensor(2.0)  # of two devices
    before = bits(mine)
    mine.step()
    assert bits(mine) == before


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_parameters_that_move(name):
    a, b, mine, its = pair(name)
    advance(a, b, mine, its, 0, 2)
    for m in (a, b):
        old = [p.data_ptr() for p in m.parameters()]
        m.double().float()
        assert [p.data_ptr() for p in m.parameters()] != old
    gc.collect()
    advance(a, b, mine, its, 2, 4)
    assert same(a.parameters(), b.parameters())
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        p.data = p.data * 2
        q.data = q.data * 2
    advance(a, b, mine, its, 4, 6)
    assert same(a.parameters(), b.parameters())


def test_a_parameter_of_another_dtype_than_its_state_is_refused():
    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    mine.step()
    a.double()
    give_gradients(a.parameters())
    before = bits(a)
    with pytest.raises(TypeError, match=r"state of params\[0\]: exp_avg: expected a tensor of torch.float64"):
        mine.step()
    assert bits(a) == before


@pytest.mark.parametrize("name", NAMES)
def test_states_that_move_or_are_written(name):
    a, b, mine, its = pair(name)
    advance(a, b, mine, its, 0, 2)
    for o in (mine, its):
        for state in o.state.values():
            for key, value in state.items():
                if value.dim():
                    state[key] = value * 0.5
    advance(a, b, mine, its, 2, 4)
    for o in (mine, its):
        for state in o.state.values():
            for value in state.values():
                if value.dim():
                    value.share_memory_()
            if "step" in state:
                state["step"].fill_(1.0)
            for key in ("mu_product", "eta"):
                if key in state:
                    state[key].fill_(0.25)
    advance(a, b, mine, its, 4, 6)
    assert same(a.parameters(), b.parameters())
    mine.state.clear()
    its.state.clear()
    if name != "Adagrad":
        advance(a, b, mine, its, 6, 8)
        assert same(a.parameters(), b.parameters())


def test_adagrad_shares_its_memory():
    a, _, mine, _ = pair("Adagrad")
    mine.share_memory()
    assert all(s["sum"].is_shared() for s in mine.state.values())
    shared = mine.state[a[0].weight]["sum"]
    give_gradients(a.parameters())
    mine.step()
    assert shared.abs().sum() > 0


FORMATS = {
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(3, 4).t(),
    "permuted": lambda: torch.randn(2, 3, 4).permute(2, 0, 1),
    "inside a buffer": lambda: torch.randn(20)[3:15].view(3, 4),
    "lengths of one": lambda: torch.randn(4).as_strided((4, 1, 1), (1, 7, 9)),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_any_dense_format(name, kind):
    torch.manual_seed(0)
    value = FORMATS[kind]()
    params = [torch.nn.Parameter(value), torch.nn.Parameter(value.clone(memory_format=torch.contiguous_format))]
    mine, its = ours(name, [params[0]]), theirs(name, [params[1]])
    for _ in range(3):
        grad = torch.randn(value.shape)
        params[0].grad = torch.empty_strided(value.shape, value.stride()).copy_(grad)
        params[1].grad = grad
        mine.step()
        its.step()
    assert torch.allclose(*params)
    for key, state in mine.state[params[0]].items():
        if state.dim():
            assert state.stride() == params[0].stride() or kind == "lengths of one"
            assert torch.allclose(state, its.state[params[1]][key])


def test_a_format_that_changes_takes_the_state_along():
    params = [torch.nn.Parameter(torch.randn(2, 3, 4, 5)) for _ in range(2)]
    params[1].data.copy_(params[0].data)
    mine, its = ours("Adam", [params[0]]), theirs("Adam", [params[1]])
    for t in range(4):
        if t == 2:
            params[0].data = params[0].data.to(memory_format=torch.channels_last)
        grad = torch.randn(2, 3, 4, 5)
        params[0].grad, params[1].grad = torch.empty_like(params[0]).copy_(grad), grad
        mine.step()
        its.step()
    assert torch.allclose(*params)


def test_a_view_of_negatives():
    """The imaginary half of a conjugate of one number is as dense as any."""
    p, q = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    mine, its = ours("SGD", [p], lr=0.1), theirs("SGD", [q], lr=0.1)
    p.grad = torch.tensor([1 + 2j], dtype=torch.complex64).conj().imag
    q.grad = torch.tensor([-2.0])
    assert p.grad.is_neg()
    mine.step()
    its.step()
    assert torch.equal(p, q)


def test_views_of_one_buffer():
    """As DDP and flat parameters have them: only elements are aligned."""
    flat, grads = torch.randn(31), torch.randn(31)
    params = [torch.nn.Parameter(flat[1:8]), torch.nn.Parameter(flat[8:31])]
    before = flat.clone()
    params[0].grad, params[1].grad = grads[1:8], grads[8:31]
    ours("SGD", params, lr=1.0, momentum=0.0, dampening=0.0).step()
    assert flat[0] == before[0]
    assert torch.allclose(flat[1:], before[1:] - grads[1:])


# ---- refusals ------------------------------------------------------------------------------------------------------

BAD_PARAMS = {
    "bfloat16": (lambda: torch.ones(3, dtype=torch.bfloat16), TypeError, "expected dtype float32 or float64, got bf"),
    "complex": (lambda: torch.ones(3, dtype=torch.complex64), TypeError, "got complex64"),
    "device": (lambda: torch.ones(3, device="meta"), ValueError, "expected a tensor on the CPU, got one on meta"),
    "gaps": (lambda: torch.ones(6)[::2], ValueError, "without gaps or overlap"),
    "overlap": (lambda: torch.ones(1).expand(4), ValueError, "without gaps or overlap"),
    "sparse": (lambda: torch.eye(3).to_sparse(), ValueError, "got layout sparse_coo"),
}


@pytest.mark.parametrize("kind", BAD_PARAMS)
def test_parameters_that_are_refused(kind):
    make, error, words = BAD_PARAMS[kind]
    good, bad = torch.nn.Parameter(torch.ones(2)), make().requires_grad_()
    with pytest.raises(error, match=rf"params\[1\]: .*{words}"):
        ours("Adam", [good, bad])
    with pytest.raises(error, match=rf"params\['b'\]: .*{words}"):
        ours("Adam", [("a", good), ("b", bad)])
    optimizer = ours("Adam", [good])
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [bad]})
    assert len(optimizer.param_groups) == 1
    frozen = bad.detach()
    optimizer = ours("Adam", [good, frozen])  # as long as nobody asks for its update
    good.grad = torch.ones(2)
    optimizer.step()
    optimizer.step()
    before = good.detach().clone()
    frozen.requires_grad_().grad = frozen.detach()
    with pytest.raises(error, match=rf"params\[1\]: .*{words}"):
        optimizer.step()
    assert torch.equal(good, before)


BAD_GRADIENTS = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "strides": lambda: torch.ones(4, 4).t(),
    "expanded": lambda: torch.ones(1).expand(4, 4),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", BAD_GRADIENTS)
def test_gradients_that_are_refused(name, kind):
    params = [torch.nn.Parameter(torch.randn(4, 4)) for _ in range(2)]
    mine = ours(name, params)
    give_gradients(params)
    mine.step()
    before, state = [p.detach().clone() for p in params], bits(mine)
    params[1].grad = BAD_GRADIENTS[kind]()
    with pytest.raises(ValueError, match=r"grads\[1\]: expected"):
        mine.step()
    assert all(torch.equal(p, q) for p, q in zip(before, params, strict=True))
    assert bits(mine) == state
    give_gradients(params)
    mine.step()


def test_a_gradient_of_another_dtype_is_refused():
    p = torch.nn.Parameter(torch.ones(3))
    mine = ours("Adam", [p])
    try:
        p.grad_dtype = torch.float64
        p.grad = torch.ones(3, dtype=torch.float64)
    except (AttributeError, RuntimeError):
        pytest.skip("this version of PyTorch has no grad_dtype")
    with pytest.raises(TypeError, match=r"grads\[0\]: expected dtype float32 like its parameter, got float64"):
        mine.step()
    assert torch.equal(p, torch.ones(3))


def test_subclasses_with_memory_elsewhere_are_refused():
    from torch.testing._internal.two_tensor import TwoTensor

    p = torch.nn.Parameter(TwoTensor(torch.ones(3), torch.ones(3)))
    with pytest.raises(ValueError, match="expected a plain tensor, got TwoTensor"):
        ours("Adam", [p])

    class Plain(torch.nn.Parameter):
        """Adds a name, and nothing else."""

    p = Plain(torch.ones(3))
    p.grad = torch.ones(3)
    mine = ours("SGD", [p], lr=1.0, momentum=0.0, dampening=0.0)
    mine.step()
    assert torch.equal(p.detach(), torch.zeros(3))


@pytest.mark.parametrize("name", NAMES)
def test_fallback_for_those_alone(name):
    """A bfloat16 parameter, and one whose gradients have another layout."""
    params = [[torch.nn.Parameter(torch.ones(3, 3)), torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))]]
    params.append([torch.nn.Parameter(p.detach().clone()) for p in params[0]])
    mine = ours(name, params[0], fallback=True)
    its = theirs(name, params[1])
    for t in range(4):
        for ps in params:
            give_gradients(ps, t)
            if t == 2:
                ps[0].grad = ps[0].grad.t()
        mine.step()
        its.step()
    assert same([p.float() for p in params[0]], [p.float() for p in params[1]])
    its.load_state_dict(mine.state_dict())
    mine.load_state_dict(its.state_dict())
    copy.deepcopy(mine).step()


def test_fallback_and_what_it_cannot():
    with pytest.raises(ValueError, match="fallback: expected no clipping"):
        ours("Adam", model().parameters(), fallback=True, clip_norm=1.0)
    with pytest.raises(ValueError, match="PyTorch has no optimizer Lion"):
        ours("Lion", model().parameters(), fallback=True)


# ---- copies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save"])
@pytest.mark.parametrize("name", ALL)
def test_copies_go_on_alone(name, way):
    a = model()
    mine = ours(name, a.parameters(), clip_norm=1.0)
    for t in range(3):
        give_gradients(a.parameters(), t)
        mine.step()
    both = (a, mine)
    if way == "pickle":
        b, other = pickle.loads(pickle.dumps(both))
    elif way == "deepcopy":
        b, other = copy.deepcopy(both)
    else:
        file = io.BytesIO()
        torch.save(both, file)
        file.seek(0)
        b, other = torch.load(file, weights_only=False)
    assert other.clip_norm == 1.0
    assert other.updates == 3
    advance(a, b, mine, other, 3, 6)
    assert same(a.parameters(), b.parameters(), 0)
    assert bits(mine) == bits(other)
    give_gradients(a.parameters(), 9)
    before = [p.detach().clone() for p in b.parameters()]
    mine.step()
    assert same(before, b.parameters(), 0)


def test_it_is_not_kept_alive_by_itself():
    import weakref

    a, _, mine, _ = pair("Adam")
    give_gradients(a.parameters())
    mine.step()
    there = weakref.ref(mine)
    del mine
    gc.collect()
    assert there() is None


def test_threads_are_theirs(monkeypatch):
    """torch.get_num_threads() holds for a step, and lrfast's own number comes back."""
    if lrfast.available_isas() == ("numpy",):
        pytest.skip("without the extension there is one thread")
    seen = []
    a = model()
    mine = ours("Adam", a.parameters())
    give_gradients(a.parameters())
    mine.step()
    step = lrfast.Adam.step
    monkeypatch.setattr(
        lrfast.Adam, "step", lambda *args, **more: seen.append(lrfast.get_num_threads()) or step(*args, **more)
    )
    before, theirs_before = lrfast.get_num_threads(), torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        mine.step()
    finally:
        torch.set_num_threads(theirs_before)
    assert seen == [before + 1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)  # more than lrfast has
    mine.step()
    assert seen == [before + 1, 256]
    assert lrfast.get_num_threads() == before


def test_without_the_extension():
    with lrfast.use_isa("numpy"):
        a, b, mine, its = pair("Adam")
        advance(a, b, mine, its, 0, 3)
        assert same(a.parameters(), b.parameters())


def test_numpy_sees_the_same_bits():
    """The step is that of lrfast.AdamW on the same numbers."""
    a, _, mine, _ = pair("AdamW")
    arrays = [p.detach().numpy().copy() for p in a.parameters()]
    other = lrfast.AdamW(arrays)
    for t in range(5):
        give_gradients(a.parameters(), t)
        other.step([p.grad.numpy() for p in a.parameters()])
        mine.step()
    assert all(np.array_equal(x, p.detach().numpy()) for x, p in zip(arrays, a.parameters(), strict=True))
