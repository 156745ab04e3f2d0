"""The table is the same for all who read it: C, Python, the reference, the classes and the functions."""

from __future__ import annotations

import ctypes
import inspect
import re

import pytest

from lrfast import functional, optim, reference
from lrfast._engine import stages, threads
from lrfast._engine.settings import numbers_of
from lrfast._engine.specification import settings_of
from lrfast._engine.table import FLAGS, RULES

import toolchain
from toolchain import SOURCES
from variants import VARIANTS, unused_rules

CLASSES = [getattr(optim, name) for name in optim.__all__ if name != "Optimizer"]
TABLE = (SOURCES / "optimizers.def").read_text()
OF_0_1_0, LATER = (
    re.findall(r"^LRF_NUMBER\((\w+), ", part, re.MULTILINE) for part in TABLE.split("#ifdef LRF_AFTER_0_1_0")
)
NUMBERS = [*OF_0_1_0, *LATER]


class RuleInfo(ctypes.Structure):
    """lrf_rule_info."""

    _fields_ = (
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("family", ctypes.c_char_p),
        ("state", ctypes.c_char_p * 4),
        ("defaults", ctypes.c_char_p),
        ("flags", ctypes.c_uint32),
    )


class Group(ctypes.Structure):
    """lrf_group."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("struct_size", "rule", "dtype", "flags")),
        ("tensors", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("outputs", ctypes.c_void_p),
        *((name, ctypes.c_double) for name in OF_0_1_0),
        ("unused", ctypes.c_double),
        ("storage", ctypes.c_void_p),
        *((name, ctypes.c_double) for name in LATER),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.so"
    toolchain.run([*toolchain.CC, *toolchain.quoted_flags(), "-fPIC", "-shared", SOURCES / "table.c", "-o", path])
    library = ctypes.CDLL(str(path))
    library.lrf_rule_at.restype = ctypes.POINTER(RuleInfo)
    library.lrf_rule_at.argtypes = [ctypes.c_size_t]
    library.lrf_number_offset.restype = ctypes.c_size_t
    library.lrf_number_offset.argtypes = [ctypes.c_char_p]
    library.lrf_group_init.argtypes = [ctypes.POINTER(Group), ctypes.c_size_t, ctypes.c_int]
    return library


def signature_of(function):
    """Names, kinds and defaults; annotations are mypy's business."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def defaults_of(function, *without):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in without}


# ---- the table itself ----------------------------------------------------------------------------------------


def test_rows_are_all_parsed():
    assert len(RULES) == len(re.findall(r"^LRF_RULE\(", TABLE, re.MULTILINE)) > 0


def test_ids_are_unique_and_appended():
    ids = [rule.id for rule in RULES.values()]
    assert ids == sorted(set(ids))
    assert ids[0] == 1


def test_a_state_has_one_slot():
    slots = {}
    for rule in RULES.values():
        assert len(rule.states) == 4
        for slot, name in enumerate(rule.states):
            if name:
                assert slots.setdefault(name, slot) == slot, name


def test_defaults_are_numbers_of_a_group():
    for rule in RULES.values():
        assert set(rule.defaults) <= set(NUMBERS)
        assert "lr" in rule.defaults


# ---- C -------------------------------------------------------------------------------------------------------


def test_c_has_the_same_rows(library):
    rows = []
    while info := library.lrf_rule_at(len(rows)):
        rows.append(info.contents)
    assert [row.name.decode() for row in rows] == list(RULES)
    for row, rule in zip(rows, RULES.values(), strict=True):
        assert (row.id, row.family.decode()) == (rule.id, rule.family)
        assert tuple(state.decode() if state else None for state in row.state) == rule.states
        told = re.findall(r"\.(\w+) = ([^,\s]+)", row.defaults.decode())
        assert {name: float(value) for name, value in told} == rule.defaults


