"""The contract of the two plans, in C and in NumPy: the same names, one direction, phases on threads, held safely."""

from __future__ import annotations

import ast
import inspect
import linecache
import pickle
import re
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import lrfast
from lrfast import schedules
from lrfast._engine import backend, numpy_plan

from arrays import make_grads, make_params, same_bits
from toolchain import ROOT

CONTRACT = {"set", "step", "configure", "held", "progress", "report", "skipped", "phases"}
ENGINE = str(Path(numpy_plan.__file__).parent)
PLANS = [pytest.param(backend.Plan, id="compiled"), pytest.param(numpy_plan.Plan, id="numpy")]


@pytest.fixture(params=PLANS)
def plan_class(request, monkeypatch):
    """Optimizers are bound to this plan."""
    monkeypatch.setattr(backend, "Plan", request.param)
    return request.param


def adam(n=5000, **options):
    return lrfast.Adam([make_params(n, np.float32), make_params(70, np.float64)], **options)


def grads(seed=0, n=5000):
    return [make_grads(n, np.float32, seed), make_grads(70, np.float64, seed)]


# ---- the same names -------------------------------------------------------------------------------------------


def test_both_plans_have_the_eight_names_and_updates():
    for plan in (backend.Plan, numpy_plan.Plan):
        optimizer_plan = plan_of(plan)
        public = {name for name in dir(optimizer_plan) if not name.startswith("_")}
        assert public >= CONTRACT
        assert public - CONTRACT == {"updates"}


def plan_of(plan):
    kept, backend.Plan = backend.Plan, plan
    try:
        return adam()._plan
    finally:
        backend.Plan = kept


def test_signatures_are_the_same():
    """In C, as it is compiled and as its stub says, and in NumPy."""
    text = (ROOT / "lrfast/_engine/_core.pyx").read_text(encoding="utf-8").partition("cdef class Plan:")[2]
    stub = ast.parse((ROOT / "lrfast/_engine/_core.pyi").read_text(encoding="utf-8"))
    (declared,) = (node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "Plan")
    methods = {
        node.name: node for node in declared.body if isinstance(node, ast.FunctionDef) and not node.decorator_list
    }
    for name in ("__init__", "set", "configure", "held", "step", "phases"):
        found = re.search(rf"^    def {name.replace('__init__', '__cinit__')}\((.*?)\):$", text, re.MULTILINE)[1]
        compiled = [re.split(r"[ =]", argument.partition("=")[0].strip())[-1] for argument in found.split(",")]
        expected = list(inspect.signature(getattr(numpy_plan.Plan, name)).parameters)
        assert compiled == expected, name
        assert [argument.arg for argument in methods[name].args.args] == expected, name


# ---- one direction --------------------------------------------------------------------------------------------


def test_an_edited_setting_is_said_and_nothing_is_written(plan_class):
    optimizer = adam()
    plan, before = optimizer._plan, optimizer.param_groups[0]["params"][0].copy()
    optimizer.param_groups[0]["lr"] = 0.5
    assert plan.step(grads(), 1.0) is False
    assert same_bits(before, optimizer.param_groups[0]["params"][0])
    assert optimizer.updates == 0
    optimizer.step(grads())
    assert optimizer.updates == 1
    assert plan.step(grads(1), 1.0) is True
    assert optimizer.updates == plan.updates == 2


def test_numbers_of_a_schedule_are_good_for_one_update(plan_class):
    optimizer = adam(lr=schedules.linear(0.1, 0.0, 10))
    plan = optimizer._plan
    assert plan.step(grads(), 1.0) is False
    optimizer.step(grads())
    assert plan.step(grads(), 1.0) is False


