"""The base of the optimizers: a torch.optim.Optimizer whose step is one of lrfast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypedDict

import torch
from torch import Tensor

from .. import optim
from .._engine import adopted, averages
from .._engine.options import Options, Report
from .._engine.statistics import Stats
from . import layout, loading
from .binding import EMA, Binding, plain_number
from .elsewhere import Elsewhere

FLAGS = ("foreach", "fused", "capturable", "differentiable")
"""Keywords of PyTorch's optimizers that say how, not what."""


class Keywords(TypedDict, total=False):
    """Keywords of every optimizer, see :class:`Optimizer`."""

    fallback: bool
    clip_norm: float | None
    clip_value: float | None
    nonfinite: str
    zero_grads: bool
    ema: averages.Decay | None
    ema_dtype: Any
    copy_to: Sequence[Tensor] | None
    stats: bool | int | str


class Optimizer(torch.optim.Optimizer):
    """Base of all optimizers of ``lrfast.torch``; use one of its subclasses.

    A ``torch.optim.Optimizer`` with PyTorch's constructor, groups, states, hooks and ``state_dict``, whose step is one
    pass of lrfast over the tensors' own memory. Parameters are float32 or float64 on the CPU, dense in any memory
    format; gradients and states agree with them in dtype and layout. Settings are read from ``param_groups`` at every
    step, and may be a schedule of ``lrfast.schedules`` as well.

    Parameters
    ----------
    params
        Tensors, pairs (name, tensor) or groups, as PyTorch's optimizers take them.
    foreach, fused, capturable, differentiable
        Accepted where they are None or False (``fused`` also where it is True), so that calls can stay as they are.
    fallback
        Parameters or gradients that cannot be updated here are updated by the optimizer of PyTorch, those alone.
        Without it they are refused. Not together with the following.
    clip_norm, clip_value, nonfinite, zero_grads, ema, ema_dtype, copy_to, stats
        What surrounds an update, in the same pass: see :class:`lrfast.Optimizer`. ``ema``: averages are
        ``state[p]["ema"]``; ``copy_to`` holds tensors (float32, float16, bfloat16), one per parameter.

    Raises TypeError or ValueError that names the parameter, before anything is written.
    """

    family: ClassVar[type[optim.Optimizer]]
    begins_with_state: ClassVar[bool] = False

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError("Optimizer is a base class: use SGD, Adam, ...")

    def _begin(self, params: Any, settings: dict[str, Any], keywords: Mapping[str, Any]) -> None:
        """What the constructors of all classes do; ``settings`` are those of PyTorch's groups."""
        surrounding = {key: x for key, x in keywords.items() if key not in ("fallback", "copy_to")}
        self._around = Options.of(surrounding, type(self).__name__, settings)  # type: ignore[arg-type]
        self._copies = None if keywords.get("copy_to") is None else list(keywords["copy_to"])
        self._other = Elsewhere(type(self).__name__) if keywords.get("fallback") else None
        if self._other is not None and (self._copies is not None or self._around != Options()):
            raise ValueError(
                "fallback: expected no clipping, averages, copies, zeroing, statistics or check for finite gradients "
                "beside it, which would not reach the parameters that PyTorch updates"
            )
        self._binding: Binding | None = None
        self._in_backward: Any = None
        self._schedules: list[dict[str, Any]] = []
        self._written: dict[tuple[int, str], Any] = {}
        self._count = adopted.Count()
        self._step_supports_amp_scaling = self._other is None
        numbers = {key: plain_number(x) for key, x in settings.items()}
        _, self._default_schedules = adopted.checked(self.family, numbers, 0)
        first = {key: adopted.value_at(schedule, 0) for key, schedule in self._default_schedules.items()}
        super().__init__(params, {**settings, **self.family.torch_twin.marks, **first})
        if self.begins_with_state or self._around.ema is not None or self._copies is not None:
            self._bind()
        if self.begins_with_state:
            self._bound().publish_all()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Append a group ``{"params": ..., "lr": ..., ...}``, as PyTorch's optimizers do.

        Raises TypeError or ValueError for settings out of range and tensors that cannot be updated here.
        """
        if self._in_backward is not None:
            raise ValueError("add_param_group: expected an optimizer without step_in_backward; remove() it first")
        if isinstance(param_group, dict) and "params" in param_group:
            group = dict(param_group)
            params = group["params"]
            group["params"] = [params] if isinstance(params, Tensor) else params
            if not isinstance(params, (Tensor, set)):
                group["params"] = list(params)
            merged = {**self.defaults, **self._default_schedules, **group}
            numbers = {key: plain_number(x) for key, x in merged.items() if key not in ("params", "param_names")}
            _, schedules = adopted.checked(self.family, numbers, self.updates)
            for key, schedule in schedules.items():
                group[key] = adopted.value_at(schedule, self.updates)
            for i, p in enumerate(group["params"]):
                self._check_param(p, f"params[{i}]")
            super().add_param_group(group)
            param_group.update(group)
            self.param_groups[-1] = param_group
            self._schedules.append(schedules)
            if self._binding is not None:
                self._bind()
                if self.begins_with_state:
                    self._bound().publish_all()
        else:
            super().add_param_group(param_group)

    def _check_param(self, p: Any, label: str) -> None:
        """Refuses what will have gradients and cannot be updated."""
        if isinstance(p, tuple) and len(p) == 2:
            p, label = p[1], f"params[{p[0]!r}]"
        if self._other is None and isinstance(p, Tensor) and p.requires_grad:
            reason = layout.why_not(p)
            if reason is not None:
                raise (TypeError if "dtype" in reason else ValueError)(f"{label}: {reason}{_CURE}")

    # ---- a step ----------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, in place.

        ``closure`` evaluates the model once more and returns the loss, which is returned. Raises TypeError or
        ValueError that names the parameter before anything is written.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            self._update_outside()
        elif self._in_backward is not None:
            self._in_backward.finish(self._update_unclipped)
        else:
            self._update()
        return loss

    @torch._disable_dynamo  # which costs as much as a small step
    def _update_outside(self) -> None:
        if self._in_backward is not None:
            self._in_backward.finish(self._update_unclipped)
        else:
            self._update()

    def _update(self) -> None:
        own = self.__dict__
        found, scale = own.get("found_inf"), own.get("grad_scale")  # of a GradScaler, for this step
        if found is not None and float(found) != 0:
            return
        grad_scale = 1.0 if scale is None else 1.0 / float(scale)
        if any(self._schedules):
            self._follow()
        binding = self._binding
        grads = None if binding is None or binding.state is not self.state else binding.reader.read(self.state)
        if grads is None or (self._other is None and binding is not None and binding.has_more_gradients()):
            binding, grads = self._read_anew()
        assert binding is not None
        if not binding.take_settings():
            binding, grads = self._read_anew()
        engine = binding.engine
        try:
            adopted.step(engine, grads, grad_scale, torch.get_num_threads())
        except FloatingPointError:  # which may come after an update that has made something infinite
            binding.finish(grads)
            raise
        if self._around.nonfinite == "propagate" or not engine.report.skipped:
            binding.finish(grads)
        if self._other is not None:
            self._other.step(self, [p for _, p, _ in binding.others])

    def _update_unclipped(self, grad_scale: float) -> None:
        """A step whose norm is known: ``grad_scale`` clips."""
        bound, self.clip_norm = self.clip_norm, None
        self.grad_scale, self.found_inf = 1.0 / grad_scale, 0.0
        try:
            self._update()
        finally:
            del self.grad_scale, self.found_inf
            self.clip_norm = bound

    def attach(self, in_backward: Any) -> None:
        """For ``step_in_backward``: gradients are updated as they arrive, or, with None, no longer."""
        if in_backward is not None and self._in_backward is not None:
            raise ValueError("step_in_backward: expected an optimizer without it, got one that has it already")
        around = replace(self._around, clip_norm=None, clip_value=None, zero_grads=False)
        if in_backward is not None and (around != Options() or self._copies is not None or self._other is not None):
            raise ValueError(
                "step_in_backward: expected an optimizer without nonfinite, averages, copies, statistics and fallback, "
                "which need all gradients at once"
            )
        if self._binding is not None:
            self._count = adopted.Count(self.updates, self.skipped)
        self._in_backward, self._binding = in_backward, None

    def count_step(self) -> None:
        """For ``step_in_backward``: all parameters have had their update."""
        self._count, self._binding = adopted.Count(self.updates + 1, self.skipped), None

    def _read_anew(self) -> tuple[Binding, list[Any]]:
        """Another binding and its gradients. Raises TypeError or ValueError for those that cannot be read in place."""
        binding = self._bind()
        refused = list(binding.refused_gradients())
        known = {id(p) for _, p, _ in binding.others}
        for label, p, reason in refused:
            if self._other is None:
                raise (TypeError if "dtype" in reason else ValueError)(f"{label}: {reason}{_CURE}")
            self._other.take(p)
        if any(id(p) not in known for _, p, _ in refused):
            binding = self._bind()
        return binding, binding.slowly_read()

    def _follow(self) -> None:
        """Writes the values of schedules for this step into groups."""
        t, written = self.updates, self._written
        for i, (group, schedules) in enumerate(zip(self.param_groups, self._schedules, strict=True)):
            for key, schedule in schedules.items():
                if group[key] is not written.get((i, key), group[key]):
                    raise ValueError(f"group {i}: {key} follows a schedule and cannot be edited, got {group[key]!r}")
                group[key] = written[i, key] = adopted.value_at(schedule, t)

    def _bind(self) -> Binding:
        before = self._binding
        if before is not None:
            self._count = adopted.Count(before.engine.updates, before.engine.skipped)
        elsewhere = () if self._other is None else self._other.params
        self._binding = Binding(
            *(self.family, self.param_groups, self.state, self._around, self._copies, elsewhere, self._count, before)
        )
        return self._binding

    def _bound(self) -> Binding:
        return self._bind() if self._binding is None else self._binding

    # ---- what surrounds a step -------------------------------------------------------------------------------

    @property
    def updates(self) -> int:
        """Completed ``step()`` calls: the t of schedules."""
        return self._count.updates if self._binding is None else self._binding.engine.updates

    @property
    def skipped(self) -> int:
        """Steps skipped so far because a gradient was not finite."""
        return self._count.skipped if self._binding is None else self._binding.engine.skipped

    @property
    def report(self) -> Report:
        """What the latest step did; ``report.grad_norm`` is what ``clip_grad_norm_`` returned."""
        return Report() if self._binding is None else self._binding.engine.report

    @property
    def ema(self) -> list[Tensor] | None:
        """Averages of the parameters, in their order; None without the keyword ``ema``."""
        if self._around.ema is None:
            return None
        return [self.state[p][EMA] for p in self._bound().params]

    @contextmanager
    def _swapped(self) -> Any:
        binding = self._bind()
        try:
            with binding.engine.use_ema():
                torch.autograd.graph.increment_version(binding.params)
                yield
        finally:
            torch.autograd.graph.increment_version(binding.params)

    def use_ema(self) -> AbstractContextManager[None]:
        """``with optimizer.use_ema(): ...``: inside, parameters and averages have changed places, for an evaluation."""
        if self._around.ema is None:
            raise ValueError("use_ema: expected an optimizer made with ema=..., got one without")
        return self._swapped()

    def trial(self, closure: Callable[[], Any]) -> tuple[optim.Optimizer, Callable[[], Any]]:
        """For ``lrfast.find_lr``: the optimizer of lrfast that updates the parameters, and what it asks for loss and
        gradients. ``closure`` zeroes the gradients, runs backward and returns the loss."""
        binding = self._bind()
        binding.take_settings()

        def loss_and_grads() -> tuple[float, list[Any]]:
            torch.autograd.graph.increment_version(binding.params)
            with torch.enable_grad():
                loss = closure()
            return plain_number(loss), binding.slowly_read()

        return binding.engine, loss_and_grads

    # ---- checkpoints and copies ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As that of PyTorch's optimizer. Where a setting follows a schedule of lrfast, ``"updates"`` is in it, too."""
        saved = super().state_dict()
        if any(self._schedules):
            saved["updates"] = self.updates
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any], *, updates: int | None = None) -> None:
        """Load a ``state_dict``, also one of PyTorch's optimizer of this name, of any version; tensors are copied.

        Arrays are converted to the dtype of their parameter, as PyTorch does. ``updates``: the completed updates, where
        settings follow a schedule of lrfast and the dict does not say. Raises TypeError or ValueError before anything
        is changed: another optimizer, other shapes.
        """
        loading.load(self, self._loaded, super().load_state_dict, state_dict, updates)

    @property
    def schedules(self) -> tuple[Mapping[str, Any], ...]:
        """Per group, the settings that follow a schedule of lrfast; read-only."""
        return tuple(MappingProxyType(schedules) for schedules in self._schedules)

    def _loaded(self, updates: int) -> None:
        """After a state_dict: so many updates are complete."""
        self._count = adopted.Count(updates, self.skipped)

    def __getstate__(self) -> dict[str, Any]:
        count = adopted.Count(self.updates, self.skipped)
        own = ("_around", "_copies", "_other", "_schedules", "_default_schedules", "_step_supports_amp_scaling")
        return {**super().__getstate__(), **{name: self.__dict__[name] for name in own}, "_count": count}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if self.__dict__.get("_binding") is not None:
            self._count = adopted.Count(self.updates, self.skipped)
        super().__setstate__(state)
        self._binding, self._written = None, {}
        self.__dict__.setdefault("_in_backward", None)
        for group in self.param_groups:
            for key, mark in self.family.torch_twin.marks.items():
                group.setdefault(key, mark)
            for key, value in self.defaults.items():
                if isinstance(value, bool) or value is None or key in self.family.torch_twin.absent:
                    group.setdefault(key, value if value is None else type(value)())

    def _set_option(self, name: str, value: Any) -> None:
        """Takes over what surrounds a step from now on."""
        options = self._around.changed(name, value)
        if self._other is not None and options != Options():
            raise ValueError(f"{name}: expected none beside fallback=True, got {value!r}")
        if self._binding is not None:
            setattr(self._binding.engine, name, value)
        self._around = options

    # Attributes that may be set between steps.

    def _option(name: str, words: str) -> Any:  # noqa: N805
        def get(self: Self) -> Any:
            return getattr(self._around, name)

        return property(get, lambda self, value: self._set_option(name, value), doc=words)

    clip_norm = _option("clip_norm", "Largest norm of all gradients together. None: off.")
    clip_value = _option("clip_value", "Each gradient is limited to -clip_value .. clip_value. None: off.")
    nonfinite = _option("nonfinite", 'What a NaN or infinite gradient does: "propagate", "skip" or "raise".')
    zero_grads = _option("zero_grads", "Whether a step leaves zeros in the gradients, in the pass that reads them.")
    del _option

    @property
    def ema_decay(self) -> averages.Decay | None:
        """The decay of the averages, a number or a schedule; either may be assigned."""
        return self._around.ema

    @ema_decay.setter
    def ema_decay(self, value: averages.Decay) -> None:
        if self._around.ema is None:
            raise ValueError("ema_decay: expected an optimizer made with ema=..., got one without")
        self._set_option("ema_decay", value)

    @property
    def stats(self) -> Stats:
        """Statistics of the latest measured step, see ``lrfast.stats``; assign True, k, "norms" or False."""
        return self._bound().engine.stats

    @stats.setter
    def stats(self, value: bool | int | str) -> None:
        self._set_option("stats", value)


_CURE = "; with fallback=True the optimizer of PyTorch updates it"
