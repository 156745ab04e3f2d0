"""What refusals say: what, where, expected, got. All settings of all optimizers, at all entry points; and in C."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest

import lrfast
from lrfast._engine.extra import import_extra
from lrfast._engine.specification import argument_of
from lrfast._engine.table import CONSTANTS, NUMBERS

from arrays import f32, snapshot
from toolchain import SOURCES
from variants import VARIANTS, rule_of

RANGES = {number.setting: number.range for number in NUMBERS.values()} | CONSTANTS
HUGE = 10**400
WRONG_KIND = ["0.1", None, True, object(), 1j, [0.1, 0.2], np.ones(3)]


def labels(variant):
    """(key, its place in a pair or None, label) of all numbers among a variant's settings."""
    for key, default in variant.make(np.ones(1)).defaults.items():
        if isinstance(default, tuple):
            yield from ((key, i, f"{key}[{i}]") for i in range(2))
        elif type(default) is float:
            yield key, None, key


def bad_values(label):
    allowed = RANGES[label]
    outside = [math.nextafter(allowed.least, -math.inf), math.nextafter(allowed.largest, math.inf), -1e300, math.inf]
    return [*(x for x in outside if not allowed.least <= x <= allowed.largest), math.nan, HUGE, *WRONG_KIND]


ONE_OF_EACH_RULE = {rule_of(variant.make(np.ones(1))).name: variant for variant in VARIANTS.values()}
CASES = [
    pytest.param(variant, key, place, label, id=f"{rule}-{label}")
    for rule, variant in ONE_OF_EACH_RULE.items()
    for key, place, label in labels(variant)
]
SCHEDULABLE = [case for case in CASES if case.values[3] not in CONSTANTS]


def with_bad(variant, key, place, value):
    if place is None:
        return {key: value}
    pair = list(variant.make(np.ones(1)).param_groups[0][key])
    pair[place] = value
    return {key: tuple(pair)}


def says(error, where, label, value, words=None):
    text = str(error.value)
    assert where in text, text
    assert f"{label}: expected {words or RANGES[label].words}" in text, text
    shown = "larger one than floats can hold" if value is HUGE else f"got {value!r}"
    assert shown in text, text
    assert isinstance(error.value, TypeError) == any(value is wrong for wrong in WRONG_KIND), text


@pytest.mark.parametrize(("variant", "key", "place", "label"), CASES)
def test_every_number_of_every_optimizer(variant, key, place, label):
    for value in bad_values(label):
        settings = with_bad(variant, key, place, value)
        with pytest.raises((TypeError, ValueError)) as error:
            variant.make(f32(), **settings)
        says(error, "group 0: ", label, value)
        with pytest.raises((TypeError, ValueError)) as error:
            variant.make([{"params": f32()}, {"params": f32(), **settings}])
        says(error, "group 1: ", label, value)

        param = f32()
        optimizer = variant.make([param])
        before = snapshot(optimizer, param)
        with pytest.raises((TypeError, ValueError)) as error:
            optimizer.add_param_group({"params": f32(), **settings})
        says(error, "group 1: ", label, value)
        assert snapshot(optimizer, param) == before
        if label in CONSTANTS:
            continue
        optimizer.param_groups[0].update(settings)
        with pytest.raises((TypeError, ValueError)) as error:
            optimizer.step([f32()])
        says(error, "group 0: ", label, value)
        assert param.tobytes() == f32().tobytes()


@pytest.mark.parametrize(("variant", "key", "place", "label"), SCHEDULABLE)
def test_every_schedule(variant, key, place, label):
    usual = variant.make(np.ones(1)).param_groups[0][key]
    for value in bad_values(label):
        schedule = lambda t, value=value: value if t == 1 else (usual if place is None else usual[place])  # noqa: E731
        param = f32()
        optimizer = variant.make(param, **with_bad(variant, key, place, schedule))
        optimizer.step(f32())
        before = snapshot(optimizer, param)
        with pytest.raises((TypeError, ValueError)) as error:
            optimizer.step(f32())
        says(error, "group 0, schedule at t=1: ", label, value)
        assert snapshot(optimizer, param) == before


