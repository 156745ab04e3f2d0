"""The machinery under every optimizer class: groups, schedules, state, one call into the plan per step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import averages, backend, checkpoint, form, further_keys, moved
from .buffers import Buffers, Group, Snapshot, State, average_array, state_array
from .commit import Call, at_once, copying, setting
from .form import Form
from .further_keys import NAMES
from .options import Options, StepOptions
from .settings import Settings
from .surroundings import Surroundings, recorder_of, recording

if TYPE_CHECKING:
    from . import archive

_TRIES = 100  # of a step, to find settings that nobody changes meanwhile
# A schedule or a setting may be code of the user, who may do anything in it.
_ANOTHER = (
    "step: the optimizer was made anew or got a group while a schedule or setting of this step was read; nothing was "
    "updated, call step() again"
)
_REBUILT = ("_settings", "_options", "_form", "_buffers", "_plan", "_recorder", "_scheduled", "state")


class Optimizer(Surroundings):
    """Base of all optimizers; use one of its subclasses.

    Attributes
    ----------
    param_groups
        List of dicts with ``"params"`` (a tuple of arrays) and the settings, plain numbers. They may be edited between
        steps: ``optimizer.param_groups[0]["lr"] = 1e-4``.
    schedules
        Per group, the settings that follow a schedule; read-only.
    state
        ``state[i]`` is the state of the i-th parameter across groups: live arrays under PyTorch's names, and
        ``"step"``, its completed updates.
    updates
        Completed ``step()`` calls, the t of every schedule.
    defaults
        Settings of groups that do not say otherwise.

    Parameters
    ----------
    params
        An array, a sequence of arrays or of pairs (name, array), a mapping name -> array, or a list of groups
        ``{"params": any of these, "lr": ...}``. C-contiguous arrays of float32, float64, float16, or bfloat16 (of
        ml_dtypes), which are updated in place; those of 16 bits, and their states, are computed in float32 and rounded.
        Tensors may differ in dtype and shape. Names, given for all or for none, stand in errors and checkpoints, and
        in their group as ``"param_names"``. Other keys of a group are kept and saved as they are.
    grads
        None, or gradients to bind: a bare array for a bare array, a mapping for a mapping, otherwise a flat sequence
        across all groups. Each has the shape of its parameter, and float64 where that has; otherwise any of the other
        dtypes. A None among them skips that tensor.

    clip_norm, clip_value, nonfinite, zero_grads, ema, ema_dtype, copy_to, master, uint16, stats
        Keywords of every optimizer for what surrounds the update and happens in the same pass. Order: gradient *
        grad_scale, sign (maximize), norm, finiteness, clip_value, clip_norm, coupled decay, update; then statistics,
        averages, copies, zeroing. All but ema, ema_dtype, copy_to, master and uint16 are attributes that may be changed
        between steps, too, and so is the decay, as ``ema_decay``.

        - ``clip_norm=c``: gradients of all groups are scaled by min(1, c / (norm + 1e-6)), norm over all of them as
          clip_value left them, ``report.limited_norm``.
        - ``clip_value=c``: each gradient is limited to -c .. c.
        - ``nonfinite="propagate"|"skip"|"raise"``: what a NaN or infinite gradient does, or one whose square is so
          where the optimizer keeps squares. A skipped step leaves parameters, states and counters alone (with
          zero_grads gradients become 0); "raise" is FloatingPointError.
        - ``zero_grads=True``: gradients are 0 after the step; they must be writable and not shared.
        - ``ema=decay``: averages ``optimizer.ema`` += (1 - decay) (parameter - average) after each update, of all
          parameters, with or without a gradient; ``with optimizer.use_ema():`` swaps them in. Part of ``state_dict``.
          They start as copies of the parameters (as in TensorFlow). The decay, a number in [0, 1), may follow a
          schedule d(t): ``schedules.ema_warmup(decay)``; ``schedules.equal_weight()``, the mean (PyTorch's
          AveragedModel); ``schedules.join([constant(0.0), constant(decay)], [n])``: copies during the first n updates
          (n=1 as in Keras 3, and in AveragedModel with get_ema_avg_fn).
        - ``ema_dtype="float64"``: averages of float32 parameters in float64. In float32 the average of a parameter that
          stays where it is stops 2^-24 / (1 - decay) of it short, at most: 6e-5 with a decay of 0.999, 6e-4 with
          0.9999, 6e-3 with 0.99999 (or the mean of 1e5 updates); in float64 1e-12 with 0.9999.
        - ``copy_to=arrays``: like params, of dtype float32, float16, bfloat16 (ml_dtypes) or uint16 (the bits of
          bfloat16); hold the rounded parameters from now on: after each update, of all parameters, after loading, and
          inside ``use_ema``, where they hold the averages. ``refresh_copies()`` after you wrote parameters yourself.
        - ``master="float32"|"split"``: parameters of 16 bits, and their states, are kept in float32 from step to step.
          "float32": in ``state[i]["master"]``, from which each step rounds the parameter; one that you have written
          yourself wins. "split", for bfloat16: in two halves, the parameter itself, which is the bfloat16 nearest to
          it (at exact ties the one away from zero), and ``state[i]["remainder"]``; the same bits in two bytes less per
          element. Call ``params_changed()`` after you wrote parameters yourself.
        - ``uint16="bfloat16"``: arrays of uint16 are the bits of bfloat16.
        - ``stats=True|k|"norms"``: statistics on every, or every k-th, update; see ``lrfast.stats``.

    Every number among the hyper-parameters may be a schedule, that is any callable s(t) of the completed updates t.

    Raises TypeError (not an array, wrong dtype) or ValueError (shape, strides, read-only, overlap, hyper-parameter
    out of range), always before anything is written.
    """

    # ---- construction ----------------------------------------------------------------------------------------

    state: tuple[State, ...]
    _form: Form

    def __init__(self, params: Any, grads: Any, options: StepOptions, **settings: Any) -> None:
        if not hasattr(type(self), "spec"):
            raise TypeError("Optimizer is a base class: use SGD, Adam, ...")
        checked = Options.of(options, type(self).__name__, settings)
        own = Settings(type(self), settings)
        labels: list[str] = []
        arrays: list[Any] = []
        items, item_labels, names = form.flatten("params", params)
        if not items:
            raise ValueError("params: expected at least one array, got none")
        if isinstance(params, Mapping) and "params" in params and not isinstance(params["params"], np.ndarray):
            raise TypeError("params: expected a list of groups, got a single group; put it into a list")
        if any(isinstance(item, dict) for item in items) and names is None:
            for group in items:
                _append_group(own, group, arrays, labels, 0)
        else:
            named = {} if names is None else {NAMES: further_keys.names(names, len(items), "params: ")}
            own.append(named, len(items), 0)
            arrays, labels = items, item_labels
        shape = Form.of(params, names if isinstance(params, Mapping) else None)
        count = len(arrays)
        copies = shape.in_order("copy_to", options.get("copy_to"), count)
        grads = shape.in_order("grads", grads, count)
        self._become(self._bound(own, checked, shape, Snapshot(arrays, labels, grads, copies, steps=[0] * count)))

    def _bound(self, settings: Settings, options: Options, shape: Form, bound: Snapshot) -> dict[str, Any]:
        """Checks all arrays, makes what is missing, and the plan: attributes of an optimizer that has all that."""
        settings.take_params(bound.params)
        settings.check_fit(bound.steps)
        options.check_fit(bound.params)
        groups, first = [], 0
        for known, rule in zip(settings.known, settings.rules, strict=True):
            stop = first + len(known["params"])
            groups.append(Group(first, stop, rule, self.spec))
            first = stop
        buffers = Buffers(
            groups,
            bound,
            lambda index, state: self.initial(state, settings.known[index]),
            averages=options.ema is not None,
            ema_dtype=options.ema_dtype,
            zero_grads=options.zero_grads,
            master=options.master,
            uint16=options.uint16,
        )
        settings.find_scheduled()
        counters = {"steps": bound.steps, "updates": bound.updates, "skipped": bound.skipped}
        plan = backend.Plan(buffers, settings.groups, settings.live, settings.is_scheduled, **counters)
        settings.tell(plan)
        recorder = recorder_of(options, buffers)
        at_once(recording(options, recorder, buffers, plan))
        return {
            "_settings": settings,
            "_options": options,
            "_form": shape,
            "_buffers": buffers,
            "_plan": plan,
            "_recorder": recorder,
            "_scheduled": settings.is_scheduled or callable(options.ema),
            "state": tuple(State(buffers, plan, i) for i in range(len(buffers.params))),
        }

    def _become(self, attributes: dict[str, Any]) -> None:
        """Takes over what ``_bound`` made; from an optimizer that is in use only while nobody uses it."""
        calls = [attributes["_settings"].publish(), *setting(self, attributes)]
        calls += attributes["_buffers"].refreshing_copies()
        plan = getattr(self, "_plan", None)
        if plan is None:
            at_once(calls)
        else:
            plan.held().run(at_once, calls)

    # ---- a step ----------------------------------------------------------------------------------------------

    def step(self, grads: Any = None, *, grad_scale: float = 1.0) -> None:
        """Update every parameter that has a gradient, in place.

        ``grads`` as in the constructor, in the order of the parameters; None where they were bound. Gradients are
        multiplied by ``grad_scale`` first, and only read unless ``zero_grads`` says otherwise. Raises TypeError or
        ValueError before anything is written, RuntimeError if another thread is in ``step()`` of this optimizer.
        """
        if grads is not None and not (type(grads) is list and self._form.takes_list):
            grads = self._form.in_order("grads", grads, len(self.state))
        plan = self._plan
        if self._scheduled:
            if callable(self._options.ema):
                self._follow_decay(plan, self._options.ema)
            self._settings.follow(plan)
            if self._plan is not plan:
                raise RuntimeError(_ANOTHER)
        if plan.step(grads, grad_scale):
            return
        for _ in range(_TRIES):
            if not self._take_edits():  # another thread was faster, or an interrupt left something half done
                self._settings.tell(plan)
                if callable(self._options.ema):
                    self._follow_decay(plan, self._options.ema)
                self._settings.follow(plan)
            if self._plan is not plan:
                raise RuntimeError(_ANOTHER)
            if plan.step(grads, grad_scale):
                return
        raise RuntimeError("step: expected settings that hold still, but each time that they were read they changed")

    def _follow_decay(self, plan: Any, decay: Callable[[int], Any]) -> None:
        """Tells a plan the decay of averages for its next update. Raises TypeError or ValueError."""
        t = plan.updates
        plan.set(None, {}, {"ema_decay": averages.decay_at(decay, t)}, t=t)

    def _take_edits(self) -> bool:
        """Checks what was edited since the last step, and tells the plan; whether there was anything."""
        calls: list[Call] = []
        for i, new in self._settings.edited():
            calls += self._settings.accepting(i, new, self._plan)
        at_once(calls)
        return bool(calls)

    # ---- groups and state ------------------------------------------------------------------------------------

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Settings of groups that do not say otherwise; not to be changed."""
        return MappingProxyType(self._settings.defaults)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Settings per group; see :class:`Optimizer`."""
        return self._settings.groups

    @property
    def schedules(self) -> tuple[Mapping[str, Any], ...]:
        """Per group, the settings that follow a schedule, as given to the constructor; read-only."""
        return tuple(MappingProxyType(schedules) for schedules in self._settings.schedules)

    def zero_grad(self) -> None:
        """Fill the bound gradients with 0. Raises ValueError if none are bound or one is read-only."""
        grads = self._buffers.grads
        if grads is None:
            raise ValueError("zero_grad: expected gradients bound at construction, got none")
        for i, grad in enumerate(grads):
            if grad is not None and not grad.flags.writeable:
                raise ValueError(f"{self._buffers.grad_label(i)}: expected a writable array, got a read-only one")
        at_once([copying(grad, 0) for grad in grads if grad is not None])

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Append a group ``{"params": ..., "lr": ..., ...}``; with bound gradients also ``"grads"``.

        Its tensors start at step 0; schedules see the ``updates`` of this optimizer.
        """
        if not isinstance(group, Mapping):
            raise TypeError(f"add_param_group: expected a group like {{'params': ..., 'lr': ...}}, got {group!r:.80}")
        group = dict(group)
        copies, grads = group.pop("copy_to", None), group.pop("grads", None)
        if not self._form.takes_list:
            raise ValueError("add_param_group: expected an optimizer made from a sequence or groups of parameters")
        self._plan.held().run(self._add_group, group, grads, copies)

    def _add_group(self, group: dict[str, Any], grads: Any, copies: Any) -> None:
        self._take_edits()
        bound, settings = self._snapshot(), self._settings.copy()
        bound.params, bound.labels = list(bound.params), list(bound.labels)
        _append_group(settings, group, bound.params, bound.labels, self.updates)
        bound.join(grads, copies)
        made = self._bound(settings, self._options, self._form, bound)
        at_once([settings.publish(), *setting(self, made), *made["_buffers"].refreshing_copies()])

    def state_dict(self) -> dict[str, Any]:
        """Copies of all states and settings, in PyTorch's layout, and ``"updates"``. Schedules are not in it.

        Raises TypeError or ValueError as ``step`` does where a setting was edited to what is none.
        """
        saved: dict[str, Any] = self._plan.held().run(self._save)
        return saved

    def _save(self) -> dict[str, Any]:
        self._take_edits()
        return checkpoint.write(self._shape(), self._plan.progress.tolist(), self.updates)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], *, updates: int | None = None, dtype: str | None = None
    ) -> None:
        """Copy a ``state_dict`` into the existing arrays; also one of the PyTorch optimizer of the same name.

        Where both have names, a parameter gets the state of its name. ``updates`` is the number of completed updates,
        in place of that in the dict; it must be given where schedules need it and the dict has none, as those of
        PyTorch's SGD. ``dtype="cast"`` converts arrays of another dtype; what becomes infinite is refused.

        Raises TypeError (dtype) or ValueError (another optimizer, names, number of tensors, shape, structural option,
        entries that are missing or contradict each other) before anything is written. Scheduled settings stay
        scheduled, and show their saved values until the next step. Statistics begin anew: the update before is not
        known.
        """
        self._plan.held().run(self._load, state_dict, updates, dtype)

    def _load(self, state_dict: Mapping[str, Any], updates: int | None, dtype: str | None) -> None:
        saved = checkpoint.read(state_dict, self._shape(), updates, dtype)
        settings, buffers, plan = self._settings, self._buffers, self._plan
        buffers.check_copies()
        calls: list[Call] = []
        for i, loaded in enumerate(saved.settings):
            calls += settings.accepting(i, loaded, plan)
        for index, group in enumerate(buffers.groups):
            for i in range(group.first, group.stop):
                initial = partial(self.initial, settings=saved.settings[index])
                calls += buffers.restoring(i, saved.arrays[i], initial, saved.updates)
                for name, number in buffers.carried_of(i).items():
                    calls.append(copying(number, saved.carried[i].get(name, self.initial(name, saved.settings[index]))))
        for own, average in zip(buffers.ema or [], saved.averages or [], strict=True):
            calls.append(copying(own, average))
        calls.append(copying(plan.progress, np.array(saved.steps, np.uint64)))
        calls += setting(plan, {"updates": saved.updates})
        recorder = recorder_of(self._options, buffers)
        calls += recording(self._options, recorder, buffers, plan)
        calls += buffers.refreshing_copies([array.get("master") for array in saved.arrays])
        at_once([*calls, *setting(self, {"_recorder": recorder})])

    def save(self, path: archive.Path) -> None:
        """Write the ``state_dict`` into a file, a ``.npz`` without pickle whatever its name.

        The parameters are not in it; save them beside it. It is written beside, flushed to the disk and moved into
        place, so that after a crash, a signal or a full disk the old file or the new one is there, whole; its
        permissions stay. Raises OSError, and TypeError for a further key of a group that a file cannot hold.
        """
        from . import archive  # with zipfile, which nobody waits for at import

        about = [{key: repr(schedule) for key, schedule in group.items()} for group in self._settings.schedules]
        archive.write(path, self.state_dict(), {"optimizer": type(self).__name__, "schedules": about})

    def load(self, path: archive.Path, *, dtype: str | None = None) -> None:
        """Copy what ``save`` wrote into the existing arrays, as ``load_state_dict`` does.

        All of the file is read and checked before anything is written. Raises OSError, ValueError for a damaged or
        foreign file, and what ``load_state_dict`` raises.
        """
        from . import archive

        self.load_state_dict(archive.read(path), dtype=dtype)

    def refresh_copies(self) -> None:
        """Round the parameters into ``copy_to`` now, where something else than a step has written them.

        A step, ``load_state_dict`` and ``use_ema`` do so themselves. Raises ValueError without the keyword ``copy_to``.
        """
        if self._buffers.copies is None:
            raise ValueError("refresh_copies: expected an optimizer made with copy_to=..., got one without")
        self._plan.held().run(self._refresh_copies)

    def _refresh_copies(self) -> None:
        self._buffers.check_params()
        self._buffers.check_copies()
        at_once(self._buffers.refreshing_copies())

    def _shape(self) -> checkpoint.Shape:
        self._settings.check_groups()
        return checkpoint.Shape(type(self).__name__, self._settings, self._buffers, self.torch_twin, self._scheduled)

    # ---- copies of the optimizer -----------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        held = self._plan.held()  # not while a step runs, or parameters and averages have changed places
        bound = held.run(self._snapshot)
        return {
            "attributes": {key: value for key, value in self.__dict__.items() if key not in _REBUILT},
            "defaults": self._settings.defaults,
            "groups": self._settings.live,
            "schedules": self._settings.schedules,
            "known": self._settings.known,
            "form": self._form,
            "options": self._options,
            "bound": bound,
            "whole": _Unmoved(held),
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        saved = moved.upgraded(saved)
        settings = Settings(type(self), saved["defaults"])
        for group, schedules, known in zip(saved["groups"], saved["schedules"], saved["known"], strict=True):
            if known is None:  # pickled by 0.1.0
                known = {**group, **settings.checked(group, f"group {len(settings.live)}: ")}
            settings.restore(group, schedules, known)
        bound: Snapshot = saved["bound"]
        states = [
            {name: state_array(param, array, slot, array.dtype) for slot, (name, array) in enumerate(arrays.items())}
            for param, arrays in zip(bound.params, bound.states, strict=True)
        ]
        ema = [average_array(param, average) for param, average in zip(bound.params, bound.ema, strict=False)]
        if isinstance(saved.get("whole"), _Unmoved):  # copy.copy hands over what was to be copied
            saved["whole"].check()
        made = self._bound(settings, saved["options"], saved["form"], replace(bound, states=states, ema=ema))
        self._become({**saved["attributes"], **made})

    def _snapshot(self) -> Snapshot:
        """What is bound, as it is and not copied."""
        x = self._buffers
        return Snapshot(
            params=x.params,
            labels=x.labels,
            grads=x.grads,
            copies=x.copies,
            ema=x.ema or [],
            states=x.states,
            steps=self._plan.progress.tolist(),
            carried=x.carried.tolist(),
            updates=self.updates,
            skipped=self.skipped,
        )

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for i, (group, schedules) in enumerate(zip(self._settings.live, self._settings.schedules, strict=True)):
            settings = ", ".join(f"{k}={schedules.get(k, v)}" for k, v in group.items() if k not in ("params", NAMES))
            lines.append(f"  group {i}: {len(group.get('params', ()))} tensors, {settings}")
        return "\n".join([*lines, ")"])


class _Unmoved:
    """The last part of an optimizer that is pickled or copied; it refuses where the optimizer was used meanwhile."""

    def __init__(self, held: Any) -> None:
        self.check = held.still

    def __reduce__(self) -> tuple[Any, ...]:
        self.check()
        return bool, ()


def _append_group(settings: Settings, group: Any, arrays: list[Any], labels: list[str], t: int) -> None:
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(f"params: expected groups like {{'params': ..., 'lr': ...}}, got {group!r:.80}")
    items, item_labels, names = form.flatten("params", group["params"])
    own = {key: value for key, value in group.items() if key != "params"}
    if names is not None:
        own[NAMES] = names
    if NAMES in own:
        own[NAMES] = further_keys.names(own[NAMES], len(items), f"group {len(settings.live)}: ")
        item_labels = [f"params[{name!r}]" for name in own[NAMES]]
    settings.append(own, len(items), t)
    taken = set(labels)
    for i, label in enumerate(item_labels, start=len(arrays)):
        labels.append(label if NAMES in own and label not in taken else f"params[{i}]")
    arrays += items
