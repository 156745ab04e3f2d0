"""Ten steps under Accelerate, Lightning and the Trainer of transformers: make test-frameworks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import lrfast.torch  # noqa: E402

from test_torch_contract import model, same  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 10


def data():
    torch.manual_seed(1)
    x = torch.randn(8 * STEPS, 4)
    return torch.utils.data.TensorDataset(x, x[:, :2])


def by_hand():
    """The parameters after the same steps with torch.optim."""
    a = model()
    optimizer = torch.optim.AdamW(a.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    for x, y in torch.utils.data.DataLoader(data(), 8):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(a(x), y).backward()
        torch.nn.utils.clip_grad_norm_(a.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
    return a.parameters()


def made(a):
    optimizer = lrfast.torch.AdamW(a.parameters(), lr=0.05)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3)


def test_accelerate():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    a = model()
    loader = torch.utils.data.DataLoader(data(), 8)
    a, optimizer, loader, scheduler = accelerator.prepare(a, made(a)[0], loader, None)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer.optimizer, 3)
    for x, y in loader:
        optimizer.zero_grad()
        accelerator.backward(torch.nn.functional.mse_loss(a(x), y))
        accelerator.clip_grad_norm_(a.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
    assert same(a.parameters(), by_hand())


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def training_step(self, batch, _):
            return torch.nn.functional.mse_loss(self.inner(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer, scheduler = made(self)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module = Module()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_steps=STEPS, accelerator="cpu", gradient_clip_val=0.5, default_root_dir=tmp_path, **quiet
    )
    trainer.fit(module, torch.utils.data.DataLoader(data(), 8))
    assert trainer.global_step == STEPS
    assert same(module.parameters(), by_hand())


def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x, labels):
            return {"loss": torch.nn.functional.mse_loss(self.inner(x), labels)}

    module = Module()
    arguments = transformers.TrainingArguments(
        output_dir=tmp_path, max_steps=STEPS, use_cpu=True, per_device_train_batch_size=8, max_grad_norm=0.5,
        report_to=[], disable_tqdm=True, seed=0, save_steps=5,
    )  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in data()]
    trainer = transformers.Trainer(module, arguments, train_dataset=rows, optimizers=made(module))
    trainer.get_train_dataloader = lambda: [{"x": x, "labels": y} for x, y in torch.utils.data.DataLoader(data(), 8)]
    trainer.train()
    assert same(module.parameters(), by_hand())
    assert list(tmp_path.glob("checkpoint-*/optimizer.pt"))
