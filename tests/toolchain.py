"""The C compiler as the tests use it, and how what it makes is run.

CC and CXX name the compilers, cc and c++ by default. tests/rings.py runs the same tests with other compilers and sets
LRFAST_TEST_FLAGS (added to every compilation) and LRFAST_TEST_RUNNER (which starts programs of another machine) too.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src_c"
PROGRAMS = ROOT / "tests" / "c"
EXAMPLES = ROOT / "examples"

CC = shlex.split(os.environ.get("CC", "cc"))
CXX = shlex.split(os.environ.get("CXX", "c++"))
FLAGS = shlex.split(os.environ.get("LRFAST_TEST_FLAGS", ""))
RUNNER = shlex.split(os.environ.get("LRFAST_TEST_RUNNER", ""))

PEDANTIC = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
STRICT = [*PEDANTIC, "-Wshadow", "-Wconversion", "-std=c11"]

# Functions that differ between C libraries; sqrt does not.
LIBM = re.compile(
    r"\b(?:a?(?:sin|cos|tan)h?|atan2|sincos|exp2?|expm1|exp10|log(?:2|10|1p|b)?|i?logb|pow|power|cbrt|hypot|fma|fmod|ldexp|"
    r"scalbl?n|frexp|modf|remainder|remquo|l?l?r?int|l?l?round|nearbyint|ceil|floor|trunc|erfc?|[lt]gamma|float_power|"
    r"geomspace|logspace|logaddexp2?)[fl]?\b"
)


def public_headers() -> list[str]:
    """Those written for C++ as well."""
    return sorted(path.name for path in SOURCES.glob("*.h") if 'extern "C"' in path.read_text())


def has_cxx() -> bool:
    """Whether there is a C++ compiler; the tests need only one for C."""
    return bool(CXX) and shutil.which(CXX[0]) is not None


def quoted_flags() -> list[str]:
    """The flags of the line by which lrfast.h tells to build the sources by hand."""
    line = re.search(r"^ \*\s+cd src_c && cc (.+) -c \*\.c$", (SOURCES / "lrfast.h").read_text(), re.MULTILINE)
    assert line, "lrfast.h no longer tells how to build by hand"
    return line[1].split()


def run(command: list[object], **kwargs: object) -> str:
    """What a command prints on stdout; an AssertionError with all that it says if it fails."""
    __tracebackhide__ = True
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        package = "gcc libc6-dev" if words[0] in (CC[0], "nm") else words[0]
        raise AssertionError(f"{words[0]} is missing: apt install {package}")
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, **kwargs)
    assert done.returncode == 0, f"{shlex.join(words)} gives {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def build_quickly(tree: Path) -> None:
    """Takes optimization out of setup.py in a copy of the tree: a quarter of the time, and the same bits."""
    setup = (tree / "setup.py").read_text(encoding="utf-8")
    assert setup.count('["-O3", ') == 1
    (tree / "setup.py").write_text(setup.replace('["-O3", ', '["-O0", '), encoding="utf-8")


def build_objects(directory: Path, *extra: str) -> list[Path]:
    """Object files of src_c by the quoted line, in a directory of their own."""
    (directory / "src_c").symlink_to(SOURCES)
    sources = sorted(f"src_c/{path.name}" for path in SOURCES.glob("*.c"))
    run([*CC, *quoted_flags(), *FLAGS, *extra, "-c", *sources], cwd=directory)
    return sorted(directory.glob("*.o"))


def build_program(source: Path, objects: list[Path], directory: Path) -> Path:
    """A program from one C file and the objects of the core; -std=c11 and every warning an error.

    What is generated for it to include lies in the directory.
    """
    program = directory / source.stem
    compiler = [*CC, *quoted_flags(), *FLAGS, *STRICT]
    run([*compiler, f"-I{SOURCES}", f"-I{directory}", source, *objects, "-pthread", "-lm", "-o", program])
    return program


def run_program(program: Path, *arguments: str, isa: str | None = None) -> str:
    """What a program prints, run with LRFAST_ISA as given or unset."""
    __tracebackhide__ = True
    environment = {name: value for name, value in os.environ.items() if name != "LRFAST_ISA"}
    if isa is not None:
        environment["LRFAST_ISA"] = isa
    return run([*RUNNER, program, *arguments], env=environment)


def machine() -> str:
    """What the compiler makes programs for: "x86_64", "aarch64", ..."""
    return run([*CC, "-dumpmachine"]).partition("-")[0]
