"""Code of the user at every place where lrfast calls it, and all that it may do to the optimizer meanwhile.

A program: test_hostile.py runs it, with the name of a plan.
"""

import contextlib
import copy
import faulthandler
import gc
import pickle
import sys

import numpy as np

import lrfast
from lrfast._engine import backend, numpy_plan

faulthandler.enable()
if sys.argv[1] == "numpy":
    backend.Plan = numpy_plan.Plan

optimizer, fired, mutate = None, 0, None


def strike():
    """Once: what the user's code does to the optimizer."""
    global fired
    if mutate is not None and not fired:
        fired = 1
        mutate(optimizer)


class Number:
    def __float__(self):
        strike()
        return 0.5


class Pair(list):
    def __iter__(self):
        strike()
        return iter((0.5, 0.5))


class Key(str):
    def __hash__(self):
        strike()
        return str.__hash__(self)

    def __eq__(self, other):
        strike()
        return str.__eq__(self, other)


class Dict(dict):
    def __getitem__(self, key):
        strike()
        return dict.__getitem__(self, key)

    def get(self, key, default=None):
        strike()
        return dict.get(self, key, default)

    def items(self):
        strike()
        return dict.items(self)


class List(list):
    def __getitem__(self, key):
        strike()
        return list.__getitem__(self, key)

    def __iter__(self):
        strike()
        return list.__iter__(self)


class Array:
    """Not an array, but says that it is one, or can be."""

    @property
    def __class__(self):
        strike()
        return np.ndarray

    @property
    def __array_interface__(self):
        strike()
        return np.ones(3).__array_interface__

    def __array__(self, *arguments, **keywords):
        strike()
        return np.ones(3)


class Dying:
    def __del__(self):
        with contextlib.suppress(BaseException):  # which Python would only print
            strike()

    def __float__(self):
        return 0.25


def schedule(t):
    strike()
    return 0.25


def grads():
    return [np.ones(3), np.ones(2)]


def saved(wrap=dict):
    sd = make().state_dict()
    sd["param_groups"] = List(wrap(group) for group in sd["param_groups"])
    sd["state"] = wrap({i: wrap(state) for i, state in sd["state"].items()})
    return wrap(sd)


def make(**options):
    options = {"ema": 0.5, "stats": True, **options}
    first, second = {"params": [np.ones(3)]}, {"params": [np.ones(2)]}
    return lrfast.Adam([first, second], **options)


def scheduled():
    return make(lr=schedule)


def with_edit(value, key="lr"):
    def made():
        o = make()
        o.param_groups[0][key] = value
        return o

    return made


def with_key():
    o = make()
    lr = o.param_groups[0].pop("lr")
    o.param_groups[0][Key("lr")] = lr
    return o


def with_dying():
    o = make()
    o.param_groups[0]["lr"] = Dying()
    return o


def load_arrays(o):
    sd = o.state_dict()
    sd["state"][0]["exp_avg"] = Array()
    o.load_state_dict(sd)


def stepping_from_dict(o):
    named = lrfast.SGD({"x": np.ones(3)})
    named.step(Dict(x=np.ones(3)))


POSITIONS = {
    "schedule": (scheduled, lambda o: o.step(grads())),
    "edit": (with_edit(Number()), lambda o: o.step(grads())),
    "edited pair": (with_edit(Pair((0.5, 0.5)), "betas"), lambda o: o.step(grads())),
    "key": (with_key, lambda o: o.step(grads())),
    "dying": (with_dying, lambda o: (o.step(grads()), gc.collect())),
    "grad_scale": (make, lambda o: o.step(grads(), grad_scale=Number())),
    "list of gradients": (make, lambda o: o.step(List(grads()))),
    "gradient": (make, lambda o: o.step([Array(), np.ones(2)])),
    "option": (make, lambda o: setattr(o, "clip_norm", Number())),
    "state_dict": (with_edit(Number()), lambda o: o.state_dict()),
    "load": (make, lambda o: o.load_state_dict(saved(Dict))),
    "load arrays": (make, load_arrays),
    "load an edited one": (with_edit(Number()), lambda o: o.load_state_dict(saved(Dict))),
    "group": (make, lambda o: o.add_param_group(Dict(params=[np.ones(4)], lr=Number()))),
    "group's list": (make, lambda o: o.add_param_group({"params": List([np.ones(4)])})),
    "pickle": (with_edit(Number()), lambda o: pickle.dumps(o)),
    "deepcopy": (scheduled, lambda o: copy.deepcopy(o)),
    "construction": (make, lambda o: o.__init__(List([np.ones(3)]), lr=schedule)),
    "use_ema": (scheduled, lambda o: o.use_ema().__enter__() or o.step(grads())),
    "mapping": (make, stepping_from_dict),
}


def grow(o):
    o.add_param_group({"params": [np.ones(5)]})


def reorder(o):
    group = o.param_groups[0]
    lr = group.pop("lr", 0.5)
    for k in range(1000):
        group[f"k{k}"] = 1.0
    group["lr"] = lr


def resize(o):
    gc.collect()
    o.param_groups[0]["params"][0].resize(100_000, refcheck=False)


MUTATIONS = {
    "nothing": lambda o: None,
    "step": lambda o: o.step(grads()),
    "load": lambda o: o.load_state_dict(make(lr=0.125).state_dict()),
    "group": grow,
    "clear": lambda o: o.param_groups.clear(),
    "extend": lambda o: o.param_groups.extend([{}] * 1000),
    "replace": lambda o: o.param_groups.__setitem__(0, dict(o.param_groups[0])),
    "clear a group": lambda o: o.param_groups[0].clear(),
    "reorder": reorder,
    "remove": lambda o: o.param_groups[0].pop("eps"),
    "edit": lambda o: o.param_groups[1].update(lr=0.75, betas=(0.1, 0.1)),
    "nonsense": lambda o: o.param_groups[1].update(lr="x"),
    "__init__": lambda o: o.__init__([np.ones(7)], lr=0.5),
    "__setstate__": lambda o: o.__setstate__(STATE()),
    "option": lambda o: setattr(o, "stats", False),
    "zero": lambda o: setattr(o, "zero_grads", True),
    "state": lambda o: o.state[0]["exp_avg"].fill(np.nan),
    "resize": resize,
    "state_dict": lambda o: o.state_dict(),
    "pickle": lambda o: pickle.dumps(o),
    "ema": lambda o: o.use_ema().__enter__(),
    "raise": lambda o: 1 // 0,
    "interrupt": lambda o: (_ for _ in ()).throw(KeyboardInterrupt),
}


def STATE():
    state = pickle.loads(pickle.dumps(make())).__getstate__()
    state.pop("whole")
    return state


def judge(o):
    """Whatever happened, an optimizer that can step does, as a whole; one that cannot says why."""
    before, steps = o.updates, [state["step"] for state in o.state]
    params = o._buffers.params
    try:
        o.step([np.ones_like(p) for p in params])
    except (ValueError, TypeError, RuntimeError) as error:
        text = str(error)
        assert len(text) > 20, text
        return
    assert o.updates == before + 1, (o.updates, before)
    assert [state["step"] for state in o.state] == [step + 1 for step in steps]


for position, (build, act) in POSITIONS.items():
    for mutation, change in MUTATIONS.items():
        print(position, "/", mutation, flush=True)
        mutate, fired, optimizer = None, 0, None
        optimizer = build()
        mutate = change
        with contextlib.suppress(ValueError, TypeError, RuntimeError, ZeroDivisionError, KeyboardInterrupt):
            act(optimizer)
        mutate = None
        judge(optimizer)
print("all", len(POSITIONS) * len(MUTATIONS))
