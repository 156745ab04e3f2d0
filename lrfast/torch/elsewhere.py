"""What cannot be updated here, by the optimizer of PyTorch: ``fallback=True``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Elsewhere:
    """Parameters that are left to PyTorch's optimizer of a name, and that optimizer."""

    def __init__(self, name: str) -> None:
        self._class: Any = getattr(torch.optim, name, None)
        if self._class is None:
            raise ValueError(f"fallback: expected None or False, because PyTorch has no optimizer {name}")
        self.params: list[Tensor] = []

    def take(self, p: Tensor) -> None:
        """Leaves a parameter to it from now on, whose state stays where it is."""
        if all(p is not known for known in self.params):
            self.params.append(p)

    def step(self, owner: torch.optim.Optimizer, params: list[Tensor]) -> None:
        """Updates those of these parameters that have a gradient, with settings and states of an optimizer."""
        wanted = {id(p) for p in params if p.grad is not None}
        if not wanted:
            return
        groups = [{**group, "params": [p for p in group["params"] if id(p) in wanted]} for group in owner.param_groups]
        for group in groups:
            group.pop("param_names", None)
        made = self._class([group for group in groups if group["params"]])
        made.state = owner.state
        with torch.no_grad():  # below the wrapper that calls hooks, which have been
            getattr(type(made).step, "__wrapped__", type(made).step)(made)