@pytest.mark.parametrize(("variant", "key", "place", "label"), SCHEDULABLE)
def test_every_function(variant, key, place, label):
    function = getattr(lrfast.functional, variant.cls.spec.__name__)
    optimizer = variant.make(f32())
    states = {
        argument_of(variant.cls.spec, name): state for name, state in optimizer.state[0].items() if name != "step"
    }
    names = inspect.signature(function).parameters
    settings = {name: value for name, value in optimizer.param_groups[0].items() if name in names and name != "params"}
    for value in bad_values(label):
        param = f32()
        with pytest.raises((TypeError, ValueError)) as error:
            function(param, f32(), **states, step=1, **{**settings, **with_bad(variant, key, place, value)})
        says(error, "", label, value)
        assert param.tobytes() == f32().tobytes()


OPTIONS = {
    "clip_norm": ("None or a finite number > 0", [0.0, -1.0, math.nan, math.inf, HUGE]),
    "clip_value": ("None or a finite number > 0", [0.0, -1.0, math.nan, math.inf, HUGE]),
    "ema": ("a number in [0, 1)", [1.0, -0.1, math.nan, math.inf, HUGE]),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(name):
    words, outside = OPTIONS[name]
    for value in [*outside, *(wrong for wrong in WRONG_KIND if wrong is not None)]:
        with pytest.raises((TypeError, ValueError)) as error:
            lrfast.SGD(f32(), **{name: value})
        says(error, "", name, value, words)
        if name != "ema":
            with pytest.raises((TypeError, ValueError)) as error:
                setattr(lrfast.SGD(f32()), name, value)
            says(error, "", name, value, words)


def test_grad_scale():
    for value in [math.nan, math.inf, -math.inf, HUGE, *WRONG_KIND]:
        param = f32()
        with pytest.raises((TypeError, ValueError)) as error:
            lrfast.SGD(param).step(f32(), grad_scale=value)
        says(error, "", "grad_scale", value, "a finite number")
        assert param.tobytes() == f32().tobytes()


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_switch_and_choice(variant):
    for key, default in variant.make(np.ones(1)).defaults.items():
        if isinstance(default, bool):
            words, wrong = "expected True or False", [None, 1, "yes", 0.0, 0.5, np.ones(2), lambda t: True]
        elif isinstance(default, str):
            words, wrong = "expected one of ('", [None, 1, 0.0, "other", True, lambda t: "zero"]
        else:
            continue
        for value in wrong:
            with pytest.raises((TypeError, ValueError)) as error:
                variant.make(f32(), **{key: value})
            text = str(error.value)
            assert f"group 0: {key}: {words}" in text, text
            assert f"got {value!r}" in text, text


def test_a_name_that_nobody_has_is_told_with_those_that_there_are():
    for variant in VARIANTS.values():
        with pytest.raises(TypeError) as error:
            variant.make(f32(), nonsense=1)
        assert "'nonsense'" in str(error.value)
        assert all(name in str(error.value) for name in variant.make(f32()).defaults), error.value


def test_what_c_refuses_has_a_name_in_its_headers():
    texts = "".join((SOURCES / name).read_text() for name in ("lrfast.h", "optimizers.def"))
    refusals = re.findall(r'lrf_refuse\([^;]*?"([^"]+)"', "".join(path.read_text() for path in SOURCES.glob("*.c")))
    assert len(refusals) > 25
    for what in refusals:
        assert all(re.search(rf"\b{name}", texts) for name in re.findall(r"\w+", what)), what


def test_only_the_library_that_is_missing_is_said_to_be():
    hint = r"pictures needs Rich: pip install 'lrfast\[demo\]'"
    with pytest.raises(ModuleNotFoundError, match=hint), import_extra("pictures", "Rich"):
        raise ModuleNotFoundError("No module named 'rich.table'", name="rich.table")
    for name in (None, "ri", "matplotlib"):
        error = ModuleNotFoundError("it is another", name=name)
        with pytest.raises(ModuleNotFoundError, match="it is another"), import_extra("pictures", "Rich"):
            raise error
