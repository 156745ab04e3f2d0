"""The rings around `make test`: `python tests/rings.py check` is `make check`, `... all` is `make test-all`.

A cell is a few commands in an environment of tests/toolchain.py. check runs the COMPILERS and of each big matrix the
line of the day (drawn.py). all runs every file of tests whole and every cell of every matrix; what passes in a tree
without changes is kept by commit in build/rings, so that a run that was cut off goes on where it was. A missing tool
is a failure that names its package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import drawn

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"

PACKAGES = {
    "gcc": "gcc libc6-dev",
    "g++": "g++",
    "clang": "clang",
    "clang++": "clang",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "qemu-aarch64": "qemu-user",
}
# Compilers that come without what they link; found out by linking.
LIBRARIES = {
    "gcc -fsanitize=address,undefined": "libgcc-12-dev, or that of your gcc",
    "clang -fsanitize=address,undefined": "libclang-rt-14-dev, or that of your clang",
    "aarch64-linux-gnu-gcc -static": "libc6-dev-arm64-cross",
}


class Cell(NamedTuple):
    """Commands that must succeed one after the other, in the tree or in a copy of it."""

    name: str
    commands: list[list[str]]
    environment: Mapping[str, str] = MappingProxyType({})
    copied: bool = False


def pytest(*arguments: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "pytest", "-q", *arguments]


GCC = {"CC": "gcc", "CXX": "g++"}
CLANG = {"CC": "clang", "CXX": "clang++"}
AARCH64 = {"CC": "aarch64-linux-gnu-gcc -static", "CXX": "", "LRFAST_TEST_RUNNER": "qemu-aarch64"}
SANITIZED = {"LRFAST_TEST_FLAGS": "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"}
# Forked children that start threads are what the pool is for.
THREADS = {"LRFAST_TEST_FLAGS": "-g -fsanitize=thread", "TSAN_OPTIONS": "die_after_fork=0 halt_on_error=1"}

CORE = pytest("tests/test_c.py")
CORE_AND_LOOPS = pytest("--whole", "tests/test_c.py", "tests/test_vectorised.py")
# Python itself is built without the sanitizer, whose library therefore comes first. What Python leaves at its end is no
# leak of ours. NumPy's plan has nothing in C.
PRELOADED = (
    "LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so) PYTHONMALLOC=malloc "
    "ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 "
    f"{sys.executable} -m pytest -q -p no:xdist -s -k 'not numpy and not lines and not in_c' tests/test_hostile.py "
    "tests/test_sharing.py tests/test_interrupts.py tests/test_nomemory.py"
)
SANITIZER = "-fsanitize=address,undefined"
# Where neither bits nor speed are the question.
QUICKLY = "import sys, pathlib; sys.path.insert(0, 'tests'); import toolchain; toolchain.build_quickly(pathlib.Path())"
BUILD_QUICKLY = [sys.executable, "-c", QUICKLY]
BUILT_BY_CLANG = "import lrfast; print(c := lrfast.show_config('dicts')['compiler']); assert 'clang' in c.lower()"
COMPILERS = [
    Cell("gcc", [CORE_AND_LOOPS], GCC),
    Cell("clang", [CORE_AND_LOOPS], CLANG),
    Cell("gcc, address and undefined behaviour sanitizers", [CORE], {**GCC, **SANITIZED}),
    Cell("clang, address and undefined behaviour sanitizers", [CORE], {**CLANG, **SANITIZED}),
    Cell("gcc, thread sanitizer", [pytest("tests/test_c.py", "-k", "pool or threads")], {**GCC, **THREADS}),
    Cell("aarch64 under qemu", [CORE_AND_LOOPS], AARCH64),
    Cell(
        "extension by clang",
        [
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            [sys.executable, "-c", BUILT_BY_CLANG],
            pytest("-n", "auto", "tests/test_bits.py"),
        ],
        {"CC": "clang", "LRFAST_REQUIRE_EXT": "1"},
        copied=True,
    ),
    Cell(
        "extension, address and undefined behaviour sanitizers",
        [
            BUILD_QUICKLY,
            ["env", f"CFLAGS={SANITIZER}", f"LDFLAGS={SANITIZER}", sys.executable, "setup.py", "-q", "build_ext", "-i"],
            ["sh", "-c", PRELOADED],
        ],
        {"CC": "gcc", "LRFAST_REQUIRE_EXT": "1"},
        copied=True,
    ),
]

# Of the mutants of the rules a few are drawn by date; `make mutants` judges all, and a share of the others.
MUTANTS = Cell("mutants of the day", [[sys.executable, "tests/mutants.py", "20"]])

# The promised bits do not depend on what a compiler may do; each of these takes its own line of the day.
FLAGS = {"gcc": GCC, "clang": CLANG, "aarch64": AARCH64}


def flags(*arguments: str) -> list[Cell]:
    return [Cell(f"flags, {name}", [pytest(*arguments, "tests/test_flags.py")], FLAGS[name]) for name in FLAGS]


def builds_extensions(python: str) -> bool:
    """Whether there is this Python, with venv and header."""
    header = "os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'))"
    code = f"import ensurepip, os, sys, sysconfig, venv; sys.exit(not {header})"
    return (
        shutil.which(python) is not None and subprocess.run([python, "-c", code], capture_output=True).returncode == 0
    )


# Those of Python that are installed, each with NumPys that it can have; 1.26 is the oldest that we support.
BINDING = [
    f"tests/test_{name}.py" for name in ("bits", "options", "stats", "optim", "checkpoint", "bad_input", "threads")
]
VERSIONS = [
    Cell(
        f"{python} with NumPy {numpy}",
        [
            BUILD_QUICKLY,
            [python, "-m", "venv", ".venv"],
            [".venv/bin/pip", "install", "-q", f"numpy=={numpy}", "--editable", ".[demo,test]"],
            pytest("-n", "auto", *BINDING, python=".venv/bin/python"),
        ],
        {"LRFAST_REQUIRE_EXT": "1"},
        copied=True,
    )
    for python, numpys in {
        "python3.11": ["1.26.*", "2.*"],
        "python3.12": ["1.26.*", "2.*"],
        "python3.13": ["2.1.*", "2.*"],
        "python3.14": ["2.*"],
    }.items()
    if builds_extensions(python)
    for numpy in numpys
]

FILES = [
    Cell(f"{name}, whole", [pytest("-n", "auto", "--whole", name)])
    for name in sorted(str(path.relative_to(ROOT)) for path in TESTS.rglob("test_*.py"))
    if name not in ("tests/test_with_torch.py", "tests/test_flags.py")  # cells of their own
]
TORCH = Cell("with PyTorch", [["make", "test-torch"]])


def main(ring: str) -> int:
    missing = missing_packages()
    for tool, package in missing.items():
        print(f"make {ring} needs {tool}: apt install {package}")
    if missing:
        return 1
    if ring == "check":
        cells = [*COMPILERS, MUTANTS, drawn.one_of(flags()), drawn.one_of(VERSIONS)]
        print(f"LRFAST_TEST_LINE={drawn.number()} draws the same lines: {cells[-2].name}; {cells[-1].name}")
    else:
        cells = [*FILES, TORCH, *COMPILERS, MUTANTS, *flags("--whole"), *VERSIONS]
    version, remembers = commit()
    folder = ROOT / "build" / "rings" / version
    folder.mkdir(parents=True, exist_ok=True)
    results = [result(cell, folder, remembers and ring == "all") for cell in cells]
    print(f"\n{version:60} result    tests seconds")
    for cell, found in zip(cells, results, strict=True):
        print(f"{cell.name:60} {found['result']:8} {found['tests']:6} {found['seconds']:7.0f}")
    return int(any(found["result"] != "passed" for found in results))


def commit() -> tuple[str, bool]:
    """The commit of the tree, and whether the tree is just that."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    if found.returncode != 0:
        return "unknown", False
    return found.stdout.strip() + ("-changed" if changes.stdout else ""), not changes.stdout


