"""What surrounds a step of tensors: clipping, finiteness, zeroing, averages, copies, statistics; find_lr, Monitor."""

from __future__ import annotations

import io
import math

import pytest

torch = pytest.importorskip("torch")

import lrfast  # noqa: E402
import lrfast.torch  # noqa: E402
from lrfast import schedules  # noqa: E402

from test_torch_contract import bits, give_gradients, model, same  # noqa: E402


def made(**options):
    a = model()
    return a, lrfast.torch.AdamW(a.parameters(), lr=0.01, **options)


@pytest.mark.parametrize("bound", [0.1, 100.0])
def test_clip_norm_and_what_clip_grad_norm_returned(bound):
    (a, mine), b = made(clip_norm=bound), model()
    its = torch.optim.AdamW(b.parameters(), lr=0.01)
    for t in range(3):
        give_gradients(a.parameters(), t)
        give_gradients(b.parameters(), t)
        norm = torch.nn.utils.clip_grad_norm_(b.parameters(), bound)
        mine.step()
        its.step()
        assert mine.report.grad_norm == pytest.approx(norm.item(), rel=1e-6)
    assert same(a.parameters(), b.parameters())
    mine.clip_norm = None
    assert mine.clip_norm is None
    give_gradients(a.parameters())
    mine.step()
    assert math.isnan(mine.report.grad_norm)
    with pytest.raises(ValueError, match="clip_norm: expected"):
        mine.clip_norm = -1.0


def test_clip_value():
    (a, mine), b = made(clip_value=0.5), model()
    its = torch.optim.AdamW(b.parameters(), lr=0.01)
    for t in range(3):
        give_gradients(a.parameters(), t)
        give_gradients(b.parameters(), t)
        torch.nn.utils.clip_grad_value_(b.parameters(), 0.5)
        mine.step()
        its.step()
    assert same(a.parameters(), b.parameters())


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_gradients_that_are_not_finite(policy):
    """At the first step, too: then there is no state."""
    a, mine = made(nonfinite=policy)
    for t in range(2):
        give_gradients(a.parameters(), t)
        a[0].bias.grad[1] = float("nan")
        before, versions = (bits(a), bits(mine)), [p._version for p in a.parameters()]
        if policy == "raise":
            with pytest.raises(FloatingPointError, match=r"grads\[1\]: expected finite gradients"):
                mine.step()
        else:
            mine.step()
            assert mine.skipped == t + 1
            assert mine.report.skipped
            assert versions == [p._version for p in a.parameters()]
        assert (bits(a), bits(mine)) == before
        give_gradients(a.parameters(), t)
        mine.step()
    assert mine.updates == 2
    assert all(state["step"].item() == 2 for state in mine.state.values())


def test_zeroed_gradients():
    a, mine = made(zero_grads=True)
    give_gradients(a.parameters())
    mine.step()
    assert all((p.grad == 0).all() for p in a.parameters())


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_averages(dtype):
    a, mine = made(ema=0.5, ema_dtype=dtype)
    expected = [p.detach().double() for p in a.parameters()]
    for t in range(3):
        give_gradients(a.parameters(), t)
        mine.step()
        expected = [0.5 * e + 0.5 * p.detach().double() for e, p in zip(expected, a.parameters(), strict=True)]
    assert same([e.double() for e in mine.ema], expected)
    assert all(e.dtype == (torch.float64 if dtype else torch.float32) for e in mine.ema)
    kept = [p.detach().clone() for p in a.parameters()]
    with mine.use_ema():
        assert same([p.detach().double() for p in a.parameters()], expected)
        with pytest.raises(RuntimeError, match="have changed places"):
            mine.step()
    assert same(kept, a.parameters(), 0)
    file = io.BytesIO()
    torch.save(mine.state_dict(), file)
    file.seek(0)
    b, other = made(ema=0.5, ema_dtype=dtype)
    other.load_state_dict(torch.load(file))
    assert same(other.ema, mine.ema, 0)
    b.load_state_dict(a.state_dict())
    for m, o in ((a, mine), (b, other)):
        give_gradients(m.parameters(), 7)
        o.step()
    assert same(other.ema, mine.ema, 0)
    torch.optim.AdamW(b.parameters()).load_state_dict(mine.state_dict())
    mine.ema_decay = 0.9
    assert mine.ema_decay == 0.9


