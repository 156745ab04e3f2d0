"""Whatever flags the core is compiled with: the promised bits, or a refusal that names flag and cure.

Which of the two is written down for every set of flags. A run compiles one of the equal sets, all of the refused.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import golden
import toolchain
from toolchain import CC, FLAGS, PROGRAMS, SOURCES, run, run_program

MACHINE = toolchain.machine()
IS_CLANG = "clang" in run([*CC, "--version"])
IS_X86 = MACHINE == "x86_64"
# What `cc -c *.c` knows nothing of: the header's line is faster, and gives no other bits.
LEVELS = ["", "-O0", "-O1", "-O2", "-O3", "-Os"]
MACHINES = (
    ["-march=native", "-march=sapphirerapids", "-march=haswell", "-mavx512f -mfma -mbmi2", "-mno-avx2 -mno-avx512f"]
    if IS_X86
    else ["-march=armv8.2-a", "-march=armv9-a"]
)
HARMLESS = ["-fno-math-errno -fno-trapping-math", "-fno-builtin -ftrapv", "-frounding-math", "-fshort-enums"]
HARMLESS += ["-fpack-struct", "-D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE"]
PARTS = "-fassociative-math -fno-signed-zeros -fno-trapping-math"
EQUAL = {
    "gcc": [
        *HARMLESS,
        "-ffp-contract=fast",
        "-std=gnu17 -ffp-contract=fast -march=native" if IS_X86 else "-std=gnu17 -ffp-contract=fast",
        "-flto",
        "-Ofast -fno-fast-math",
        "-funsafe-math-optimizations -fno-unsafe-math-optimizations",
        "-fassociative-math",  # gcc ignores it without the two that belong to it
        "-fsignaling-nans",
        "-fcx-limited-range",
        "-fexcess-precision=fast",
        *(["-mrecip", "-mlong-double-64"] if IS_X86 else []),
    ],
    "clang": [
        *HARMLESS,
        "-ffp-contract=fast",  # avx512 contracts all the same, and is passed over
        "-ffp-contract=fast -march=haswell",
        "-funsafe-math-optimizations",
        PARTS,
        f"{PARTS} -march=native",
        "-fno-signed-zeros",
        "-freciprocal-math",
        "-fapprox-func",
        "-fno-honor-nans",
        "-fno-honor-infinities",
        "-fdenormal-fp-math=positive-zero",
        "-mrecip=all",
        "-ffp-model=precise",
        "-ffp-model=strict",
    ],
}
# What the message has to name.
REFUSED = {
    "gcc": {
        "-ffast-math": "-ffast-math",
        "-Ofast": "-Ofast",
        "-Ofast -fno-associative-math": "-Ofast",
        "-ffinite-math-only": "-fno-finite-math-only",
        "-funsafe-math-optimizations": "-funsafe-math-optimizations",
        PARTS: "-fassociative-math",
        "-freciprocal-math": "-freciprocal-math",
        "-fno-signed-zeros": "-fno-signed-zeros",
        "-fsingle-precision-constant": "-fsingle-precision-constant",
        "-std=c11 -ffp-contract=fast": "-ffp-contract=fast",
        "-std=c99": "-std=c11",
        "-ansi": "-std=c11",
        **({"-mfpmath=387": "-mfpmath=387", "-mfpmath=both": "-mfpmath=both", "-m32": "-m32"} if IS_X86 else {}),
    },
    "clang": {
        "-ffast-math": "-ffast-math",
        "-Ofast": "-Ofast",
        "-ffp-model=fast": "-ffp-model=fast",
        "-ffinite-math-only": "-fno-finite-math-only",
        "-fno-honor-nans -fno-honor-infinities": "-fno-finite-math-only",
        "-std=c99": "-std=c11",
        "-ansi": "-std=c11",
        **({"-m32": "-m32"} if IS_X86 else {}),
    },
}
FAMILY = "clang" if IS_CLANG else "gcc"
SETS = [f"{level} {machine}".strip() for level in LEVELS for machine in ("", *MACHINES)]
SETS += [f"-O2 {flags}" for flags in EQUAL[FAMILY]]


def compile_core(directory: Path, *flags: str) -> list[Path]:
    """Objects of the sources by these flags alone, as a build system of somebody else would."""
    (directory / "src_c").symlink_to(SOURCES)
    run([*CC, *FLAGS, *flags, "-c", *sorted(f"src_c/{path.name}" for path in SOURCES.glob("*.c"))], cwd=directory)
    return sorted(directory.glob("*.o"))


def link_golden(directory: Path, objects: list[Path], *flags: str) -> Path:
    """The program that prints the hashes; it is compiled without the flags under test."""
    golden.write_variants(directory / "golden_variants.inc")
    program = directory / "golden"
    source = [PROGRAMS / "golden.c", f"-I{SOURCES}", f"-I{directory}"]
    run([*CC, *FLAGS, *flags, *source, *objects, "-pthread", "-lm", "-o", program])
    return program


def assert_equal(program: Path) -> None:
    expected = set(golden.read().items())
    isas = run_program(program, "isas").split()
    assert isas
    for isa in isas:
        got = {tuple(line.split()) for line in run_program(program, isa=isa).splitlines()}
        assert (isa, got ^ expected) == (isa, set())


@pytest.mark.matrix(len(SETS))
@pytest.mark.parametrize("flags", SETS)
def test_equal(flags, tmp_path):
    objects = compile_core(tmp_path, *flags.split())
    assert_equal(link_golden(tmp_path, objects, *(["-flto", "-O2"] if "-flto" in flags else [])))
    if IS_X86 and "-flto" not in flags:
        for path in objects:
            if "kernels_avx" not in path.name:
                beyond = re.findall(r"\t(v[a-z]+\w*|shlx|shrx|sarx|mulx|movbe)\s", run(["objdump", "-d", path]))
                assert (path.name, beyond[:5]) == (path.name, []), "not for every processor"


@pytest.mark.matrix(len(SETS))
@pytest.mark.parametrize("level", ["-Ofast", "-ffast-math"])
def test_a_program_linked_so_that_denormals_are_zero(level, tmp_path):
    """gcc then starts the program with flush-to-zero; each part of a step sets the default environment."""
    assert_equal(link_golden(tmp_path, compile_core(tmp_path, "-O2"), level, "-fno-fast-math"))


@pytest.mark.parametrize("flags", REFUSED[FAMILY])
def test_refused_by_every_source(flags):
    for source in sorted(SOURCES.glob("*.c")):
        message = refusal([*CC, *FLAGS, *flags.split(), "-E", source])
        assert REFUSED[FAMILY][flags] in message, (source.name, message)


@pytest.mark.skipif(not toolchain.has_cxx(), reason="no C++ compiler")
def test_refused_by_a_compiler_of_cxx():
    for source in sorted(SOURCES.glob("*.c")):
        assert "compile them as C" in refusal([*toolchain.CXX, "-E", source]), source.name


def refusal(command: list[object]) -> str:
    """The first error of a compilation that has to fail."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)
    assert done.returncode != 0, command
    return next(line for line in done.stderr.splitlines() if "error:" in line)


def test_every_source_begins_and_ends_as_it_has_to():
    """What compiler.h sets has to come before everything and to be taken back."""
    for path in SOURCES.glob("*.c"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL).strip()
        first = re.match(r'(?:#if.*\n#define _GNU_SOURCE.*\n#endif\n)?#include "(\w+\.h)"', text)
        assert first, path.name
        assert first[1] in ("compiler.h", "internal.h", "tiles.h"), path.name
        assert text.endswith("\nLRF_END_OF_SOURCE"), path.name
