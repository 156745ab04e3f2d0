"""The plan in NumPy: steps by the specification, where there is no extension or ``"numpy"`` was asked for.

The counterpart of ``_core.pyx`` and, phase by phase, of ``src_c/step.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from . import checks, commit, fit, formats, specification, stages
from .arithmetic import Array
from .buffers import Buffers, Group
from .commit import Call, Lending, at_once, copying, in_one, setting
from .norm import Norm
from .options import Options, Report
from .recorder import Recorder

Run = Callable[[int, int], None]
"""run(part, parts): one part of a phase; each of 0 .. parts - 1 exactly once, on any threads."""


class Bound(NamedTuple):
    """What a plan is made of.

    ``settings`` per group, ``decay`` of averages, ``progress`` of each tensor, ``updates`` of the optimizer.
    """

    buffers: Buffers
    settings: Sequence[Mapping[str, Any]]
    options: Options
    decay: float
    recorder: Recorder | None
    progress: Array
    updates: int


class Job:
    """A step in flight: validated at once, then phases over tensors, then what it came to.

    It writes into memory of its own. Afterwards ``calls`` are what writes the result, ``report`` tells what happened;
    ``failure()`` is what nonfinite="raise" raises; not made before, since an exception keeps what it passed.
    """

    def __init__(self, bound: Bound, grads: Sequence[Array | None] | None, grad_scale: float) -> None:
        buffers, settings, options, self.decay, recorder, self.progress, updates = bound
        self.grad_scale = checks.number("grad_scale", grad_scale)
        checks.another_update(updates)
        self.grads = list(buffers.choose_grads(grads))  # whatever happens to the caller's list meanwhile
        buffers.check_params()
        buffers.check_copies()
        buffers.check_grads(self.grads, options.zero_grads)
        buffers.check_overlap(self.grads, options.zero_grads)
        self.buffers, self.settings, self.options = buffers, list(settings), options
        self.steps = self.progress.tolist()
        fit.step(buffers, self.settings, self.grads, self.steps, self.grad_scale)
        self.carried = buffers.carried.copy()
        self.updates = updates
        self.report = Report()
        self.failure: Callable[[], FloatingPointError] | None = None
        self._recorder = recorder if recorder is not None and recorder.wanted(updates) else None
        self._target, self._recorded = None, dict[str, Any]()
        if self._recorder is not None:
            copies = [dict(group) for group in self.settings]
            self._target, self._recorded = self._recorder.prepare(updates, self.grad_scale, copies)
        count = len(buffers.params)
        self.calls: list[Call] = []
        self._results: list[list[Call]] = [[] for _ in range(count)]
        self._decoded = [None if grad is None else formats.decode(grad) for grad in self.grads]
        self._norm = Norm(options, self._decoded, self.grad_scale)
        self._overflowed = [0] * count
        self.completed = False
        """Whether everything was updated."""

    def phases(self) -> Iterator[Run]:
        """The phases, one after the other; the caller runs all parts of one before it asks for the next."""
        if self._norm.is_needed:
            yield self._add_norms
            while self._norm.finish():
                yield self._add_norms
            self._judge_norm()
            if self.report.skipped or self.failure:
                if self.report.skipped and self.options.zero_grads:  # or a sum of gradients would stay NaN for ever
                    self.calls = [copying(grad, 0) for grad in self.grads if grad is not None]
                return
        if self._target is not None:
            self._target[:] = 0
        yield self._update
        self._finish()

    def _tensors(self, part: int, parts: int) -> Iterator[tuple[int, Group, int, Array | None]]:
        """(index of the group, group, index of the tensor, the numbers of its gradient) of a part."""
        for index, group in enumerate(self.buffers.groups):
            for i in range(group.first, group.stop):
                if i % parts == part:
                    yield index, group, i, self._decoded[i]

    # ---- norm ------------------------------------------------------------------------------------------------

    def _add_norms(self, part: int, parts: int) -> None:
        with np.errstate(all="ignore"):
            for _, _, i, grad in self._tensors(part, parts):
                if grad is not None:
                    self._norm.add(i, grad)

    def _judge_norm(self) -> None:
        norm, options = self._norm, self.options
        self.report = Report(norm.grad_norm, norm.clip_factor, limited_norm=norm.limited_norm)
        if options.nonfinite == "propagate":
            return
        failure: Callable[[], FloatingPointError] | None = None
        bad = [i for i, count in enumerate(norm.nonfinite) if count]
        if bad:
            failure = partial(self.buffers.not_finite, bad[0], sum(norm.nonfinite))
        elif (large := self._first_large()) is not None:
            i, grad = large
            failure = partial(
                self.buffers.square_not_finite, i, grad, self.grad_scale, options.clip_value, norm.clip_factor
            )
        if options.nonfinite == "raise":
            self.failure = failure
        elif failure is not None:
            self.report = replace(self.report, skipped=True)

    def _first_large(self) -> tuple[int, Array] | None:
        """The first gradient whose square is not finite although the rule keeps squares."""
        with np.errstate(all="ignore"):
            for _, group, i, grad in self._tensors(0, 1):
                if grad is not None and group.rule.squares and not self._norm.has_finite_square(grad):
                    return i, grad
        return None

    # ---- update ----------------------------------------------------------------------------------------------

    def _update(self, part: int, parts: int) -> None:
        with np.errstate(all="ignore"):
            for index, group, i, grad in self._tensors(part, parts):
                numbers, calls = self.buffers.value(i), list[Call]()
                if grad is not None:
                    numbers, calls = self._update_tensor(group, self.settings[index], i, numbers, grad)
                self._results[i] = [*calls, *self._follow(i, numbers)]

    def _update_tensor(
        self, group: Group, settings: Mapping[str, Any], i: int, param: Array, grad: Array
    ) -> tuple[Array, list[Call]]:
        """The update of tensor i: its new numbers, and what writes them and all but what follows it."""
        buffers, options = self.buffers, self.options
        own, names = buffers.states[i], group.rule.state_names
        used, scale = self._norm.used(grad)
        new, states = param.copy(), {name: np.array(formats.decode(own[name])) for name in names}
        step = self.steps[i] + 1
        carried = buffers.carried_of(i, self.carried)
        moved = specification.update(group.spec, new, used, states | carried, step, scale, settings)
        squares = group.rule.squares
        if options.nonfinite != "propagate" and squares is not None:
            after = formats.decode(formats.encode(states[squares], own[squares].dtype))
            self._overflowed[i] = stages.count_overflowed(formats.decode(own[squares]), after)
        kept, masters = formats.stored(new, buffers.params[i], own)
        encoded = {name: formats.encode(state, own[name].dtype) for name, state in states.items()} | masters
        calls = [copying(buffers.params[i], kept), *(copying(own[name], state) for name, state in encoded.items())]
        if self._target is not None and self._recorder is not None:
            last = buffers.last[i] if buffers.last else None
            trace = stages.Trace(moved.update, moved.denominator, last)
            if self._recorder.norms:
                stages.gather_norms(self._target[i], grad, param, trace)
            else:
                signed = -self.grad_scale if settings["maximize"] else self.grad_scale
                eps = settings.get("eps", 0.0)
                dtype = param.dtype if masters else kept.dtype
                stages.gather(self._target[i], grad, param, trace, signed, moved.rate, eps, dtype)
            if last is not None and self._recorder.is_followed(self.updates):
                calls.append(copying(last, moved.update))
        if options.zero_grads:
            calls += [copying(own_grad, 0) for own_grad in self.grads[i : i + 1] if own_grad is not None]
        return new if masters else formats.decode(kept), calls

    def _follow(self, i: int, param: Array) -> list[Call]:
        """What follows the numbers of tensor i, whether they were updated or not."""
        buffers, calls = self.buffers, []
        if buffers.ema:
            average = buffers.ema[i].copy()
            stages.average(average, param, self.decay)
            calls.append(copying(buffers.ema[i], average))
        if buffers.copies:
            copied = np.empty_like(buffers.copies[i])
            stages.copy_into(copied, param)
            calls.append(copying(buffers.copies[i], copied))
        return calls

    def _finish(self) -> None:
        updated = [grad is not None for grad in self.grads]
        steps = np.array([step + one for step, one in zip(self.steps, updated, strict=True)], np.uint64)
        overflowed = sum(self._overflowed)
        self.report = replace(self.report, updated=sum(updated), overflowed=overflowed)
        self.completed = True
        if overflowed and self.options.nonfinite == "raise":
            first = next(i for i, count in enumerate(self._overflowed) if count)
            self.failure = partial(self.buffers.overflowed, first, overflowed)
        self.calls = [call for calls in self._results for call in calls]
        self.calls += [copying(self.buffers.carried, self.carried), copying(self.progress, steps)]
        self.calls += [*setting(self._recorder, self._recorded)]


def run_step(bound: Bound, grads: Sequence[Array | None] | None, grad_scale: float) -> Job:
    """A whole step on the calling thread, all but the writing of its result."""
    job = Job(bound, grads, grad_scale)
    for run in job.phases():
        run(0, 1)
    return job


class Place:
    """Somebody's place in the line for a plan: who is gone has none, however he went."""

    def __init__(self, reason: str) -> None:
        self.reason, self.forks, self.turn = reason, commit.forks(), 0


