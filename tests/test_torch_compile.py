"""A step inside a function that torch.compile compiles: outside of its graph, and compiled once."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.utils import counters  # noqa: E402

import lrfast.torch  # noqa: E402


def run(wrap, steps=50):
    """Losses of a training function, and how many frames were compiled when each was known."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = lrfast.torch.AdamW(model.parameters(), lr=0.1, clip_norm=1.0)
    x = torch.randn(16, 4)

    def train():
        loss = (model(x) - x[:, :1]).square().mean()
        gradients = torch.autograd.grad(loss, model.parameters())
        return loss, gradients

    def update(gradients):
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.grad = g
        optimizer.step()
        return model[0].weight.square().sum()

    update, found, frames = wrap(update), [], []
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss, gradients = train()
        found.append((loss.item(), update(gradients).item()))
        frames.append(counters["frames"]["total"])
        scheduler.step()
    return found, frames


@pytest.mark.filterwarnings("ignore")
def test_one_graph_break_and_no_recompilation():
    torch._dynamo.reset()
    counters.clear()
    compiled, frames = run(lambda update: torch.compile(update, backend="eager"))
    plain, _ = run(lambda update: update)
    assert compiled == plain
    assert compiled[-1][0] < 0.1 * compiled[0][0]
    assert frames[0] > 0
    assert frames[3] == frames[-1]
    breaks = dict(counters["graph_break"])
    assert [breaks[reason] for reason in breaks if "Optimizer.step" in reason] == [1]
    assert all("Optimizer." in reason for reason in breaks)  # those of what the step itself calls
