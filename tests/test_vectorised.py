"""The loop of every rule runs in vectors of full width, for both types, on every instruction set.

Read from what gcc dumps of its vectorizer and from clang's record of optimizations: their shorter reports
(-fopt-info-vec, -Rpass) do not say in which function a loop was, so that two vectorised copies of the float loop would
pass for float and double. gcc's record does, too, and takes a minute to be written and read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from lrfast._engine.table import RULES

import toolchain
from toolchain import SOURCES

WIDTHS = {"baseline": 16, "avx2": 32, "avx512": 64, "neon": 16}
ISAS = {"x86_64": ["baseline", "avx2", "avx512"], "aarch64": ["neon"]}
ELEMENT_SIZES = {"f32": 4, "f64": 8}
VARIANTS = ("", "_norms", "_traced")
LOOP = "for (size_t i = 0; i < n; i++)"
IS_CLANG = "clang" in toolchain.run([*toolchain.CC, "--version"])


class Loop(NamedTuple):
    """Lines first .. last of a file, for one element type; in one of these functions where several share the lines."""

    file: str
    first: int
    last: int
    dtype: str
    functions: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()  # what will do beside the full width: where types of several sizes meet


class Record(NamedTuple):
    """Something vectorised; `width` in bytes, 0 if the compiler does not tell."""

    file: str
    line: int
    dtype: str
    width: int
    function: str


def isas() -> list[str]:
    return ISAS.get(toolchain.machine(), ["baseline"])


def loops(isa: str) -> list[Loop]:
    """Main loops of the stages, the statistics and of the reduction, whose inner one may be unrolled; and one instance
    of its family's loop per rule, variant and type.

    Left out: comparisons of 64-bit integers, which SSE2 does not have; the copy of float32 to float32, which becomes a
    call of memcpy; and float64 averages of float64, which are the loop before once more.
    """
    found = []
    for rule in RULES.values():
        path, number, family = loop_of(rule.family)
        # Where the loop is another family's, compilers may find that the code is the same and keep one of the two.
        twins = [other.name for other in RULES.values() if other.family == family and other.states == rule.states]
        for dtype in ELEMENT_SIZES:
            for variant in VARIANTS:
                functions = tuple(f"{name}{variant}_{dtype}" for name in dict.fromkeys([rule.name, *twins]))
                found.append(Loop(path.name, number, number, dtype, functions))
    for path in (SOURCES / "kernels" / f"{name}.h" for name in ("reduce", "stages", "statistics")):
        widths = () if path.name == "reduce.h" else (16, 32, 64)
        lines = path.read_text().splitlines()
        for number, (line, body) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
            for dtype in ELEMENT_SIZES:
                if widths and (isa == "baseline" or (dtype == "f32" and "out[i] = (float)p[i]" in body)):
                    continue
                if dtype == "f64" and "towards_f64" in body:
                    continue
                if LOOP in line:
                    found.append(Loop(path.name, number, number, dtype, widths=widths))
                if "for (size_t i = 0; i < whole; i += LRF_LANES)" in line:
                    found.append(Loop(path.name, number, number + 2, dtype))
    lines = (SOURCES / "kernels" / "formats.h").read_text().splitlines() if isa != "baseline" else []
    found += [Loop("formats.h", i, i, "", widths=(16, 32, 64)) for i, line in enumerate(lines, start=1) if LOOP in line]
    return found


def loop_of(family: str) -> tuple[Path, int, str]:
    """File, line and family of the one loop of a family, which may be another family's."""
    path = SOURCES / "rules" / f"{family}.h"
    text = path.read_text()
    called = re.findall(r"LRF_CALL\((\w+), ", text)
    assert text.count(LOOP) + len(called) == 1, family
    if called:
        return loop_of(called[0])
    return path, text[: text.index(LOOP)].count("\n") + 1, family


def missing(isa: str, directory, *flags: str) -> list[Loop]:
    """Loops that were not vectorised at full width."""
    target = directory / "kernels.o"
    report = directory / "report"
    asked = "-fsave-optimization-record -foptimization-record-file=" if IS_CLANG else "-fdump-tree-vect-optimized="
    command = [*toolchain.CC, *toolchain.quoted_flags(), *toolchain.FLAGS, *flags, *f"{asked}{report}".split()]
    toolchain.run([*command, "-c", SOURCES / f"kernels_{isa}.c", "-o", target], cwd=directory)
    records = (clang_records if IS_CLANG else gcc_records)(report.read_text() if report.exists() else "")  # not at -O1
    return [loop for loop in loops(isa) if not any(covers(record, loop, WIDTHS[isa]) for record in records)]