def result(cell: Cell, folder: Path, remembers: bool) -> dict[str, str | float]:
    """What becomes of a cell, or what became of it when it passed before."""
    file = folder / (re.sub(r"[^\w.=]+", "-", cell.name) + ".json")
    if remembers and file.exists() and (known := json.loads(file.read_text()))["result"] == "passed":
        return known
    print(f"\n==== {cell.name}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        tree, environment = ROOT, dict(cell.environment)
        if cell.copied:
            tree = Path(directory) / "lrfast"
            ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.so", "*.egg-info")
            shutil.copytree(ROOT, tree, ignore=ignored)
            environment["PYTHONPATH"] = str(tree)
        passed, tests = True, 0
        for command in cell.commands:
            if passed:
                code, output = run(command, tree, environment)
                passed = code == 0
                tests += sum(map(int, re.findall(r"(\d+) passed", output)))
    found = {"result": "passed" if passed else "failed", "tests": tests, "seconds": time.monotonic() - start}
    file.write_text(json.dumps(found))
    return found


def run(command: list[str], directory: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit status and output of a command; the output goes where ours goes as well."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("LRFAST_ISA", "CFLAGS", "LDFLAGS")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    lines = []
    with subprocess.Popen(command, cwd=directory, env={**inherited, **environment}, **pipes) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def missing_packages() -> dict[str, str]:
    """Tool -> package of what is not there."""
    missing = {tool: package for tool, package in PACKAGES.items() if not shutil.which(tool)}
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "empty.c"
        program.write_text("int main(void)\n{\n    return 0;\n}\n")
        for command, package in LIBRARIES.items():
            words = command.split()
            if words[0] not in missing:
                done = subprocess.run([*words, program, "-o", program.with_suffix("")], capture_output=True)
                if done.returncode != 0:
                    missing[command] = package
    return missing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
