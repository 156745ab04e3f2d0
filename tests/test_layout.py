"""Structs and values of the C API stay where they were: what tests/c/layout.c prints, beside each release's file.

tests/layouts/<version>.txt is what that version printed. Files of releases are never changed. The file of the version
in the making is written anew when the API grows: `cc -Isrc_c tests/c/layout.c -o layout && ./layout > FILE`. Rows of
optimizers.def may run ahead of it until the release, so that a new optimizer is no edit here.
"""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from toolchain import CC, PROGRAMS, ROOT, SOURCES, STRICT, run, run_program

FILES = sorted((ROOT / "tests" / "layouts").glob("*.txt"), key=lambda path: [int(n) for n in path.stem.split(".")])
VERSIONS = [path.stem for path in FILES]

# Structs that grew in the middle, and the field that was dropped: said in the changelog of the version after.
CHANGED = {"0.1.0": ["lrf_stats", "lrf_outputs", "lrf_report", "lrf_job"]}
DROPPED = {"0.1.0": ["lrf_group.last_lr"]}
FROZEN = ["lrf_tensor", "lrf_job"]


def parse(text):
    """{name: numbers} in order."""
    return {name: tuple(map(int, numbers)) for name, *numbers in (line.split() for line in text.splitlines())}


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    program = tmp_path_factory.mktemp("layout") / "layout"
    run([*CC, *STRICT, f"-I{SOURCES}", PROGRAMS / "layout.c", "-o", program])
    return parse(run_program(program))


def saved(version):
    return parse((ROOT / "tests" / "layouts" / f"{version}.txt").read_text(encoding="utf-8"))


def is_struct(name, numbers):
    return name.startswith("lrf_") and "." not in name


def rows_of_table():
    text = (SOURCES / "optimizers.def").read_text()
    numbers = re.findall(r"^LRF_NUMBER\((\w+), ", text, re.MULTILINE)
    constants = re.findall(r"^LRF_(?:RULE|FLAG)\(\d+, (\w+), ", text, re.MULTILINE)
    return {f"lrf_group.{name}" for name in numbers} | {f"LRF_{name}" for name in constants}


def differences(old, new, changed=(), dropped=()):
    """Names that are elsewhere, have other values, or are gone; structs may be larger, unless they are frozen."""
    found = []
    for name, numbers in old.items():
        struct = name.partition(".")[0]
        if struct in changed or name in dropped:
            continue
        if is_struct(name, numbers) and struct not in FROZEN:
            if new.get(name, (0,)) < numbers:
                found.append(name)
        elif new.get(name) != numbers:
            found.append(name)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_version_had_is_where_it_was(version, layout):
    assert differences(saved(version), layout, CHANGED.get(version, ()), DROPPED.get(version, ())) == []


def test_the_newest_file_is_complete_but_for_rows_of_the_table(layout):
    version = re.search(r'LRF_VERSION_STRING "(.*?)"', (SOURCES / "lrfast.h").read_text())[1]
    newest = saved(VERSIONS[-1])
    assert VERSIONS[-1] == re.match(r"[\d.]+", version)[0]
    assert set(layout) - set(newest) <= rows_of_table()
    grown = {name for name in newest if is_struct(name, newest[name]) and newest[name] != layout[name]}
    assert grown <= {"lrf_group"}


def test_nothing_is_left_out(layout):
    """Fields follow each other without a gap, and every value of the header is printed."""
    for struct in (name for name in layout if is_struct(name, layout[name])):
        places = sorted(numbers for name, numbers in layout.items() if name.startswith(f"{struct}."))
        assert places[0][0] == 0, struct
        for (offset, size), (following, _) in pairwise([*places, (layout[struct][0], 0)]):
            assert following - (offset + size) in ((0, 4) if struct == "lrf_rule_info" else (0,)), struct
    header = (SOURCES / "lrfast.h").read_text() + (SOURCES / "pool.h").read_text()
    values = {name: int(value) for name, value in re.findall(r"\b(LRF_\w+) = (-?\d+)", header)}
    assert {name: layout[name][0] for name in values if name in layout} == {
        n: v for n, v in values.items() if n in layout
    }
    assert set(values) - set(layout) <= {"LRF_NO_RULE", "LRF_NO_FLAGS"}
    assert {"LRF_RADAM", "LRF_MEAN"} <= set(values), "the comment that lists rules and flags"


def test_this_test_can_fail(layout):
    for name, numbers in layout.items():
        moved = {**layout, name: tuple(n - 1 for n in numbers)}
        assert differences(layout, moved) == [name]
        assert differences(layout, {n: v for n, v in layout.items() if n != name}) == [name]
    assert differences(layout, {**layout, "lrf_group": (layout["lrf_group"][0] + 8,)}) == []
    assert differences(layout, {**layout, "lrf_tensor": (72,)}) == ["lrf_tensor"]
