"""PyTorch on the CPU: its loop over tensors, foreach, and fused."""

from __future__ import annotations

import torch
from contract import Arrays, Contender, Settings

NAMES = ["torch for-loop", "torch foreach", "torch fused"]
CLASSES = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make(name: str, rule: str, settings: Settings, params: Arrays, grads: Arrays, threads: int) -> Contender | None:
    if name == "torch fused" and rule == "rmsprop":
        return None
    torch.set_num_threads(threads)
    options: dict[str, object] = dict(settings)
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    if name == "torch fused":
        options["fused"] = True
    else:
        options["foreach"] = name == "torch foreach"
    tensors = [torch.from_numpy(p) for p in params]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.requires_grad_(True)
        tensor.grad = torch.from_numpy(grad)
    optimizer = CLASSES[rule](tensors, **options)  # type: ignore[arg-type]
    return Contender(name, lambda: optimizer.step() and None, lambda: params)