def test_a_decay_of_a_schedule_is_good_for_one_update(plan_class):
    optimizer = adam(ema=schedules.equal_weight())
    plan = optimizer._plan
    assert plan.step(grads(), 1.0) is False
    optimizer.step(grads())
    assert plan.step(grads(), 1.0) is False
    plan.set(None, {}, {"ema_decay": 0.5}, t=1)
    assert plan.step(grads(), 1.0) is True
    optimizer.ema_decay = 0.25
    plan.set(None, {}, {"ema_decay": 0.0}, t=2)  # comes too late
    before = optimizer.ema[1].copy()
    assert plan.step([None, None], 1.0) is True
    param = optimizer.param_groups[0]["params"][1]
    with np.errstate(all="ignore"):
        assert same_bits(optimizer.ema[1], param - 0.25 * (param - before))


def test_a_schedule_is_asked_once_per_step_also_when_settings_are_edited(plan_class):
    asked = []
    optimizer = adam(lr=lambda t: asked.append(t) or 0.1)
    asked.clear()
    for t in range(3):
        optimizer.param_groups[0]["eps"] = 1e-8 * (t + 2)
        optimizer.step(grads(t))
    assert asked == [0, 1, 2]


def test_progress_is_live(plan_class):
    optimizer = adam()
    optimizer.step([grads()[0], None])
    assert optimizer._plan.progress.tolist() == [1, 0]
    optimizer._plan.progress[1] = 2**40
    assert optimizer.state[1]["step"] == 2**40