def covers(record: Record, loop: Loop, width: int) -> bool:
    place = record.file == loop.file and loop.first <= record.line <= loop.last
    same = record.dtype == loop.dtype and (not loop.functions or record.function in loop.functions)
    return place and same and record.width in (width, 0, *loop.widths)


def gcc_records(text: str) -> list[Record]:
    records = []
    for function, body in re.findall(r"^;; Function (\S+) (.*?)(?=^;; Function |\Z)", text, re.DOTALL | re.MULTILINE):
        told = r"^[^\n]*?([^/\n]+):(\d+):\d+: optimized: loop vectorized using (\d+) byte vectors"
        for file, line, width in re.findall(told, body, re.MULTILINE):
            records.append(Record(file, int(line), dtype_of(function), int(width), entry_of(function)))
    return records


def clang_records(text: str) -> list[Record]:
    """The loop vectorizer tells elements per vector; the other one, which sees unrolled loops, tells nothing.

    Sums are in float64 for both types.
    """
    records = []
    for entry in text.split("--- !")[1:]:
        # A mapping is broken into lines at a column, so that how an entry looks depends on how long the path is.
        head = re.match(
            r"Passed Pass: (loop-vectorize|slp-vectorizer) Name: (?:Vectorized|StoresVectorized) "
            r"DebugLoc: \{ File: '[^']*?([^/']+)', Line: (\d+),.*?Function: (\w+)",
            " ".join(entry.split()),
        )
        if head:
            file, dtype = head[2], dtype_of(head[4])
            factor = re.search(r"VectorizationFactor: +'(\d+)'", entry)
            size = 8 if file == "reduce.h" else ELEMENT_SIZES.get(dtype, 0)
            width = int(factor[1]) * size if factor else 0
            records.append(Record(file, int(head[3]), dtype, width, entry_of(head[4])))
    return records


def dtype_of(function: str) -> str:
    return next((dtype for dtype in ELEMENT_SIZES if f"_{dtype}" in function), "")


def entry_of(function: str) -> str:
    """The entry of the kernel table that a function is inlined into or called by."""
    return function.partition(".")[0].replace("_loop", "")


def test_every_rule_has_its_loops():
    """Of one family: as many instances as there are variants and types, and no loop that no rule has."""
    rules = "".join(path.read_text() for path in (SOURCES / "rules").glob("*.h"))
    families = re.findall(r"^LRF_UPDATE\((\w+), ", rules, re.MULTILINE)
    assert sorted(families) == sorted({rule.family for rule in RULES.values()})
    functions = [loop.functions[0] for loop in loops(isas()[0]) if loop.functions]
    assert len(set(functions)) == len(functions) == len(RULES) * len(VARIANTS) * len(ELEMENT_SIZES)


def test_a_record_is_read_wherever_its_lines_break():
    place = "DebugLoc:        {{ File: '{}/statistics.h', Line: 30,{}Column: 5 }}\nFunction:        adam_traced_f32\n"
    head = "--- !Passed\nPass:            loop-vectorize\nName:            Vectorized\n"
    factor = "Args:\n  - VectorizationFactor: '8'\n"
    expected = [Record("statistics.h", 30, "f32", 32, "adam_traced_f32")]
    for folder, broken in [("/a", " "), ("/" + "a" * 60, "\n                   ")]:
        wrapped = place.format(folder, broken).replace("', Line", f"',{broken}Line")
        assert clang_records(head + wrapped + factor) == expected, wrapped


@pytest.mark.matrix(3)
@pytest.mark.parametrize("isa", isas())
def test_every_loop_is_vectorised_at_full_width(isa, tmp_path):
    assert missing(isa, tmp_path) == []


def test_this_test_can_fail(tmp_path):
    (tmp_path / "low").mkdir()
    (tmp_path / "errno").mkdir()
    isa = isas()[0]
    assert missing(isa, tmp_path / "low", "-O1") == loops(isa)
    without_roots = missing(isa, tmp_path / "errno", "-fmath-errno")
    assert {loop.file for loop in without_roots} >= {"adagrad.h", "adam.h", "rmsprop.h"}
