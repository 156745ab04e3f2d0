"""A rule exists twice, in files of the same name: the same numbers, and the same lines in the same order."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module

import pytest

from lrfast._engine.table import RULES

from toolchain import SOURCES

FAMILIES = list(dict.fromkeys(rule.family for rule in RULES.values()))


def in_c(family):
    """(fields of the scalars, names that the loop computes in order); those of another family where it is called."""
    text = (SOURCES / "rules" / f"{family}.h").read_text(encoding="utf-8")
    called = re.search(r"LRF_CALL\((\w+),", text)
    if called:
        return in_c(called[1])
    body = re.search(rf"typedef struct \{{(.*?)\}} LRF_TYPED\({family}_scalars\);", text, re.DOTALL)[1]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    fields = re.findall(r"\w+", body.replace("real", ""))
    loop = text[text.index("LRF_UPDATE(") :]
    return fields, re.findall(r"const real (\w+) =", loop)


def in_python(family):
    """The same of the Python file: of ``update`` where it has one, otherwise of the function of the family's name."""
    module = import_module(f"lrfast.rules.{family}")
    if not hasattr(module, "Scalars"):
        (other,) = {n for n in FAMILIES if getattr(module, n, None) is import_module(f"lrfast.rules.{n}")}
        return in_python(other)
    source = inspect.getsource(getattr(module, "update", None) or getattr(module, family))
    (function,) = ast.parse(source).body
    assigned = [
        node.targets[0].id for node in ast.walk(function) if is_name(node) and node.targets[0].id not in ("k", "lr")
    ]
    return list(module.Scalars._fields), [name for name in assigned if len(name) == 1 or name in in_c(family)[1]]


def is_name(node):
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)


def test_every_family_stands_in_two_files():
    c = {path.stem for path in (SOURCES / "rules").glob("*.h")}
    assert c == set(FAMILIES)
    for family in FAMILIES:
        assert import_module(f"lrfast.rules.{family}")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_have_the_same_names(family):
    assert in_python(family)[0] == in_c(family)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lines_have_the_same_order(family):
    assert in_python(family)[1] == in_c(family)[1]
