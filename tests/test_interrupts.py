"""An exception before any line of any public call: what was to happen is done wholly or not at all, and all goes on."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from interrupts import (
    KINDS,
    PACKAGE,
    Broken,
    NoMemory,
    but_scheduled,
    lines_in,
    lines_of,
    observed,
    plain,
    points_of,
    raised_at,
)

import lrfast
from lrfast import functional, reference, schedules
from lrfast._engine import backend, numpy_plan, specification
from lrfast._engine.settings import kinds_of, settings_of_all
from lrfast.diagnose.curvature import extreme_curvatures

import drawn
from variants import VARIANTS

ISA = lrfast.isa()
PLANS = [pytest.param(backend.Plan, id="compiled"), pytest.param(numpy_plan.Plan, id="numpy")]


@pytest.fixture(params=PLANS)
def plan_class(request, monkeypatch):
    """Optimizers are bound to this plan."""
    monkeypatch.setattr(backend, "Plan", request.param)
    return request.param


# ---- subjects -------------------------------------------------------------------------------------------------


def arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(dtype) for n, dtype in [(5, np.float32), (3, np.float64), (2, np.float32)]]


def adam(**options: Any) -> lrfast.Optimizer:
    """Two groups, three tensors, one step."""
    first, second, third = arrays(0)
    options = {"lr": 0.1, "ema": 0.5, "copy_to": [x.astype(np.float32) for x in arrays(0)], "stats": True, **options}
    bound = options.pop("bound", False)
    grads = arrays(1) if bound else None
    groups = [{"params": [first, second], "weight_decay": 0.1}, {"params": third, "lr": options.pop("second", 0.2)}]
    optimizer = lrfast.Adam(groups, grads=grads, **options)
    optimizer.step(None if bound else arrays(2))
    return optimizer


LINEAR, COSINE = schedules.linear(0.1, 0.0, 10), schedules.cosine(0.1, 10).warmup(2)


def inverse(t: int) -> float:
    return 1 - 0.1 / (t + 1)


def scheduled() -> lrfast.Optimizer:
    return adam(lr=LINEAR, betas=(0.9, inverse), second=COSINE)


def named() -> lrfast.Optimizer:
    return lrfast.SGD({"x": np.ones(2), "y": np.ones(3)}, lr=0.5, momentum=0.5)


def by_name() -> lrfast.Optimizer:
    return lrfast.SGD([{"params": {"x": np.ones(2)}}, {"params": {"y": np.ones(3)}, "lr": 0.5}])


def pairs() -> lrfast.Optimizer:
    optimizer = lrfast.SGD([("x", np.ones(2)), ("y", np.ones(3))], lr=0.5, foreach=False)
    optimizer.load_state_dict({**optimizer.state_dict(), "updates": 3})
    return optimizer


def bare() -> lrfast.Optimizer:
    optimizer = lrfast.SGD(np.ones(3), lr=0.5, stats=True)
    for _ in range(2):
        optimizer.step(np.full(3, 0.25))
    return optimizer


def untold() -> lrfast.Optimizer:
    """As after an interrupt of an older version, or between two threads: the plan does not know what the groups say."""
    optimizer = adam()
    optimizer._plan.set(0, {}, {}, 0)
    return optimizer


def edited(**options: Any) -> lrfast.Optimizer:
    optimizer = adam(**options)
    optimizer.param_groups[0].update(eps=np.float32(0.25), lr=1)
    optimizer.param_groups[1]["betas"] = [0.5, 0.5]
    return optimizer


def rated() -> lrfast.Optimizer:
    """As a scheduler of the user leaves it."""
    optimizer = adam()
    optimizer.param_groups[1]["lr"] = 0.05
    return optimizer


def reordered() -> lrfast.Optimizer:
    optimizer = adam()
    optimizer.param_groups[0]["betas"] = optimizer.param_groups[0].pop("betas")
    return optimizer


def scheduled_and_edited() -> lrfast.Optimizer:
    optimizer = scheduled()
    optimizer.param_groups[0]["eps"] = 1e-6
    optimizer.param_groups[0]["lr"] = float(str(optimizer.param_groups[0]["lr"]))
    return optimizer


def measured_at_last() -> lrfast.Optimizer:
    """Its next step needs memory that none before has needed."""
    optimizer = adam(stats=False)
    optimizer.stats = True
    return optimizer


def carrying() -> lrfast.Optimizer:
    """Numbers beside the arrays."""
    optimizer = lrfast.NAdam(arrays(0), lr=0.1)
    optimizer.step(arrays(2))
    return optimizer


def coded(master: str | None = None) -> lrfast.Optimizer:
    """Tensors of 16 bits, of which somebody has written one."""
    params = [x.astype(ml_dtypes.bfloat16) for x in arrays(0)]
    copies = [x.astype(np.float32) for x in arrays(0)]
    optimizer = lrfast.Adam(params, lr=0.1, ema=0.5, copy_to=copies, stats=True, nonfinite="skip", master=master)
    optimizer.step([x.astype(np.float32) for x in arrays(2)])
    params[1][...] = 3
    return optimizer


def halves() -> lrfast.Optimizer:
    return coded("split")


def next_step(optimizer: lrfast.Optimizer) -> None:
    bound = optimizer._buffers.grads is not None
    params = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.step(None if bound else optimizer._form.given([np.full_like(p, 0.5) for p in params]))


def infinite() -> list[np.ndarray]:
    grads = arrays(3)
    grads[1][0] = np.inf
    return grads


def large() -> list[np.ndarray]:
    """Whose squares are too large for their type."""
    grads = arrays(3)
    grads[2][0] = 1e30
    return grads


def wide() -> lrfast.Optimizer:
    return adam(ema=inverse, ema_dtype="float64")


def use_ema(optimizer: lrfast.Optimizer) -> None:
    with optimizer.use_ema():
        pass


def with_phases(optimizer: lrfast.Optimizer) -> None:
    for run in optimizer._plan.phases(arrays(3), 1.0):
        for part in range(3):
            run(part, 3)


def refused(optimizer: lrfast.Optimizer, grads: Callable[[], list[np.ndarray]] = infinite) -> None:
    try:
        optimizer.step(grads())
    except FloatingPointError:
        return
    raise AssertionError


def setter(name: str, value: Any) -> Callable[[lrfast.Optimizer], None]:
    return lambda optimizer: setattr(optimizer, name, value)


def grown(optimizer: lrfast.Optimizer) -> None:
    x = np.ones(4)
    optimizer.add_param_group({"params": x, "copy_to": x.astype(np.float32), "lr": 0.3})


def anew(optimizer: lrfast.Optimizer) -> None:
    optimizer.__init__([np.ones(3)], lr=0.5, clip_norm=1.0)


def loaded_pickle(optimizer: lrfast.Optimizer) -> None:
    assert observed(pickle.loads(PICKLED))


SAVED = adam(lr=0.7, stats=False).state_dict()
MASTERS, MASTERLESS = coded("float32").state_dict(), coded().state_dict()
CARRIED = lrfast.NAdam(arrays(0), lr=0.3).state_dict()
FOLDER = Path(tempfile.mkdtemp())
FILE = FOLDER / "file.npz"
adam(lr=0.6, stats=False).save(FILE)
TORCH = {
    "state": {
        i: {k: v.astype(np.float64) if k != "step" else v for k, v in s.items()} for i, s in SAVED["state"].items()
    },
    "param_groups": [{k: v for k, v in g.items() if k != "maximize"} for g in SAVED["param_groups"]],
}
PICKLED = pickle.dumps(edited())
STATE = pickle.loads(PICKLED).__getstate__()
STATE.pop("whole")

ACTIONS: dict[str, tuple[Callable[[], lrfast.Optimizer], Callable[[lrfast.Optimizer], Any]]] = {
    "step": (adam, lambda o: o.step(arrays(3), grad_scale=0.5)),
    "step, bound": (lambda: adam(bound=True), lambda o: o.step()),
    "step, scheduled": (scheduled, lambda o: o.step(arrays(3))),
    "step, edited": (edited, lambda o: o.step(arrays(3))),
    "step, rate edited": (rated, lambda o: o.step(arrays(3))),
    "step, reordered": (reordered, lambda o: o.step(arrays(3))),
    "step, scheduled and edited": (scheduled_and_edited, lambda o: o.step(arrays(3))),
    "step, carrying": (carrying, lambda o: o.step(arrays(3))),
    "step, measured at last": (measured_at_last, lambda o: o.step(arrays(3))),
    "step, 16 bits": (coded, next_step),
    "step, halves": (halves, next_step),
    "step, masters": (lambda: coded("float32"), next_step),
    "params_changed, halves": (halves, lambda o: o.params_changed()),
    "params_changed, masters": (lambda: coded("float32"), lambda o: o.params_changed()),
    "load_state_dict, halves": (halves, lambda o: o.load_state_dict(MASTERS)),
    "load_state_dict, 16 bits": (coded, lambda o: o.load_state_dict(MASTERLESS)),
    "use_ema, halves": (halves, use_ema),
    "deepcopy, halves": (halves, copy.deepcopy),
    "deepcopy, carrying": (carrying, copy.deepcopy),
    "load_state_dict, carrying": (carrying, lambda o: o.load_state_dict(CARRIED)),
    "step, by name": (named, lambda o: o.step({"y": np.ones(3), "x": np.ones(2)})),
    "step, untold": (untold, lambda o: o.step(arrays(3))),
    "state_dict, by name": (named, lambda o: o.load_state_dict(o.state_dict())),
    "step, all options": (
        lambda: adam(clip_norm=1.0, clip_value=0.5, nonfinite="skip", zero_grads=True, bound=True),
        lambda o: o.step(),
    ),
    "step, norms": (lambda: adam(stats="norms", clip_norm=0.1), lambda o: o.step([None, *arrays(3)[1:]])),
    "step, every third": (lambda: adam(stats=3), lambda o: o.step(arrays(3))),
    "step, skipped": (lambda: adam(nonfinite="skip", zero_grads=True), lambda o: o.step(infinite())),
    "step, raised": (lambda: adam(nonfinite="raise"), refused),
    "step, too large": (lambda: adam(nonfinite="raise"), lambda o: refused(o, large)),
    "step, overflowing": (adam, lambda o: o.step(large())),
    "step, wide averages": (wide, lambda o: o.step(arrays(3))),
    "use_ema, wide averages": (wide, use_ema),
    "ema_decay": (wide, setter("ema_decay", 0.75)),
    "clip_value": (adam, setter("clip_value", 0.75)),
    "refresh_copies": (adam, lambda o: o.refresh_copies()),
    "phases": (adam, with_phases),
    "state_dict": (edited, lambda o: o.state_dict()),
    "load_state_dict": (edited, lambda o: o.load_state_dict(SAVED)),
    "load_state_dict, scheduled": (scheduled, lambda o: o.load_state_dict(SAVED)),
    "load_state_dict, PyTorch's": (adam, lambda o: o.load_state_dict(TORCH, updates=5, dtype="cast")),
    "save": (edited, lambda o: o.save(FOLDER / "saved.npz")),
    "load": (edited, lambda o: o.load(FILE)),
    "add_param_group": (edited, grown),
    "zero_grad": (lambda: adam(bound=True), lambda o: o.zero_grad()),
    "use_ema": (adam, use_ema),
    "clip_norm": (adam, setter("clip_norm", 0.1)),
    "nonfinite": (adam, setter("nonfinite", "skip")),
    "zero_grads": (lambda: adam(bound=True), setter("zero_grads", True)),
    "stats": (lambda: adam(stats=False), setter("stats", True)),
    "stats off": (adam, setter("stats", 0 == 1)),
    "pickle": (edited, pickle.dumps),
    "unpickle": (adam, loaded_pickle),
    "deepcopy": (edited, copy.deepcopy),
    "copy": (edited, copy.copy),
    "__init__": (adam, anew),
    "__setstate__": (adam, lambda o: o.__setstate__(pickle.loads(pickle.dumps(STATE)))),
    "statistics": (bare, lambda o: (o.stats["total"], o.stats[0], o.step(np.ones(3)))),
    "what it shows": (adam, lambda o: (observed(o), repr(o), o.stats["total"], repr(o.stats), repr(o.state))),
}


def outcomes(make: Callable[[], Any], action: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    """(what is seen, what is seen after another step), without the action and with it."""
    found = []
    for act in (lambda optimizer: None, action):
        optimizer = make()
        act(optimizer)
        seen = observed(optimizer)
        next_step(optimizer)
        found.append((but_scheduled(seen), observed(optimizer)))
    return found


# A file that is cut off between being opened and its "with" is closed by whoever collects it.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*ZipFile.__del__:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.matrix(3)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_call_is_done_wholly_or_not_at_all(name, plan_class, request):
    """At the first and the last time of each line, or at the share of them that is drawn."""
    make, action = ACTIONS[name]
    expected = outcomes(make, action)
    subject = make()
    shares = 1 if request.config.getoption("--whole") else 4
    for i, point in enumerate(points_of(lambda: action(subject))):
        if i % shares != drawn.number() // 3 % shares:
            continue
        kind = KINDS[(i + drawn.number()) % len(KINDS)]
        optimizer = make()
        came = raised_at(point, kind, lambda: action(optimizer))  # noqa: B023
        where = f"{kind.__name__} at {Path(point.place[0]).name}:{point.place[1]}, time {point.time}"
        if kind is Broken:  # which may have become a refusal
            assert came is not None, where
        else:
            assert isinstance(came, kind) or (came is None and kind is NoMemory), f"{where}: {came!r}"
        seen = but_scheduled(observed(optimizer))
        same = [then for now, then in expected if now == seen]
        assert same, f"{where}: half of it was done: {differences(seen, expected)}"
        next_step(optimizer)
        assert observed(optimizer) in same, (
            f"{where}: the next step: {differences(observed(optimizer), [(same[0], 0)])}"
        )


def differences(seen: dict[str, Any], expected: list[tuple[Any, Any]]) -> list[list[str]]:
    return [[key for key in seen if seen[key] != now.get(key)] for now, _ in expected]


# ---- calls without an optimizer, or beside it -----------------------------------------------------------------


def one_update(module: Any, name: str, states: list[np.ndarray], param: np.ndarray) -> None:
    getattr(module, name)(param, np.full_like(param, 0.5), *states, step=3)


@pytest.mark.matrix(3)
@pytest.mark.parametrize("module", [functional, reference], ids=["functional", "reference"])
@pytest.mark.parametrize("name", ["adam", "lion", "rprop"])
def test_a_single_update_is_whole_or_not_at_all(name, module):
    def fresh() -> list[np.ndarray]:
        state = VARIANTS[name].make([np.ones(3)]).state[0]
        return [np.ones(3), *(array for key, array in state.items() if key != "step")]

    def action(subject: list[np.ndarray]) -> None:
        with lrfast.use_isa("numpy"):
            one_update(module, name, subject[1:], subject[0])

    done, again = fresh(), fresh()
    action(done)
    for i, point in enumerate(points_of(lambda: action(again))):
        subject = fresh()
        raised_at(point, KINDS[i % len(KINDS)], lambda: action(subject))  # noqa: B023
        assert plain(subject) in (plain(fresh()), plain(done)), point
        backend.set_isa(ISA)


def loss_of(param: np.ndarray) -> Callable[[], Any]:
    return lambda: (float(param @ param) / 2, [param.copy()])


def find(optimizer: lrfast.Optimizer, param: np.ndarray) -> None:
    lrfast.find_lr(optimizer, loss_of(param), steps=4)


def curvature(optimizer: lrfast.Optimizer, param: np.ndarray) -> None:
    extreme_curvatures(optimizer, lambda params: [p.copy() for p in params])


@pytest.mark.matrix(3)
@pytest.mark.parametrize("trial", [find, curvature])
def test_a_trial_gives_everything_back(trial, plan_class, request):
    def fresh() -> tuple[lrfast.Optimizer, np.ndarray]:
        param = np.array([1.0, -2.0])
        return lrfast.SGD([param], lr=0.1), param

    shares = 1 if request.config.getoption("--whole") else 8
    trial(*fresh())  # which imports what it needs
    subject = fresh()
    for i, point in enumerate(points_of(lambda: trial(*subject))):
        if i % shares == drawn.number() // 3 % shares:
            optimizer, param = fresh()
            raised_at(point, KINDS[i % len(KINDS)], lambda: trial(optimizer, param))  # noqa: B023
            assert observed(optimizer) == observed(fresh()[0]), point
            next_step(optimizer)


def test_a_record_is_there_or_not():
    def fresh() -> tuple[lrfast.Monitor, Any]:
        param = np.ones(2)
        optimizer = lrfast.SGD([param], lr=0.1)
        monitor = lrfast.Monitor(optimizer)
        for _ in range(3):
            optimizer.step([param.copy()])
            monitor.update(1.0)
        optimizer.step([param.copy()])
        return monitor, optimizer

    before, after = (repr(fresh()[0].records) for _ in range(2))
    subject = fresh()[0]
    for i, point in enumerate(points_of(lambda: subject.update(1.0))):
        if "diagnose" in point.place[0]:
            monitor, _ = fresh()
            raised_at(point, KINDS[i % len(KINDS)], lambda: monitor.update(1.0))  # noqa: B023
            if repr(monitor.records) == before:
                monitor.update(1.0)
            assert len(monitor.records) == 4, point
    assert before == after


# ---- how much of it -------------------------------------------------------------------------------------------

PATHS = ["optimizer", "settings", "form", "buffers", "checkpoint", "options", "recorder", "numpy_plan", "commit"]
PATHS += ["specification", "statistics", "surroundings"]


def test_nearly_all_lines_of_the_public_paths_are_reached(monkeypatch, capsys):
    reached: set[tuple[str, int]] = set()
    for plan in (backend.Plan, numpy_plan.Plan):
        monkeypatch.setattr(backend, "Plan", plan)
        for make, action in ACTIONS.values():
            subjects: list[lrfast.Optimizer] = []
            for act in (lambda: subjects.append(make()), lambda: action(subjects[0]), lambda: next_step(subjects[0])):  # noqa: B023
                reached |= set(lines_of(act))
        for make in (
            adam,
            edited,
            scheduled,
            named,
            by_name,
            pairs,
            bare,
            lambda: adam(bound=True, zero_grads=True, nonfinite="raise", clip_value=1.0),
        ):
            for cached in (kinds_of, settings_of_all, specification.state_arguments, specification.settings_of):
                cached.cache_clear()
            reached |= set(lines_of(make))
    with lrfast.use_isa("numpy"):
        reached |= set(lines_of(lambda: one_update(functional, "adam", [np.ones(1), np.ones(1)], np.ones(1))))
    there = {place for name in PATHS for place in lines_in(PACKAGE / "_engine" / f"{name}.py")}
    missed = sorted(there - reached)
    with capsys.disabled():
        print(f"\n{len(there) - len(missed)} of {len(there)} lines of the public paths are reached")
        print(" ".join(f"{Path(name).stem}:{line}" for name, line in missed))
    assert len(missed) < 0.05 * len(there)
