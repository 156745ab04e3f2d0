"""DeepSpeed's CPUAdam and CPUAdagrad, compiled for this machine when they are first used."""

from __future__ import annotations

import torch
from contract import Arrays, Contender, Settings
from deepspeed.ops.adagrad import DeepSpeedCPUAdagrad
from deepspeed.ops.adam import DeepSpeedCPUAdam

NAMES = ["deepspeed"]


def make(name: str, rule: str, settings: Settings, params: Arrays, grads: Arrays, threads: int) -> Contender | None:
    if rule not in ("adam", "adamw", "adagrad"):
        return None
    torch.set_num_threads(threads)
    h = settings
    tensors = [torch.nn.Parameter(torch.from_numpy(p)) for p in params]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(grad)
    if rule == "adagrad":
        optimizer = DeepSpeedCPUAdagrad(tensors, lr=h["lr"], eps=h["eps"], fp32_optimizer_states=True)
    else:
        optimizer = DeepSpeedCPUAdam(
            tensors,
            lr=h["lr"],
            betas=(h["beta1"], h["beta2"]),
            eps=h["eps"],
            weight_decay=h.get("weight_decay", 0.0),
            adamw_mode=rule == "adamw",
        )
    return Contender(name, lambda: optimizer.step() and None, lambda: [t.detach().numpy() for t in tensors])
