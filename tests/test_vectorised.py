"""The loop of every rule runs in vectors of full width, for both types, on every instruction set.

Read from the record of optimizations that gcc and clang write: their shorter reports (-fopt-info-vec, -Rpass) do not
say in which function a loop was, so that two vectorised copies of the float loop would pass for float and double.
"""

from __future__ import annotations

import gzip
import json
import re
from typing import NamedTuple

import pytest

from lrfast._engine.table import RULES

import toolchain
from toolchain import SOURCES

WIDTHS = {"baseline": 16, "avx2": 32, "avx512": 64, "neon": 16}
ISAS = {"x86_64": ["baseline", "avx2", "avx512"], "aarch64": ["neon"]}
ELEMENT_SIZES = {"f32": 4, "f64": 8}
VARIANTS = ("", "_norms", "_traced")


class Loop(NamedTuple):
    """Lines first .. last of a file, for one element type; of a rule in one of its variants."""

    file: str
    first: int
    last: int
    dtype: str
    variant: str = ""
    widths: tuple[int, ...] = ()  # what will do beside the full width: where types of several sizes meet


class Record(NamedTuple):
    """Something vectorised; `width` in bytes, 0 if the compiler does not tell."""

    file: str
    line: int
    dtype: str
    width: int
    variant: str


def isas() -> list[str]:
    return ISAS.get(toolchain.machine(), ["baseline"])


def loops(isa: str) -> list[Loop]:
    """Main loops of the rules, the stages, the statistics and of the reduction, whose inner one may be unrolled.

    Left out: comparisons of 64-bit integers, which SSE2 does not have, and the copy of float32 to float32, which
    becomes a call of memcpy.
    """
    found = []
    files = [
        *sorted((SOURCES / "rules").glob("*.h")),
        *(SOURCES / f"{n}.h" for n in ("reduce", "stages", "statistics")),
    ]
    for path in files:
        variants = VARIANTS if path.parent.name == "rules" else ("",)
        widths = (16, 32, 64) if path.name in ("stages.h", "statistics.h") else ()
        lines = path.read_text().splitlines()
        for number, (line, body) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
            for dtype in ELEMENT_SIZES:
                if widths and (isa == "baseline" or (dtype == "f32" and "out[i] = (float)p[i]" in body)):
                    continue
                if "for (size_t i = 0; i < n; i++)" in line:
                    found += [Loop(path.name, number, number, dtype, variant, widths) for variant in variants]
                if "for (size_t i = 0; i < whole; i += LRF_LANES)" in line:
                    found.append(Loop(path.name, number, number + 2, dtype))
    return found


def missing(isa: str, directory, *flags: str) -> list[Loop]:
    """Loops that were not vectorised at full width."""
    target = directory / "kernels.o"
    command = [*toolchain.CC, *toolchain.quoted_flags(), *toolchain.FLAGS, *flags, "-fsave-optimization-record"]
    toolchain.run([*command, "-c", SOURCES / f"kernels_{isa}.c", "-o", target], cwd=directory)
    compressed = list(directory.glob("*.opt-record.json.gz"))
    if compressed:
        records = gcc_records(json.loads(gzip.decompress(compressed[0].read_bytes()))[2])
    else:
        records = clang_records((directory / "kernels.opt.yaml").read_text())
    return [loop for loop in loops(isa) if not any(covers(record, loop, WIDTHS[isa]) for record in records)]


def covers(record: Record, loop: Loop, width: int) -> bool:
    place = record.file == loop.file and loop.first <= record.line <= loop.last
    same = record.dtype == loop.dtype and record.variant == loop.variant
    return place and same and record.width in (width, 0, *loop.widths)


def gcc_records(entries: list[dict]) -> list[Record]:
    records = []
    for entry in entries:
        message = "".join(part for part in entry.get("message", []) if isinstance(part, str))
        vectors = re.search(r"loop vectorized using (\d+) byte vectors", message)
        if vectors and entry["kind"] == "success":
            place = entry["location"]
            function, file = entry["function"], place["file"].rpartition("/")[2]
            records.append(Record(file, place["line"], dtype_of(function), int(vectors[1]), variant_of(function, file)))
    return records


def clang_records(text: str) -> list[Record]:
    """The loop vectorizer tells elements per vector; the other one, which sees unrolled loops, tells nothing.

    Sums are in float64 for both types.
    """
    records = []
    for entry in text.split("--- !")[1:]:
        head = re.match(
            r"Passed\nPass: +(loop-vectorize|slp-vectorizer)\nName: +(?:Vectorized|StoresVectorized)\n"
            r"DebugLoc: +\{ File: '[^']*?([^/']+)', Line: (\d+),.*?Function: +(\w+)",
            entry,
            re.DOTALL,
        )
        if head:
            file, dtype = head[2], dtype_of(head[4])
            factor = re.search(r"VectorizationFactor: +'(\d+)'", entry)
            size = 8 if file == "reduce.h" else ELEMENT_SIZES.get(dtype, 0)
            width = int(factor[1]) * size if factor else 0
            records.append(Record(file, int(head[3]), dtype, width, variant_of(head[4], file)))
    return records


def dtype_of(function: str) -> str:
    return next((dtype for dtype in ELEMENT_SIZES if f"_{dtype}" in function), "")


def variant_of(function: str, file: str) -> str:
    if file in ("reduce.h", "stages.h", "statistics.h"):
        return ""
    return next((variant for variant in VARIANTS[1:] if variant in function), "")


def test_every_rule_has_its_loop():
    """One of its own, or it calls that of another rule."""
    rules = "".join(path.read_text() for path in (SOURCES / "rules").glob("*.h"))
    bodies = re.findall(r"^LRF_UPDATE\((\w+),[^{]*\{(.*?)^\}", rules, re.MULTILINE | re.DOTALL)
    assert sorted(name for name, _ in bodies) == sorted(RULES)
    own = [name for name, body in bodies if "for (size_t i = 0; i < n; i++)" in body]
    called = {name: re.findall(r"LRF_VARIANT\((\w+)\)\(n, scalars, ", body) for name, body in bodies if name not in own}
    assert all(len(names) == 1 and names[0] in own for names in called.values()), called
    assert sum(len(loop.variant) > 0 for loop in loops(isas()[0])) == 2 * 2 * len(own)


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
