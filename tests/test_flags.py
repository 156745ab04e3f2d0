"""Whatever flags the core is compiled with: the promised bits, or a refusal that names flag and cure.

Which of the two is written down for every set of flags. A run compiles one of the equal sets, all of the refused.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import golden
import selftest
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
HARMLESS += ["-D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE"]
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
        message = refusal([*CC, *FLAGS, *flags.split(), "-Wfatal-errors", "-E", source])
        assert REFUSED[FAMILY][flags] in message, (source.name, message)


def test_packed_structs_are_refused():
    """Of them there is no macro, so that it takes more than the preprocessor."""
    for source in (SOURCES / "elementary.c", SOURCES / "table.c"):
        assert "-fpack-struct" in refusal([*CC, *FLAGS, "-fpack-struct", "-fsyntax-only", source])


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


@pytest.mark.skipif(
    not IS_X86 or shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64: apt install qemu-user"
)
@pytest.mark.matrix(4)
def test_a_build_for_a_newer_processor_runs_on_an_older(tmp_path):
    objects = compile_core(tmp_path, "-O1", "-march=sapphirerapids")
    (tmp_path / "program.c").write_text(PROGRAM)
    program = [tmp_path / "program.c", *objects, "-pthread", "-lm", "-o", tmp_path / "program"]
    run([*CC, *FLAGS, f"-I{SOURCES}", *program])
    for processor in ("Conroe-v1", "Nehalem-v1"):
        status, isa, *_ = run(["qemu-x86_64", "-cpu", processor, tmp_path / "program"]).split()
        assert (processor, status, isa) == (processor, "0", "baseline")


# ---- what only the self test finds ------------------------------------------------------------------------------


def test_the_core_knows_the_bits_of_the_specification():
    assert selftest.FILE.read_text(encoding="utf-8") == selftest.text(), "python tests/selftest.py writes them anew"


PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "lrfast.h"
int main(void)
{
    float p = 1, g = 1;
    lrf_tensor tensor = {.param = &p, .grad = &g, .count = 1};
    lrf_group group;
    lrf_group_init(&group, sizeof group, LRF_SGD);
    group.tensors = &tensor;
    group.count = 1;
    const lrf_status status = lrf_step(&group, 1, NULL, NULL);
    printf("%d %s %d %s", status, lrf_isa() ? lrf_isa() : "none", lrf_set_isa(NULL), lrf_status_text(status));
    for (size_t i = 0; lrf_isa_name(i); i++)
        printf(" %s", lrf_isa_name(i));
    return p != (status == LRF_OK ? 1 - 1e-3f : 1);
}
"""
# File of src_c -> what a wrong build might make of it, and flags for it beside those of the header.
WRONG = {
    "contraction": ("kernels/kernels.h", "", "", "-ffp-contract=fast -mfma" if IS_X86 else "-ffp-contract=fast"),
    "no NaN": ("kernels/stages.h", "<= LRF_LARGEST ? 0 : 1", "> LRF_LARGEST ? 1 : 0", ""),
    "another order of sums": ("kernels/reduce.h", "half > 0; half /= 2", "half > 0; half /= 4", ""),
    "reciprocals": ("rules/adam.h", "k.lr * m / d", "k.lr * m * (1 / d)", ""),
    "estimated roots": ("rules/rmsprop.h", "root(", "(real)1.0000001 * root(", ""),
    "denormals are zero": ("rules/sgd.h", "p[i] = p[i] - u;", "p[i] = flush(p[i] - u);", ""),
}  # fmt: skip


def outcome(directory: Path, objects: list[Path], isa: str | None = None) -> list[str]:
    (directory / "program.c").write_text(PROGRAM)
    run(
        [*CC, *FLAGS, f"-I{SOURCES}", directory / "program.c", *objects, "-pthread", "-lm", "-o", directory / "program"]
    )
    return run_program(directory / "program", isa=isa).split()


@pytest.mark.matrix(len(WRONG))
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_kernels_are_passed_over(kind, objects, tmp_path):
    """One kernel file is made wrong: its kernels are not there. The best, where another is left."""
    name, old, new, flags = WRONG[kind]
    isas = outcome(tmp_path, objects)[-3:]
    wrong = next(isa for isa in ("avx2", "baseline", "neon") if isa in isas)
    shutil.copytree(SOURCES, tmp_path / "wrong")
    if old:
        text = (tmp_path / "wrong" / name).read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "wrong" / name).write_text(text.replace(old, new), encoding="utf-8")
    else:
        compiler = (tmp_path / "wrong" / "compiler.h").read_text(encoding="utf-8")
        compiler = re.sub(r"#pragma (GCC optimize|STDC FP|clang fp|float_control).*", "", compiler)
        compiler = compiler.replace('target("avx2")', 'target("avx2,fma")').replace(',avx2")', ',avx2,fma")')
        (tmp_path / "wrong" / "compiler.h").write_text(compiler, encoding="utf-8")
    target = tmp_path / f"kernels_{wrong}.o"
    source = tmp_path / "wrong" / f"kernels_{wrong}.c"
    run([*CC, *toolchain.quoted_flags(), *FLAGS, *flags.split(), "-c", source, "-o", target])
    changed = [target if path.name == target.name else path for path in objects]
    status, isa, _, *words = outcome(tmp_path, changed)
    assert wrong not in (isa, *words)
    assert status == ("14" if isa == "none" else "0")
    assert outcome(tmp_path, changed, isa=wrong)[0] == "14"


def test_without_right_kernels_there_is_no_step(objects, tmp_path):
    """What is compiled beside the kernels is tried with them."""
    shutil.copytree(SOURCES, tmp_path / "wrong")
    text = (tmp_path / "wrong" / "scalars.c").read_text(encoding="utf-8")
    assert "1 + (double)(t - 1) * group->lr_decay" in text
    text = text.replace(
        "1 + (double)(t - 1) * group->lr_decay", "1 + (double)(float)((double)(t - 1) * group->lr_decay)"
    )
    (tmp_path / "wrong" / "scalars.c").write_text(text, encoding="utf-8")
    run([*CC, *toolchain.quoted_flags(), *FLAGS, "-c", tmp_path / "wrong" / "scalars.c", "-o", tmp_path / "scalars.o"])
    changed = [tmp_path / "scalars.o" if path.name == "scalars.o" else path for path in objects]
    status, isa, back, *text = outcome(tmp_path, changed)
    assert (status, isa, back) == ("14", "none", "14")
    assert "-ffast-math," in text
    assert text[-1] == "-ffp-contract=fast"  # and no name of kernels after it


def test_python_says_once_that_numpy_runs_instead():
    code = """
import sys, types, warnings
core = types.ModuleType("lrfast._engine._core")
core.has_kernels = lambda: False
sys.modules["lrfast._engine._core"] = core
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import lrfast
(warning,) = caught
assert warning.category is RuntimeWarning, warning
print(warning.message)
assert lrfast.available_isas() == ("numpy",)
print(lrfast.show_config("dicts")["why"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "LRFAST_ISA"}
    warned, why = run([sys.executable, "-c", code], env=environment).splitlines()
    assert "do not give the promised bits" in warned
    assert "-ffp-contract=fast" in why
