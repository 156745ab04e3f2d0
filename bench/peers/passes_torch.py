"""What surrounds a step in PyTorch (clipping, zeroing, a bfloat16 copy), and its statistics in separate passes."""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from contract import Arrays

Tensor = torch.Tensor


def adamw(params: Arrays, grads: Arrays, settings: dict[str, Any], threads: int) -> torch.optim.AdamW:
    """The fused optimizer on this memory."""
    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(p) for p in params]
    for tensor, grad in zip(tensors, grads, strict=True):
        tensor.requires_grad_(True)
        tensor.grad = torch.from_numpy(grad)
    return torch.optim.AdamW(tensors, **settings, fused=True)


class StepWithOptions:
    """Clip, step, zero; with ``copies`` also write the parameters into them."""

    def __init__(self, optimizer: torch.optim.AdamW, clip_norm: float, *, copies: bool) -> None:
        self.optimizer, self.clip_norm = optimizer, clip_norm
        self.params: list[Tensor] = optimizer.param_groups[0]["params"]
        self.copies = [torch.empty_like(p, dtype=torch.bfloat16, requires_grad=False) for p in self.params]
        if not copies:
            self.copies = []

    def __call__(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.params, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        if self.copies:
            with torch.no_grad():
                for copy, p in zip(self.copies, self.params, strict=True):
                    copy.copy_(p)


class Passes:
    """Sees parameters before and after a step, gradients and states; on PyTorch's threads."""

    def __init__(self, optimizer: torch.optim.AdamW) -> None:
        self.optimizer = optimizer
        settings = optimizer.param_groups[0]
        self.lr, self.beta2, self.eps = settings["lr"], settings["betas"][1], settings["eps"]
        self.params = [p.detach().view(-1) for p in settings["params"]]
        self.grads = [p.grad.view(-1) for p in settings["params"]]
        self.moved = [torch.zeros_like(p) for p in self.params]
        self.last = [torch.zeros_like(p) for p in self.params]
        self.scratch = torch.empty(max(p.numel() for p in self.params))
        self.dot = 0.0

    def before(self) -> None:
        for moved, p in zip(self.moved, self.params, strict=True):
            moved.copy_(p)

    def norms(self) -> dict[str, float]:
        total = torch.nn.utils.get_total_norm
        grad_norm, grad_max = float(total(self.grads)), float(total(self.grads, torch.inf))
        param_norm = float(total(self.moved))  # still the parameters before the step
        for p, d in zip(self.params, self.moved, strict=True):
            torch.sub(p, d, out=d)
        update_norm = float(total(self.moved))
        return {
            "grad_norm": grad_norm,
            "param_norm": param_norm,
            "update_norm": update_norm,
            "update_ratio": update_norm / param_norm,
            "grad_max": grad_max,
            "update_max": float(total(self.moved, torch.inf)),
        }

    def everything(self) -> dict[str, float]:
        result = self.norms()
        nan = inf = zero = lost = turned = dominated = 0
        dot = dot_last = last_sq = 0.0
        smallest = torch.inf
        rates = torch.zeros(64)
        states = self.optimizer.state.values()
        for g, d, last, state in zip(self.grads, self.moved, self.last, states, strict=True):
            nan += int(torch.isnan(g).sum())
            inf += int(torch.isinf(g).sum())
            zero += g.numel() - int(torch.count_nonzero(g))
            lost += int(torch.count_nonzero((d == 0) & (state["exp_avg"].view(-1) != 0)))
            dot += float(torch.dot(g, d))
            dot_last += float(torch.dot(g, last))
            last_sq += float(torch.dot(last, last))
            product = torch.mul(g, last, out=self.scratch[: g.numel()])
            turned += int(torch.count_nonzero(product > 0))
            sigma = torch.sqrt(state["exp_avg_sq"].view(-1), out=self.scratch[: g.numel()])
            sigma *= 1 / sqrt(1 - self.beta2 ** float(state["step"]))
            dominated += int(torch.count_nonzero(sigma < self.eps))
            sigma += self.eps
            smallest = min(smallest, float(sigma.min()))
            rates += torch.histc(torch.log2(self.lr / sigma[::64]), bins=64, min=-32, max=32)
        elements = sum(g.numel() for g in self.grads)
        curvature = dot_last - self.dot
        result |= {
            "nan": nan,
            "inf": inf,
            "zero": zero,
            "lost": lost,
            "dot": dot,
            "cosine": _quotient(dot_last, result["grad_norm"] * sqrt(last_sq)),
            "bounce": turned / elements,
            "sharpness": _quotient(curvature, last_sq),
            "sharpness_limit": _quotient(-2 * self.dot, last_sq),
            "minimum": _quotient(-self.dot, curvature),
            "rate_max": self.lr / smallest,
            "rate_median": float(2.0 ** (torch.searchsorted(rates.cumsum(0), rates.sum() / 2).item() - 31.5)),
            "eps_dominates": dominated / elements,
        }
        self.dot = dot
        self.moved, self.last = self.last, self.moved
        return result


def _quotient(x: float, y: float) -> float:
    return x / y if y else float("nan")
