"""The plan in NumPy: steps by the specification, where there is no extension or ``"numpy"`` was asked for.

The counterpart of ``_core.pyx`` and, phase by phase, of ``src_c/step.c``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from . import checks, specification, stages
from .arithmetic import Array
from .buffers import Buffers, Group, zero
from .interrupt import interrupt_deferred
from .options import Options, Report
from .recorder import Recorder

Run = Callable[[int, int], None]
"""run(part, parts): one part of a phase; each of 0 .. parts - 1 exactly once, on any threads."""


class Bound(NamedTuple):
    """What a plan is made of: ``settings`` per group, ``progress`` of each tensor, ``updates`` of the optimizer."""

    buffers: Buffers
    settings: Sequence[Mapping[str, Any]]
    options: Options
    recorder: Recorder | None
    progress: Array
    updates: int


class Job:
    """A step in flight: validated at once, then phases over tensors, then what it came to.

    Afterwards ``report`` tells what happened, and ``progress`` counts a completed one; ``failure`` is what
    nonfinite="raise" raises.
    """

    def __init__(self, bound: Bound, grads: Sequence[Array | None] | None, grad_scale: float) -> None:
        buffers, settings, options, recorder, self.progress, updates = bound
        self.grad_scale = checks.number("grad_scale", grad_scale)
        self.grads = list(buffers.choose_grads(grads))  # whatever happens to the caller's list meanwhile
        buffers.check_params()
        buffers.check_copies()
        buffers.check_grads(self.grads, options.zero_grads)
        buffers.check_overlap(self.grads, options.zero_grads)
        self.buffers, self.settings, self.options = buffers, list(settings), options
        self.steps = self.progress.tolist()
        self.updates = updates
        self.report = Report()
        self.failure: FloatingPointError | None = None
        self._recorder = recorder if recorder is not None and recorder.wanted(updates) else None
        self._target = None if self._recorder is None else self._recorder.target(updates)
        count = len(buffers.params)
        self._sums, self._clamped_sums, self._nonfinite = [0.0] * count, [0.0] * count, [0] * count

    def phases(self) -> Iterator[Run]:
        """The phases, one after the other; the caller runs all parts of one before it asks for the next."""
        if self.options.clip_norm is not None or self.options.nonfinite != "propagate":
            yield self._norm
            self._finish_norm()
            if self.report.skipped or self.failure:
                if self.report.skipped and self.options.zero_grads:
                    zero(self.grads)
                return
        if self._target is not None:
            self._target[:] = 0
        yield self._update
        self._finish()

    def _tensors(self, part: int, parts: int) -> Iterator[tuple[int, Group, int, Array]]:
        """(index of the group, group, index of the tensor, gradient) of a part."""
        for index, group in enumerate(self.buffers.groups):
            for i in range(group.first, group.stop):
                grad = self.grads[i]
                if grad is not None and i % parts == part:
                    yield index, group, i, grad

    # ---- norm ------------------------------------------------------------------------------------------------

    def _norm(self, part: int, parts: int) -> None:
        options = self.options
        with np.errstate(all="ignore"):
            for _, _, i, grad in self._tensors(part, parts):
                self._sums[i] = stages.sum_products(grad, grad)
                if options.nonfinite != "propagate":
                    self._nonfinite[i] = stages.count_nonfinite(grad, self.grad_scale)
                if options.clip_norm is not None and options.clip_value is not None:
                    limited = stages.clamp(grad, self.grad_scale, options.clip_value)
                    self._clamped_sums[i] = stages.sum_products(limited, limited)

    def _finish_norm(self) -> None:
        options = self.options
        norm = stages.global_norm(self._sums, self.grad_scale)
        bad = [i for i, count in enumerate(self._nonfinite) if count]
        if bad and options.nonfinite == "raise":
            self.report = Report(norm)
            self.failure = self.buffers.not_finite(bad[0], sum(self._nonfinite))
        elif bad:
            self.report = Report(norm, skipped=True)
        else:
            factor = 1.0
            if options.clip_norm is not None:
                clipped = norm if options.clip_value is None else stages.global_norm(self._clamped_sums, 1.0)
                factor = stages.clip_factor(clipped, options.clip_norm)
            self.report = Report(norm, factor)

    # ---- update ----------------------------------------------------------------------------------------------

    def _update(self, part: int, parts: int) -> None:
        with np.errstate(all="ignore"):
            for index, group, i, grad in self._tensors(part, parts):
                self._update_tensor(group, self.settings[index], i, grad)

    def _update_tensor(self, group: Group, settings: Mapping[str, Any], i: int, grad: Array) -> None:
        """The update of tensor i and its stages."""
        buffers, options = self.buffers, self.options
        param = buffers.params[i]
        used, scale = grad, self.grad_scale * self.report.clip_factor
        if options.clip_value is not None:
            used, scale = stages.clamp(grad, self.grad_scale, options.clip_value), self.report.clip_factor
        before = param.copy() if self._target is not None else None
        step = self.steps[i] + 1
        moved = specification.update(group.spec, param, used, buffers.states[i], step, scale, settings)
        if self._target is not None and self._recorder is not None and before is not None:
            last = buffers.last[i] if buffers.last else None
            trace = stages.Trace(moved.update, moved.denominator, last)
            if self._recorder.norms:
                stages.gather_norms(self._target[i], grad, before, trace)
            else:
                signed = -self.grad_scale if settings["maximize"] else self.grad_scale
                eps = settings.get("eps", 0.0)
                stages.gather(self._target[i], grad, before, trace, signed, moved.rate, eps)
            if last is not None and self._recorder.is_followed(self.updates):
                last[...] = moved.update
        if buffers.ema and options.ema is not None:
            stages.average(buffers.ema[i], param, options.ema)
        if buffers.copies:
            stages.copy_into(buffers.copies[i], param, buffers.copy_dtypes[i])
        if options.zero_grads:
            grad.fill(0)

    def _finish(self) -> None:
        updated = [grad is not None for grad in self.grads]
        self.progress[:] = [step + one for step, one in zip(self.steps, updated, strict=True)]
        self.report = Report(self.report.grad_norm, self.report.clip_factor, False, sum(updated))
        if self._recorder is not None:
            lrs = [settings["lr"] for settings in self.settings]
            self._recorder.commit(self.updates + 1, self.grad_scale, lrs)

    @property
    def completed(self) -> bool:
        """Whether everything was updated."""
        return self.failure is None and not self.report.skipped


def run_step(
    bound: Bound, grads: Sequence[Array | None] | None, grad_scale: float, commit: Callable[[Job], None]
) -> None:
    """One whole step on the calling thread, and ``commit``; Ctrl-C waits for both."""
    with interrupt_deferred():
        job = Job(bound, grads, grad_scale)
        for run in job.phases():
            run(0, 1)
        commit(job)


class Plan:
    """Checked buffers, the numbers of their groups, and steps over all of them; ``_core.Plan`` without C.

    ``groups`` are the live dicts of settings: where one says something else than when its numbers were ``set``, a step
    writes nothing and says so. With ``scheduled`` numbers are set for one update at a time.
    """

    def __init__(
        self,
        buffers: Buffers,
        groups: list[dict[str, Any]],
        scheduled: bool,
        steps: Sequence[int],
        updates: int,
        skipped: int,
    ) -> None:
        self.progress = np.array(steps, np.uint64)
        """Completed updates of each tensor; may be written."""
        self.updates, self.skipped = updates, skipped
        self.report = Report()
        self._buffers, self._groups, self._live = buffers, groups, list(groups)
        self._known: list[dict[str, Any]] = [{} for _ in groups]
        self._scheduled, self._set_at = scheduled, -1
        self._options = Options()
        self._recorder: Recorder | None = None
        self._lock, self._reason = threading.Lock(), checks.STEPPING

    def set(
        self,
        index: int,
        settings: Mapping[str, Any],
        numbers: Mapping[str, float],
        flags: int | None = None,
        t: int | None = None,
    ) -> None:
        """Takes over the checked settings of a group, of which ``numbers`` have changed.

        With ``t`` they are those of schedules after t updates, and good for the next one alone.
        """
        self._known[index] = dict(settings)
        if t is not None:
            self._set_at = t

    def configure(self, options: Options, recorder: Recorder | None) -> None:
        """Takes over options, and buffers that come or go with them."""
        self._options, self._recorder = options, recorder

    def held(self, reason: str = checks.STEPPING) -> AbstractContextManager[Any]:
        """Inside, steps and all others that want to hold the plan get a RuntimeError that says ``reason``.

        Two threads that ask in the same instant go one after the other.
        """
        if self._lock.locked():
            raise RuntimeError(self._reason)
        self._reason = reason
        return self._lock  # taken and freed in C: no interrupt comes between the two

    def step(self, grads: Sequence[Array | None] | None, grad_scale: float) -> bool:
        """One update of every tensor that has a gradient; grads None: the bound ones.

        False: a setting was edited or belongs to another update; nothing was written.
        """
        with self.held():
            if not self._is_current():
                return False
            run_step(self._bound(), grads, grad_scale, self._commit)
            return True

    def phases(self, grads: Sequence[Array | None] | None, grad_scale: float) -> Iterator[Run]:
        """The same step on the caller's threads: phases, of which all parts are run before the next is asked for.

        Raises RuntimeError where ``step`` would return False. Leaving early is possible before the last phase begins.
        """
        with self.held():
            if not self._is_current():
                raise RuntimeError("phases: settings were edited since they were set")
            job = Job(self._bound(), grads, grad_scale)
            yield from job.phases()
            self._commit(job)

    def _bound(self) -> Bound:
        return Bound(self._buffers, self._known, self._options, self._recorder, self.progress, self.updates)

    def _commit(self, job: Job) -> None:
        self.report = job.report
        self.skipped += job.report.skipped
        self.updates += job.completed
        if job.failure is not None:
            raise job.failure

    def _is_current(self) -> bool:
        checks.groups(self._groups, self._live)
        for group, known in zip(self._live, self._known, strict=True):
            if not checks.same_objects(group, known):
                return False
        return not self._scheduled or self._set_at == self.updates
