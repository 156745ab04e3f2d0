"""A small ResNet on handwritten digits, in channels_last: python examples/with_torch/resnet_digits.py

The digits are those of scikit-learn (pip install 'lrfast[demo]'). A monitor says at the end how training went.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import lrfast
from lrfast.torch import SGD


class Residual(nn.Module):
    """Two convolutions, and a way past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.inner(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(x))
    train, test = order[:1437], order[1437:]
    model = nn.Sequential(
        *(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), Residual(24), nn.MaxPool2d(2), Residual(24)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)),
    ).to(memory_format=torch.channels_last)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, epochs=chosen.epochs, steps_per_epoch=23)
    monitor = lrfast.Monitor(optimizer)
    for epoch in range(chosen.epochs):
        model.train()
        for batch in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch].contiguous(memory_format=torch.channels_last)), y[batch])
            loss.backward()
            optimizer.step()
            scheduler.step()
            monitor.update(loss.item())
        model.eval()
        with torch.no_grad():
            right = (model(x[test]).argmax(1) == y[test]).float().mean().item()
        print(f"epoch {epoch + 1}  loss {loss.item():.3f}  right {right:.1%}")
    print(monitor.verdict())


if __name__ == "__main__":
    main()
