"""Updates while backward runs: the same as after it; gradients are freed; what is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import lrfast.torch  # noqa: E402
from lrfast.torch import step_in_backward  # noqa: E402

from test_torch_contract import ALL, bits, model, ours, same  # noqa: E402


def train(a, optimizer, steps, between=lambda: None):
    for t in range(steps):
        torch.manual_seed(t)
        x = torch.randn(8, 4)
        (a(x) - x[:, :2]).square().sum().backward()
        between()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ALL)
def test_the_same_bits_as_after_it(name):
    a, b = model(), model()
    mine, other = ours(name, a.parameters()), ours(name, b.parameters())
    handle = step_in_backward(mine)
    gone = []
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 2) for o in (mine, other)]
    for _ in range(2):
        train(a, mine, 3, lambda: gone.append(all(p.grad is None for p in a.parameters())))
        train(b, other, 3)
        for scheduler in schedulers:
            scheduler.step()
    assert all(gone)
    assert same(a.parameters(), b.parameters(), 0)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert same(mine.state[p].values(), other.state[q].values(), 0)
    assert mine.updates == other.updates == 6
    handle.remove()
    train(a, mine, 2)
    train(b, other, 2)
    assert same(a.parameters(), b.parameters(), 0)


def test_a_checkpoint_in_between():
    a, b = model(), model()
    mine, other = ours("AdamW", a.parameters()), ours("AdamW", b.parameters())
    step_in_backward(mine)
    train(a, mine, 2)
    train(b, other, 2)
    mine.load_state_dict(other.state_dict())
    mine.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.3
    train(a, mine, 2)
    train(b, other, 2)
    assert same(a.parameters(), b.parameters(), 0)


def test_exact_clipping():
    """Gradients stay until the step, whose norm was taken as they came."""
    a, b = model(), model()
    mine, other = (ours("AdamW", m.parameters(), clip_norm=0.5) for m in (a, b))
    step_in_backward(mine)
    there = []
    train(a, mine, 4, lambda: there.append(all(p.grad is not None for p in a.parameters())))
    train(b, other, 4)
    assert all(there)
    assert same(a.parameters(), b.parameters(), 1e-6)
    assert mine.clip_norm == 0.5


def test_late_clipping():
    """By the norm of the step before; of the first step by its own."""
    a, b = model(), model()
    mine, other = (
        ours("SGD", a.parameters(), clip_norm=0.5),
        torch.optim.SGD(b.parameters(), momentum=0.9, dampening=0.5),
    )
    step_in_backward(mine, clip="late")
    there = []
    train(a, mine, 4, lambda: there.append(any(p.grad is not None for p in a.parameters())))
    assert there == [True, False, False, False]
    norms = []

    def clip():
        norm = torch.sqrt(sum(p.grad.square().sum() for p in b.parameters())).item()
        norms.append(norm)
        for p in b.parameters():
            p.grad *= min(1.0, 0.5 / (norms[max(0, len(norms) - 2)] + 1e-6))

    train(b, other, 4, clip)
    assert min(norms) > 0.5
    assert same(a.parameters(), b.parameters(), 1e-6)


def test_accumulation_is_refused():
    a = model()
    mine = ours("Adam", a.parameters())
    step_in_backward(mine)
    a(torch.ones(2, 4)).sum().backward()
    before = bits(a)
    with pytest.raises(RuntimeError, match=r"params\[\d\]: expected one gradient before step\(\), got another"):
        a(torch.ones(2, 4)).sum().backward()
    assert bits(a) == before


def test_a_grad_scaler_is_refused():
    a = model()
    mine = ours("Adam", a.parameters(), clip_norm=1.0)
    step_in_backward(mine)
    scaler = torch.amp.GradScaler("cpu")
    before = bits(a)
    scaler.scale(a(torch.ones(2, 4)).sum()).backward()
    with pytest.raises(RuntimeError, match="expected no GradScaler"):
        scaler.step(mine)
    assert bits(a) == before


def test_a_parameter_that_is_used_twice():
    """Its gradient is a sum, and arrives once."""
    paths = []
    for in_backward in (True, False):
        torch.manual_seed(0)
        w = torch.nn.Parameter(torch.randn(3, 3))
        mine = lrfast.torch.SGD([w], lr=0.1)
        if in_backward:
            step_in_backward(mine)
        for _ in range(3):
            torch.tanh(torch.ones(2, 3) @ w @ w).sum().backward()
            mine.step()
            mine.zero_grad()
        paths.append(w.detach())
    assert torch.equal(*paths)


@pytest.mark.parametrize("more", [{"nonfinite": "skip"}, {"ema": 0.9}, {"stats": True}, {"fallback": True}])
def test_what_needs_all_gradients_is_refused(more):
    with pytest.raises(ValueError, match="step_in_backward: expected an optimizer without"):
        step_in_backward(ours("Adam", model().parameters(), **more))


def test_a_parameter_that_was_converted_is_refused():
    a = model()
    mine = ours("Adam", a.parameters())
    step_in_backward(mine)
    a.bfloat16()
    with pytest.raises(ValueError, match=r"params\[\d\]: expected dtype float32 or float64, got bfloat16"):
        a(torch.ones(2, 4, dtype=torch.bfloat16)).sum().backward()


def test_other_arguments():
    mine = ours("Adam", model().parameters())
    with pytest.raises(ValueError, match="clip: expected"):
        step_in_backward(mine, clip="early")
    with pytest.raises(TypeError, match=r"expected one of lrfast\.torch"):
        step_in_backward(torch.optim.Adam(model().parameters()))
    step_in_backward(mine)
    with pytest.raises(ValueError, match="has it already"):
        step_in_backward(mine)
    with pytest.raises(ValueError, match="remove"):
        mine.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})


@pytest.mark.parametrize(("clip_norm", "clip", "most"), [(None, "exact", 0), (1e9, "late", 0), (1e9, "exact", 6)])
def test_how_many_gradients_are_there_at_a_time(clip_norm, clip, most):
    """Beside the one that arrives."""
    layers = [torch.nn.Linear(4, 4, bias=False) for _ in range(6)]
    a = torch.nn.Sequential(*layers)
    mine = lrfast.torch.SGD(a.parameters(), lr=0.1, clip_norm=clip_norm)
    step_in_backward(mine, clip)
    seen = []
    for p in a.parameters():
        p.register_hook(lambda _: seen.append(sum(q.grad is not None for q in a.parameters())))
    for _ in range(3):
        seen.clear()
        a(torch.ones(2, 4)).sum().backward()
        seen.append(sum(q.grad is not None for q in a.parameters()))
        mine.step()
        mine.zero_grad()
    assert max(seen) == most