# ---- phases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 3, 7])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1, "stats": True, "ema": 0.9, "nonfinite": "skip"}])
def test_phases_on_threads_give_the_bits_of_step(plan_class, parts, options):
    whole, phased = adam(**options), adam(**options)
    for t in range(3):
        gradients = [np.nan_to_num(g, nan=0.5, posinf=1.0, neginf=-1.0) * 1e-3 for g in grads(t)]
        whole.step(gradients)
        for run in phased._plan.phases(gradients, 1.0):
            threads = [threading.Thread(target=run, args=(part, parts)) for part in range(parts)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert phased.updates == whole.updates == 3
    for mine, its in zip(*(o.state_dict()["state"].values() for o in (phased, whole)), strict=True):
        assert all(same_bits(np.asarray(mine[k], np.float64), np.asarray(its[k], np.float64)) for k in mine)
    for mine, its in zip(phased.param_groups[0]["params"], whole.param_groups[0]["params"], strict=True):
        assert same_bits(mine, its)
    assert phased.report == whole.report or np.isnan(phased.report.grad_norm)
    assert len(phased.stats) == len(whole.stats)


def test_phases_that_are_left_early_change_nothing_and_free_the_plan(plan_class):
    optimizer = adam(clip_norm=1.0)
    before = optimizer.param_groups[0]["params"][0].copy()
    phases = optimizer._plan.phases(grads(), 1.0)
    next(phases)(0, 1)
    with pytest.raises(RuntimeError, match="already running"):
        optimizer.step(grads())
    phases.close()
    assert same_bits(before, optimizer.param_groups[0]["params"][0])
    optimizer.step(grads())
    assert optimizer.updates == 1


# ---- held -----------------------------------------------------------------------------------------------------


def test_a_held_plan_refuses_with_its_reason(plan_class):
    optimizer = adam(ema=0.9)
    with optimizer._plan.held("because"):
        for action in (lambda: optimizer.step(grads()), optimizer.state_dict, lambda: pickle.dumps(optimizer)):
            with pytest.raises(RuntimeError, match="because"):
                action()
    optimizer.step(grads())
    with optimizer._plan.held(), pytest.raises(RuntimeError, match="already running"):
        optimizer.step(grads())


def test_an_error_inside_frees_the_plan(plan_class):
    optimizer = adam()
    with suppress(ZeroDivisionError), optimizer._plan.held():
        1 / 0  # noqa: B018
    optimizer.step(grads())


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, as a test sends it."""


def interrupted_at(line, action):
    """Runs action; Ctrl-C comes before the n-th line of the engine, or waits as it would. Whether it came.

    A tracer also sees ``try:``, the head of a loop before its first pass, and a with statement when it is left, before
    its end is called: no signal comes there, because Python looks for them at calls and backward jumps.
    """
    count, sent = 0, 1 << 30
    entered = set()

    def trace(frame, event, argument):
        nonlocal count, sent
        if not frame.f_code.co_filename.startswith(ENGINE):
            return None if event == "call" else trace
        if event == "line":
            place = (id(frame), frame.f_lineno)
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            again = place in entered
            entered.add(place)
            if text == "try:" or (text.startswith("with ") and again) or (text.startswith("while ") and not again):
                return trace
            count += 1
            if line <= count < sent and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                sent = 0
                raise Interrupted
        return trace

    sys.settrace(trace)
    try:
        action()
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
    return False


def averages(optimizer):
    with optimizer.use_ema():
        pass


ACTIONS = {
    "state_dict": lambda o: o.state_dict(),
    "load_state_dict": lambda o: o.load_state_dict(SAVED),
    "pickle": lambda o: pickle.dumps(o),
    "use_ema": averages,
    "an option": lambda o: setattr(o, "clip_norm", 2.0),
    "statistics": lambda o: setattr(o, "stats", True),
    "a group": lambda o: o.add_param_group({"params": [np.zeros(3)]}),
    "step": lambda o: o.step([np.zeros_like(p) for g in o.param_groups for p in g["params"]]),
    "a step with an edit": lambda o: (
        o.param_groups[0].update(eps=1e-7),
        o.step([np.zeros_like(p) for g in o.param_groups for p in g["params"]]),
    ),
}
SAVED = lrfast.Adam([np.zeros(4, np.float32)], ema=0.5, lr=0.25).state_dict()


@pytest.mark.matrix(3)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_interrupt_between_any_two_lines_frees_the_plan(action, plan_class):
    """And parameters stay parameters: what is swapped is swapped back."""
    for line in range(1, 2000):
        optimizer = lrfast.Adam([np.ones(4, np.float32)], ema=0.5, lr=schedules.constant(0.25))
        optimizer.ema[0][...] = 7
        came = interrupted_at(line, lambda: ACTIONS[action](optimizer))  # noqa: B023
        assert np.all(optimizer.param_groups[0]["params"][0] != 7)
        optimizer.step([np.zeros_like(p) for g in optimizer.param_groups for p in g["params"]])
        if not came:
            break
    assert 1 < line < 1999


@pytest.mark.parametrize("scheduled", [False, True])
def test_an_interrupt_never_loses_an_edit(scheduled, plan_class):
    """Whenever Ctrl-C comes, the next step is made with what the groups say."""
    for line in range(1, 2000):
        param = np.ones(4)
        optimizer = lrfast.SGD(param, lr=schedules.constant(0.5) if scheduled else 0.5)
        optimizer.param_groups[0]["weight_decay"] = 1.0
        came = interrupted_at(line, lambda: optimizer.step(np.zeros(4)))  # noqa: B023
        steps = optimizer.updates
        optimizer.step(np.zeros(4))
        assert np.all(param == 0.5 ** (steps + 1))
        if not came:
            break
    assert 1 < line < 1999


# ---- edits, in every state that they may be found in ----------------------------------------------------------


def test_a_removed_key_comes_back_with_a_checkpoint(plan_class):
    for scheduled in (False, True):
        optimizer = lrfast.Adam(np.ones(3), lr=schedules.constant(0.5) if scheduled else 0.5)
        saved = optimizer.state_dict()
        del optimizer.param_groups[0]["eps"]
        optimizer.load_state_dict(saved)
        for _ in range(3):
            optimizer.step(np.ones(3))
        assert optimizer.updates == 3
        assert optimizer.param_groups[0]["eps"] == 1e-8


def test_a_foreign_key_is_refused_by_the_next_step_and_loading_is_whole(plan_class):
    optimizer = lrfast.Adam([{"params": [np.ones(3)], "lr": 0.5}, {"params": [np.ones(3)]}])
    saved = optimizer.state_dict()
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.param_groups[1]["betaz"] = 1.0
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(ValueError, match="unknown option 'betaz'"):
        optimizer.step([np.ones(3)] * 2)
    del optimizer.param_groups[1]["betaz"]
    optimizer.step([np.ones(3)] * 2)
    assert optimizer.updates == 1


def test_an_edit_taken_back_after_an_interrupt(plan_class, monkeypatch):
    """Ctrl-C between the lines of accept leaves a plan that knows more than the settings; the old value comes back."""
    param = np.zeros(1)
    optimizer = lrfast.SGD(param, lr=1.0)
    group, plan, old = optimizer.param_groups[0], optimizer._plan, optimizer.param_groups[0]["lr"]
    settings = {**optimizer._settings.known[0], "lr": 8.0}
    plan.set(0, settings, {"lr": 8.0}, 0)
    group["lr"] = old
    optimizer.step(np.ones(1))
    assert param[0] == -1


def test_two_threads_that_follow_a_schedule_use_each_value_once(plan_class, monkeypatch):
    """A second thread makes the whole step while the first is between its values and its step."""
    param = np.zeros(1)
    optimizer = lrfast.SGD(param, lr=lambda t: 1.0 + t)
    follow = optimizer._settings.follow
    nested = []

    def interrupted(plan):
        follow_first = not nested
        nested.append(1)
        t = plan.updates
        if follow_first:

            class Late:
                updates = t

                @staticmethod
                def set(*arguments, **keywords):
                    optimizer.step(np.ones(1))
                    plan.set(*arguments, **keywords)

            follow(Late)
        else:
            follow(plan)

    monkeypatch.setattr(optimizer._settings, "follow", interrupted)
    optimizer.step(np.ones(1))
    assert param[0] == -(1.0 + 2.0)


def test_a_pending_edit_goes_through_a_pickle(plan_class):
    for key, value, error in [("lr", -5.0, ValueError), ("lr", "x", TypeError), ("amsgrad", True, ValueError)]:
        optimizer = lrfast.Adam(np.ones(3))
        optimizer.param_groups[0][key] = value
        twin = pickle.loads(pickle.dumps(optimizer))
        with pytest.raises(error, match=key):
            twin.step(np.ones(3))
    optimizer.param_groups[0].update(amsgrad=False, lr=np.float32(0.5))
    twin = pickle.loads(pickle.dumps(optimizer))
    twin.step(np.ones(3))
    assert type(twin.param_groups[0]["lr"]) is float


def test_a_renamed_key_is_an_edit(plan_class):
    """In the same place, with the same value."""
    optimizer = lrfast.SGD(np.ones(3), lr=0.5)
    group = optimizer.param_groups[0]
    items = list(group.items())
    group.clear()
    group.update(("rate" if key == "lr" else key, value) for key, value in items)
    with pytest.raises(ValueError, match="'lr', which was removed"):
        optimizer.step(np.ones(3))


def test_a_new_gradient_that_overlaps_is_found_before_one_that_becomes_none(plan_class):
    params = [np.ones(4), np.ones(4)]
    optimizer = lrfast.SGD(params, lr=0.5)
    optimizer.step([np.ones(4), np.ones(4)])
    with pytest.raises(ValueError, match="overlaps"):
        optimizer.step([params[1], None])
    assert optimizer.updates == 1
    assert np.all(params[0] == 0.5)


def test_replaced_groups_are_named(plan_class):
    optimizer = adam()
    optimizer.param_groups.pop()
    for action in (optimizer.state_dict, lambda: optimizer.step(grads()), lambda: optimizer.load_state_dict({})):
        with pytest.raises(ValueError, match="param_groups: expected the groups"):
            action()


class Mine(lrfast.Adam):
    """A user's class with a constructor of its own."""

    def __init__(self, params, lr=1e-2, name="mine", **more):
        super().__init__(params, lr, **more)
        self.name = name


def test_a_subclass_of_a_user(plan_class):
    mine, its = np.ones(5), np.ones(5)
    optimizer, same = Mine(mine), lrfast.Adam(its, lr=1e-2)
    for _ in range(2):
        optimizer = pickle.loads(pickle.dumps(optimizer))
        mine = optimizer.param_groups[0]["params"][0]
        optimizer.step(np.ones(5))
        same.step(np.ones(5))
    assert optimizer.name == "mine"
    assert same_bits(mine, its)