class Held:
    """A plan that is kept from others, in a with statement or for a call."""

    def __init__(self, plan: Plan, reason: str, lending: Lending | None) -> None:
        self._plan, self._place = plan, Place(reason)
        self._block = _keep(plan, self._place, lending or (lambda: ((), ())))

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns, called while the plan is kept."""
        with self:
            return function(*arguments)

    def still(self) -> None:
        """Raises RuntimeError if anybody has had the plan since."""
        if self._plan._turns != self._place.turn:
            raise RuntimeError(commit.MOVED)

    def __enter__(self) -> None:
        next(self._block)

    def __exit__(self, *error: object) -> None:
        self._block.close()


def _keep(plan: Plan, place: Place, lending: Lending) -> Generator[None, None, None]:
    """The first in line has the plan. A generator: it comes to its end also where it is forgotten.

    The way in and the way out are one call of C each, and there is a second for the way out, which finds nothing to do
    where the first was made.
    """
    line, here = plan._line, ref(place)
    undo: list[list[Call]] = []
    leave, again = (in_one(chain(chain.from_iterable(undo), [partial(line.pop, here, None)])) for _ in range(2))
    try:
        try:
            line[here] = None
            first = next(other for there in [*line] if (other := there()) is not None)
            if first is not place:
                raise RuntimeError(commit.FORKED if first.forks != commit.forks() else first.reason)
            plan._turns += 1
            place.turn = plan._turns
            before, after = lending()
            inside = partial(undo.append, [*chain.from_iterable(after), undo.clear])
            in_one([*chain.from_iterable(before), inside])()
            yield
        finally:
            leave()
    finally:
        again()


class Plan:
    """Checked buffers, the numbers of their groups, and steps over all of them; ``_core.Plan`` without C.

    ``live`` are the dicts of settings: where one says something else than when its numbers were ``set``, a step writes
    nothing and says so, and it refuses a list ``groups`` that no longer holds just them. With ``scheduled`` numbers are
    set for one update at a time.
    """

    def __init__(
        self,
        buffers: Buffers,
        groups: list[dict[str, Any]],
        live: list[dict[str, Any]],
        scheduled: bool,
        steps: Sequence[int],
        updates: int,
        skipped: int,
    ) -> None:
        self.progress = np.array(steps, np.uint64)
        """Completed updates of each tensor; may be written."""
        self.updates, self.skipped = updates, skipped
        self.report = Report()
        self._buffers, self._groups, self._live = buffers, groups, list(live)
        self._known: list[dict[str, Any]] = [{} for _ in live]
        self._scheduled, self._set_at = scheduled, -1
        self.configure(Options(), None)
        self._line: dict[ref[Place], None] = {}  # who wants it, in order
        self._turns = 0

    def set(
        self,
        index: int | None,
        settings: Mapping[str, Any],
        numbers: Mapping[str, float],
        flags: int | None = None,
        t: int | None = None,
    ) -> None:
        """Takes over the checked settings of a group, of which ``numbers`` have changed.

        With ``t`` they are those of schedules after t updates, and good for the next one alone. Index None: a number of
        the options that follows a schedule, ``ema_decay``.
        """
        if index is None:
            if callable(self._options.ema) and t is not None:  # nobody has made it a number meanwhile
                self._decay, self._decay_at = numbers["ema_decay"], t
            return
        self._known[index] = dict(settings)
        if t is not None:
            self._set_at = t

    def configure(self, options: Options, recorder: Recorder | None) -> None:
        """Takes over options, and buffers that come or go with them."""
        self._options, self._recorder = options, recorder
        self._decay = options.ema if isinstance(options.ema, float) else 0.0
        self._decay_at = -1

    def held(self, reason: str = commit.STEPPING, lending: Lending | None = None) -> Held:
        """``with plan.held(): ...`` or ``plan.held().run(function, ...)``: meanwhile, steps and all others that want to
        hold the plan get a RuntimeError that says ``reason``.

        ``lending()``, called when nobody else has the plan, prepares two lists of stages: they are made on the way in,
        and on the way out, whatever happens.
        """
        return Held(self, reason, lending)

    def step(self, grads: Sequence[Array | None] | None, grad_scale: float) -> bool:
        """One update of every tensor that has a gradient; grads None: the bound ones.

        False: a setting was edited or belongs to another update; nothing was written.
        """
        done: bool = self.held().run(self._step, grads, grad_scale)
        return done

    def _step(self, grads: Sequence[Array | None] | None, grad_scale: float) -> bool:
        if not self._is_current():
            return False
        self._finish(run_step(self._bound(), grads, grad_scale))
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
            self._finish(job)

    def _bound(self) -> Bound:
        x = self
        return Bound(x._buffers, x._known, x._options, x._decay, x._recorder, x.progress, x.updates)

    def _finish(self, job: Job) -> None:
        """Writes what a step came to, and counts it."""
        counted = {"updates": self.updates + job.completed, "skipped": self.skipped + job.report.skipped}
        at_once([*job.calls, *setting(self, {"report": job.report, **counted})])
        if job.failure is not None:
            raise job.failure()

    def _is_current(self) -> bool:
        checks.groups(self._groups, self._live)
        for group, known in zip(self._live, self._known, strict=True):
            if not checks.same_objects(group, known):
                return False
        if callable(self._options.ema) and self._decay_at != self.updates:
            return False
        return not self._scheduled or self._set_at == self.updates