def test_averages_follow_a_schedule_and_a_graph_knows():
    a, mine = made(ema=schedules.equal_weight())
    sums = [torch.zeros_like(p) for p in a.parameters()]
    for t in range(4):
        give_gradients(a.parameters(), t)
        mine.step()
        sums = [s + p.detach() / 4 for s, p in zip(sums, a.parameters(), strict=True)]
    assert same(mine.ema, sums, 1e-5)
    loss = a(torch.ones(2, 4)).square().sum()
    with mine.use_ema(), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_copies(dtype):
    a = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    copies = [torch.full_like(p, 7.0, dtype=dtype) for p in a.parameters()]
    mine = lrfast.torch.SGD(a.parameters(), lr=0.1, copy_to=copies)
    assert all(torch.equal(c, p.detach().to(dtype)) for c, p in zip(copies, a.parameters(), strict=True))
    for p in a.parameters():
        p.grad = torch.randn_like(p)
    mine.step()
    assert all(torch.equal(c, p.detach().to(dtype)) for c, p in zip(copies, a.parameters(), strict=True))


def test_copies_that_are_refused():
    a = model()
    good = [torch.empty_like(p) for p in a.parameters()]
    for bad, error in ((torch.ones(3, dtype=torch.int32), TypeError), (torch.ones(9), ValueError)):
        with pytest.raises(error, match=r"copy_to\[1\]: expected"):
            lrfast.torch.SGD(a.parameters(), copy_to=[good[0], bad, *good[2:]])
    with pytest.raises(ValueError, match="expected 4 tensors"):
        lrfast.torch.SGD(a.parameters(), copy_to=good[:2])


def test_unknown_keywords_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'clipnorm'"):
        made(clipnorm=1.0)


def train(a, mine, steps=30, monitor=None):
    torch.manual_seed(3)
    x, y = torch.randn(32, 4), torch.randn(32, 2)

    def closure():
        mine.zero_grad()
        loss = (a(x) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        loss = mine.step(closure)
        if monitor is not None:
            monitor.update(loss.item())
    return closure


def test_statistics_and_a_monitor():
    a, mine = made()
    monitor = lrfast.Monitor(mine)
    train(a, mine, 40, monitor)
    assert len(monitor.records) == 40
    total = mine.stats["total"]
    norm = torch.sqrt(sum(p.grad.square().sum() for p in a.parameters()))
    assert total["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert monitor.verdict().kind in ("descending", "crawling", "too_few")
    mine.stats = False
    train(a, mine, 1)
    with pytest.raises(TypeError, match="expected an optimizer of lrfast"):
        lrfast.Monitor(torch.optim.Adam(a.parameters()))


def test_a_verdict_on_a_saddle():
    pytest.importorskip("scipy")
    p = torch.nn.Parameter(torch.zeros(2))
    mine = lrfast.torch.SGD([p], lr=0.01)
    monitor = lrfast.Monitor(mine)

    def gradient():
        p.grad = None
        (p[0] ** 2 - 3 * p[1] ** 2).backward()

    for _ in range(50):
        gradient()
        mine.step()
        monitor.update(0.0)
    verdict = monitor.verdict(gradient)
    assert verdict.kind == "saddle"
    assert verdict.evidence["smallest"] == pytest.approx(-6, rel=1e-3)
    assert torch.equal(p, torch.zeros(2))


def test_find_lr_on_a_model():
    a, mine = made()
    closure = train(a, mine, 2)
    before = bits(a), bits(mine)
    sweep = lrfast.find_lr(mine, closure, steps=40)
    assert 1e-5 < sweep.suggestion < 1
    assert (bits(a), bits(mine)) == before
    assert mine.updates == 2
    arrays = [p.detach().numpy().copy() for p in a.parameters()]
    other = lrfast.AdamW(arrays, lr=0.01)
    saved = mine.state_dict()
    other.load_state_dict(saved)

    def loss_and_grads():
        for p, array in zip(b.parameters(), arrays, strict=True):
            p.data.copy_(torch.from_numpy(array))
        return train_once()

    b = model()
    torch.manual_seed(3)
    x, y = torch.randn(32, 4), torch.randn(32, 2)

    def train_once():
        b.zero_grad()
        loss = (b(x) - y).square().mean()
        loss.backward()
        return loss.item(), [p.grad.numpy() for p in b.parameters()]

    assert lrfast.find_lr(other, loss_and_grads, steps=40).suggestion == sweep.suggestion


def test_groups_by_name():
    a = model()
    a[0].bias.requires_grad_(False)
    groups = lrfast.param_groups(a.named_parameters(), weight_decay=0.2, layer_decay=0.5, lr=0.1)
    for package in (lrfast.torch, torch.optim):
        mine = package.AdamW([dict(group) for group in groups])
        names = [name for group in mine.param_groups for name in group["param_names"]]
        assert names == ["0.weight", "2.weight", "2.bias"]
        assert [(group["lr"], group["weight_decay"]) for group in mine.param_groups] == [
            *((0.05, 0.2), (0.1, 0.2), (0.1, 0.0))
        ]