def test_c_groups_start_with_the_same_defaults(library):
    for rule in RULES.values():
        group = Group()
        assert library.lrf_group_init(group, ctypes.sizeof(group), rule.id) == 0
        assert {name: getattr(group, name) for name in NUMBERS} == {**dict.fromkeys(NUMBERS, 0.0), **rule.defaults}
        assert (group.rule, group.flags, group.tensors, group.count) == (rule.id, 0, None, 0)


def test_c_knows_the_numbers_by_name(library):
    assert [library.lrf_number_offset(name.encode()) for name in NUMBERS] == [getattr(Group, n).offset for n in NUMBERS]


def test_flags_are_those_of_the_header():
    flags = {name: int(value) for value, name in re.findall(r"LRF_FLAG\((\d+), (\w+),", TABLE)}
    names = {"maximize": "MAXIMIZE", "nesterov": "NESTEROV", "initial": "FIRST_GRADIENT", "accumulate": "MEAN"}
    assert {setting: flag.bit for setting, flag in FLAGS.items()} == {s: flags[name] for s, name in names.items()}


def test_statuses_are_counted_without_gaps():
    text = (SOURCES / "lrfast.h").read_text()
    block = re.search(r"typedef enum lrf_status \{(.*?)\} lrf_status;", text, re.DOTALL)[1]
    values = [int(value) for value in re.findall(r"LRF_\w+ = (\d+)", block)]
    assert values == list(range(len(values)))


# ---- reference, classes, functions ---------------------------------------------------------------------------


def test_every_rule_is_reached_by_a_variant():
    assert unused_rules() == set()


def test_every_class_has_a_variant():
    assert {variant.cls for variant in VARIANTS.values()} == set(CLASSES)


def test_every_family_has_a_reference_and_a_class():
    families = {rule.family for rule in RULES.values()}
    assert families <= set(reference.__all__)
    assert families <= {cls.spec.__name__ for cls in CLASSES}


def test_every_class_has_its_functions():
    names = {cls.__name__.lower() for cls in CLASSES}
    assert names == set(reference.__all__) == set(functional.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_function_is_like_its_reference(cls):
    name = cls.__name__.lower()
    assert cls.spec is getattr(reference, name).__wrapped__
    assert signature_of(getattr(functional, name)) == signature_of(getattr(reference, name))
    assert getattr(functional, name).__doc__ == getattr(reference, name).__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_settings_of_a_class_are_those_of_its_reference(cls):
    settings = defaults_of(cls.__init__, "grads")
    states = {rule.states[slot] for rule in RULES.values() for slot in range(4)} - {None}
    options = defaults_of(cls.spec, "grad_scale", *states)
    assert {name: value for name, value in settings.items() if name in settings_of(cls.spec)} == options
    assert next(iter(settings)) == "lr"


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_of_a_class_are_those_of_the_table(cls):
    """Except momentum: 0 in a class means a rule without it."""
    settings = defaults_of(cls.__init__, "grads", *(set(defaults_of(cls.__init__)) - set(settings_of(cls.spec))))
    chosen = RULES[cls.variant(defaults_of(cls.__init__))]
    family = [rule for rule in RULES.values() if rule.family == chosen.family]
    for rule in family:
        renamed = cls.numbers(settings)
        numbers = numbers_of(rule, settings, renamed)
        shared = set(numbers) - {"momentum", *renamed.values()}
        assert {name: numbers[name] for name in shared} == {name: rule.defaults[name] for name in shared}, rule.name
        assert {"lr", "eps"} & set(rule.defaults) <= shared


def test_python_has_the_constants_of_the_headers():
    """Those that Python needs without an extension."""
    text = "".join((SOURCES / name).read_text() for name in ("lrfast.h", "pool.h", "kernels/types.h"))
    of_c = {name: int(value) for name, value in re.findall(r"\bLRF_(\w+) = (-?\d+)", text)}
    mine = {"TILE": stages.TILE, "LANES": stages.LANES, "SAMPLES": stages.SAMPLES, "RATE_BINS": stages.BINS}
    mine |= {"FIRST_RATE": stages.FIRST_RATE, "POOL_MAX_THREADS": threads._MAX_THREADS}
    assert {name: of_c[name] for name in mine} == mine
