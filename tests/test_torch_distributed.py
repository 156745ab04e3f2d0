"""In a process group of one: DDP, ZeroRedundancyOptimizer, distributed checkpoints; FSDP2's tensors are refused."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("this PyTorch was built without torch.distributed", allow_module_level=True)

from torch.distributed.checkpoint import state_dict as dcp  # noqa: E402

import lrfast.torch  # noqa: E402

from test_torch_contract import advance, bits, give_gradients, model, ours, same, theirs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own, about a group of one


@pytest.fixture(autouse=True)
def group(tmp_path):
    """Of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def train(a, optimizer, steps=3):
    for t in range(steps):
        torch.manual_seed(t)
        optimizer.zero_grad()
        a(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()


def test_ddp():
    """Gradients are views of buckets there."""
    a, b = model(), model()
    wrapped = torch.nn.parallel.DistributedDataParallel(a, gradient_as_bucket_view=True)
    train(wrapped, ours("AdamW", wrapped.parameters()))
    train(b, theirs("AdamW", b.parameters()))
    assert same(a.parameters(), b.parameters())


def test_zero_redundancy_optimizer():
    from torch.distributed.optim import ZeroRedundancyOptimizer

    a, b = model(), model()
    mine = ZeroRedundancyOptimizer(a.parameters(), lrfast.torch.AdamW, lr=0.01, weight_decay=0.1)
    its = torch.optim.AdamW(b.parameters(), lr=0.01, weight_decay=0.1)
    train(a, mine)
    train(b, its)
    assert same(a.parameters(), b.parameters())


@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam", "Adagrad"])
def test_distributed_checkpoints(name):
    """It makes states by a step with a learning rate and gradients of 0, in which nothing moves."""
    a = model()
    mine = ours(name, a.parameters())
    for t in range(3):
        give_gradients(a.parameters(), t)
        mine.step()
    saved = dcp.get_optimizer_state_dict(a, mine)
    b = copy.deepcopy(a)
    other, before = ours(name, b.parameters()), bits(b)
    dcp.set_optimizer_state_dict(b, other, copy.deepcopy(saved))
    assert bits(b) == before
    advance(a, b, mine, other, 3, 6)
    assert same(a.parameters(), b.parameters(), 0)


def test_tensors_of_fsdp2_are_refused():
    from torch.distributed.fsdp import fully_shard

    a = model()
    fully_shard(a, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=r"params\['0.weight'\]: expected a plain tensor, got DTensor"):
        ours("AdamW", a.named_parameters())
