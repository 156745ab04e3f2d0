"""The C core as a C programmer uses it: built by hand with the line that the header quotes.

Programs in tests/c test it; here they are compiled with every warning as an error and run, each with the best
instruction set. tests/rings.py repeats this file with clang, sanitizers, and for aarch64.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import lrfast
from lrfast._engine.table import RULES

import golden
import toolchain
from toolchain import EXAMPLES, PROGRAMS, SOURCES, build_program, run, run_program

# Valid in every C and C++.
USER = """
int main(void)
{
    lrf_group group;
    lrf_options options;
    if (lrf_options_init(&options, sizeof options) != LRF_OK)
        return 1;
    if (lrf_group_init(&group, sizeof group, LRF_ADAM) != LRF_OK || group.beta1 != 0.9)
        return 2;
    return lrf_step(&group, 1, &options, 0) != LRF_OK;
}
"""
DTYPES = ("f32", "f64")
STANDARDS = ["c99", "c11", "c17", *(["c++11", "c++17"] if toolchain.has_cxx() else [])]


@pytest.mark.parametrize("name", sorted(path.stem for path in PROGRAMS.glob("test_*.c")))
def test_program(name, objects, tmp_path):
    run_program(build_program(PROGRAMS / f"{name}.c", objects, tmp_path))


@pytest.mark.skipif(toolchain.RUNNER != [], reason="an emulator takes an hour for 2^32 numbers")
@pytest.mark.parametrize("isa", [isa for isa in lrfast.available_isas() if isa != "numpy"])
def test_formats_of_every_number(isa, objects, tmp_path, request):
    """All 2^32; test_program looks at those where something changes."""
    if not request.config.getoption("--whole"):
        pytest.skip("half a minute: make check")
    run_program(build_program(PROGRAMS / "test_formats.c", objects, tmp_path), "whole", isa=isa)


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.c")))
def test_example(name, objects, tmp_path):
    assert run_program(build_program(EXAMPLES / f"{name}.c", objects, tmp_path))


def test_golden_hashes_on_every_isa(objects, tmp_path):
    expected = set(golden.read().items())
    golden.write_variants(tmp_path / "golden_variants.inc")
    program = build_program(PROGRAMS / "golden.c", objects, tmp_path)
    isas = run_program(program, "isas").split()
    assert isas
    for isa in isas:
        got = {tuple(line.split()) for line in run_program(program, isa=isa).splitlines()}
        assert (isa, got ^ expected) == (isa, set())


def test_formats_do_not_multiply_kernels(objects):
    """Per rule, variant and type one function; per format its conversions, and nothing that knows a rule."""
    rules = {f"{name}{variant}_{dtype}" for name in RULES for variant in ("", "_norms", "_traced") for dtype in DTYPES}
    conversions = {f"{kind}_{name}" for kind in ("decode", "settle") for name in ("float16", "bfloat16")}
    copies = {f"to_{name}_{dtype}" for name in ("float16", "bfloat16", "float32") for dtype in DTYPES}
    begins_like_a_rule = re.compile("(?:{})(?:_|$)".format("|".join(RULES)))
    looked_at = 0
    for path in objects:
        lines = run(["nm", "-P", path]).splitlines() if path.name.startswith("kernels_") else []
        names = {line.split()[0].partition(".")[0].removesuffix("_loop") for line in lines if " t " in line}
        if names & rules:  # those of this architecture; sanitizers add functions to every file
            looked_at += 1
            assert {name for name in names if begins_like_a_rule.match(name)} == rules, path.name
            assert {name for name in names if "float" in name} - {
                "average_in_float64_f32",
                "average_in_float64_f64",
            } <= (conversions | copies), path.name
    assert looked_at


def test_no_libm_but_the_root(objects):
    names = run(["nm", "-u", "-P", *objects]).split()
    assert "pthread_create" in names  # sanitizers have a memcpy of their own
    assert {name for name in names if toolchain.LIBM.fullmatch(name)} == set()


@pytest.mark.parametrize("standard", STANDARDS)
def test_header_in_every_language(standard, objects, tmp_path):
    is_cxx = standard.startswith("c++")
    source = tmp_path / ("user.cpp" if is_cxx else "user.c")
    source.write_text("".join(f'#include "{name}"\n' for name in toolchain.public_headers()) + USER)
    compiler = [*(toolchain.CXX if is_cxx else toolchain.CC), f"-std={standard}", *toolchain.FLAGS, *toolchain.PEDANTIC]
    run([*compiler, f"-I{SOURCES}", source, *objects, "-pthread", "-lm", "-o", tmp_path / "user"])
    run_program(tmp_path / "user")


def test_a_wrong_isa_is_a_value_error_in_python():
    """In C it is LRF_BAD_ISA: test_isa.c."""
    done = subprocess.run(
        [sys.executable, "-c", "import lrfast"],
        env={**os.environ, "LRFAST_ISA": "nonsense"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ValueError: LRFAST_ISA='nonsense'")
    assert all(isa in message for isa in lrfast.available_isas())
