"""Updates while backward runs: each parameter as soon as its gradient is there, which then is freed."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from .._engine import adopted
from .._engine.options import Options
from . import layout
from .base import Optimizer
from .binding import Binding

_CLIPS = ("exact", "late")


def step_in_backward(optimizer: Optimizer, clip: str = "exact") -> InBackward:
    """Let ``loss.backward()`` update each parameter when its gradient arrives, and free the gradient.

    .. code-block:: python

        lrfast.torch.step_in_backward(optimizer)
        for batch in batches:
            loss(batch).backward()  # updates; no more than a gradient or two is there at a time
            optimizer.step()  # ends the step: counts it, runs hooks; schedulers follow as ever

    With ``clip_norm`` the norm of all gradients is known only when the last has come:

    - ``clip="exact"``: gradients stay until ``optimizer.step()``, which clips and updates. The norm is taken as they
      arrive, while they are in the cache, which saves a pass over them, but no memory.
    - ``clip="late"``: gradients are scaled by the norm of the step before, and freed at once. The first step is exact.

    ``remove()`` of what is returned ends it. Raises ValueError for what needs all gradients at once: ``nonfinite``,
    averages, copies, statistics, ``fallback``; the backward pass raises RuntimeError for a second gradient of a
    parameter before ``step()``: accumulation, a parameter that re-entrant checkpointing visits twice. A ``GradScaler``
    is refused by ``step()``: its scale is not known when gradients arrive. A graph that still needs a parameter which
    was updated raises, as PyTorch's in-place operations do.
    """
    return InBackward(optimizer, clip)


class InBackward:
    """What :func:`step_in_backward` returns."""

    def __init__(self, optimizer: Optimizer, clip: str) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected one of lrfast.torch, got {type(optimizer).__name__}")
        if clip not in _CLIPS:
            raise ValueError(f"clip: expected one of {_CLIPS}, got {clip!r}")
        optimizer.attach(self)
        self._optimizer, self._clip = optimizer, clip
        self._norm = math.nan  # of the step before
        self._squares = 0.0
        groups = [(i, p) for i, group in enumerate(optimizer.param_groups) for p in group["params"] if p.requires_grad]
        self._ones = {p: _One(optimizer, i, p) for i, p in groups}
        self._keeping = self._keeps()
        self._handles = [p.register_post_accumulate_grad_hook(self._arrived) for p in self._ones]

    def remove(self) -> None:
        """Ends it: from now on ``optimizer.step()`` updates."""
        for handle in self._handles:
            handle.remove()
        self._optimizer.attach(None)

    def _keeps(self) -> bool:
        """Whether gradients stay until the step."""
        return self._optimizer.clip_norm is not None and (self._clip == "exact" or math.isnan(self._norm))

    def _arrived(self, p: Tensor) -> None:
        one, grad = self._ones[p], p.grad
        if one.has_arrived:
            raise RuntimeError(
                f"{one.label}: expected one gradient before step(), got another: gradients cannot accumulate while "
                "step_in_backward updates as they arrive"
            )
        reason = layout.why_not(p)
        if reason is not None:
            raise ValueError(f"{one.label}: {reason}")
        reason = layout.why_no_gradient(grad, p) if grad is not None else None
        if reason is not None:
            raise ValueError(f"{one.label.replace('params', 'grads', 1)}: {reason}")
        one.has_arrived = True
        bound = self._optimizer.clip_norm
        if bound is not None and grad is not None:
            self._squares += float(torch.linalg.vector_norm(grad)) ** 2
        if not self._keeping:
            one.step(_factor(bound, self._norm))
            p.grad = None

    def finish(self, ordinary: Any) -> None:
        """The rest of a step; ``ordinary(grad_scale)`` is one of all gradients that are still there."""
        optimizer = self._optimizer
        if "found_inf" in optimizer.__dict__:
            raise RuntimeError(
                "step_in_backward: expected no GradScaler, whose scale is not known when gradients arrive"
            )
        self._norm = math.sqrt(self._squares)
        if self._keeping:
            ordinary(_factor(optimizer.clip_norm, self._norm))
        else:
            optimizer.count_step()
        self._squares = 0.0
        for one in self._ones.values():
            one.has_arrived = False
        self._keeping = self._keeps()


def _factor(bound: float | None, norm: float) -> float:
    return 1.0 if bound is None else min(1.0, bound / (norm + 1e-6))


class _One:
    """A parameter with a binding of its own."""

    def __init__(self, optimizer: Optimizer, index: int, p: Tensor) -> None:
        group = optimizer.param_groups[index]
        names = group.get("param_names")
        place = next(i for i, other in enumerate(group["params"]) if other is p)
        self.label = f"params[{place}]" if names is None else f"params[{names[place]!r}]"
        self.has_arrived = False
        self._optimizer, self._index, self._p = optimizer, index, p
        self._named = {} if names is None else {"param_names": [names[place]]}
        self._alone: dict[str, Any] = {}
        self._binding: Binding | None = None

    def step(self, grad_scale: float) -> None:
        """Updates it by its gradient."""
        owner, p = self._optimizer, self._p
        optimizer_state = owner.state.get(p)
        group = owner.param_groups[self._index]
        self._alone.update({key: x for key, x in group.items() if key not in ("params", "param_names")})
        binding = self._binding
        grads = None
        if binding is not None and binding.state.get(p) is optimizer_state:
            grads = binding.reader.read(binding.state)
        if grads is None or binding is None or not binding.take_settings():
            binding = self._bind(optimizer_state)
            grads = binding.slowly_read()
        adopted.step(binding.engine, grads, grad_scale, torch.get_num_threads())
        binding.finish(grads)
        if optimizer_state is None and p in binding.state:
            owner.state[p] = binding.state[p]

    def _bind(self, entry: dict[str, Any] | None) -> Binding:
        self._alone |= {"params": [self._p], **self._named}
        state: dict[Any, Any] = defaultdict(dict) if entry is None else defaultdict(dict, {self._p: entry})
        options = Options(clip_value=self._optimizer.clip_value)
        count, before = adopted.Count(self._optimizer.updates), self._binding
        self._binding = Binding(self._optimizer.family, [self._alone], state, options, None, (), count, before)
        return self._binding
