"""Copies of the tree in which mutants are built and meet the tests, for tests/mutants.py.

Each is built for one instruction set. A mutant meets the golden hashes, the programs in C, then the tests of Python,
those that know its file first; the first that fails ends it, and so do seconds without an end. A test that failed has
to pass without the mutant. Nothing is compiled before it is needed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from mutations import Mutant
from rings import ROOT

import golden

CC = [*shlex.split(os.environ.get("CC", "cc")), "-std=c11", "-O1", "-g0", "-fno-math-errno", "-fno-trapping-math"]
CC += ["-ffp-contract=off", "-fPIC", "-pthread", "-fvisibility=hidden", "-Isrc_c", "-Itests/c", "-Ibuild", "-w"]
EXTENSION = "lrfast/_engine/_core" + sysconfig.get_config_var("EXT_SUFFIX")

# What a mutant meets: tests of behaviour that take seconds, by the start of its file's name. The more they know of the
# file, the earlier they come.
IN_C = ["options", "stats", "bits", "norms", "numbers", "bad_settings", "bad_input"]
IN_PYTHON = ["options", "plan", "optim", "bad_input", "bad_settings", "bad_options", "messages", "stats", "table"]
IN_PYTHON += ["schedules", "placement", "names", "further_keys", "checkpoint", "norms"]
IN_PYTHON += ["loading", "overflow", "averages", "defined", "hostile"]
FIRST = {
    "src_c/pool": ["threads"],
    "src_c/step": ["options", "bits", "threads"],
    "src_c/elementary": ["elementary", "bits"],
    "src_c/norm": ["norms", "options", "overflow"],
    "src_c/overlap": ["bad_input"],
    "src_c/check": ["bad_settings", "bad_input", "numbers"],
    "src_c/table": ["table"],
    "src_c/kernels/statistics": ["stats"],
    "src_c/update": ["options", "stats", "overflow", "averages", "bits"],
    "src_c/selftest": ["flags"],
    "src_c/rules/": ["bits", "numbers", "overflow", "stats"],
    "src_c/scalars": ["bits", "numbers", "carried", "options"],
    "src_c/": ["bits", "options", "stats"],
    "lrfast/_engine/_core": ["plan", "bad_input", "optim", "options", "carried", "bits", "threads"],
    "lrfast/_engine/archive": ["archive", "checkpoint"],
    "lrfast/_engine/arithmetic": ["bits", "numbers"],
    "lrfast/_engine/averages": ["averages"],
    "lrfast/_engine/backend": ["optim", "threads"],
    "lrfast/_engine/buffers": ["bad_input", "bad_options"],
    "lrfast/_engine/checkpoint": ["checkpoint", "torch_layouts", "loading", "names"],
    "lrfast/_engine/checks": ["bad_input", "bad_settings", "checkpoint"],
    "lrfast/_engine/commit": ["checkpoint", "loading"],
    "lrfast/_engine/elementary": ["elementary", "schedules", "bits"],
    "lrfast/_engine/family": ["optim"],
    "lrfast/_engine/fit": ["numbers"],
    "lrfast/_engine/form": ["bad_input"],
    "lrfast/_engine/further": ["further_keys"],
    "lrfast/_engine/matching": ["names", "loading"],
    "lrfast/_engine/moved": ["fixtures"],
    "lrfast/_engine/norm": ["norms", "options"],
    "lrfast/_engine/numpy_plan": ["plan", "options", "carried", "stats", "bits", "overflow"],
    "lrfast/_engine/optimizer": ["optim", "options", "defined", "loading", "hostile"],
    "lrfast/_engine/options": ["bad_options", "options"],
    "lrfast/_engine/recorder": ["stats"],
    "lrfast/_engine/specification": ["bits", "numbers"],
    "lrfast/_engine/stages": ["options", "bits", "stats", "overflow"],
    "lrfast/_engine/surroundings": ["options", "averages", "stats", "monitor", "defined"],
    "lrfast/_engine/stat": ["stats", "monitor", "overflow"],
    "lrfast/_engine/settings": ["bad_settings", "schedules", "torch_layouts", "loading"],
    "lrfast/_engine/table": ["table"],
    "lrfast/_engine/threads": ["threads"],
    "lrfast/_engine/trial": ["finder"],
    "lrfast/_engine/": ["options", "plan", "bits"],
}
# Lines of golden.txt that come before all others: those of the rule in a file.
FIRST_LINES: dict[str, list[str]] = {}
for case in golden.cases():
    FIRST_LINES.setdefault(f"src_c/rules/{case.cls.__module__.rpartition('.')[2]}.h", []).append(case.name)
OTHER_LINES = ["adam-clipped", "adamw-tail", "momentum"]


class Failed(Exception):
    """A command failed, or did not end: its output."""


def make_trees(folder: Path, count: int) -> SimpleQueue[Tree]:
    """Copies that are built."""
    shutil.rmtree(folder / "tree-1", ignore_errors=True)
    ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.so", "*.egg-info", "_core.c")
    shutil.copytree(ROOT, folder / "tree-1", ignore=ignored)
    trees: SimpleQueue[Tree] = SimpleQueue()
    trees.put(first := Tree(folder / "tree-1").built())
    for i in range(2, count + 1):
        shutil.rmtree(folder / f"tree-{i}", ignore_errors=True)
        shutil.copytree(folder / "tree-1", folder / f"tree-{i}")
        trees.put(Tree(folder / f"tree-{i}", first.patience))
    return trees


class Tree:
    """A copy of the sources with everything that they are built into."""

    def __init__(self, root: Path, patience: float = 100.0) -> None:
        self.root, self.patience = root, patience
        self.passed: set[str] = set()  # tests, without a mutant
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("LRFAST_ISA", "CFLAGS", "LDFLAGS")},
            "PYTHONPATH": str(root),
            "LRFAST_TEST_LINE": "0",  # the same tests on every day
        }
        self.sources = sorted(str(path.relative_to(root)) for path in root.glob("src_c/*.c"))
        self.programs = sorted(path.stem for path in root.glob("tests/c/*.c") if path.stem != "layout")

    def built(self) -> Tree:
        """The whole tree built, without a mutant."""
        for folder in ("base", "mutant"):
            (self.root / "build" / folder).mkdir(parents=True)
        dispatch = self.root / "src_c" / "dispatch.c"
        shutil.copy(dispatch, self.root / "build")
        dispatch.write_text(one_instruction_set(dispatch.read_text()))
        for isa in ("avx2", "avx512"):
            stub = f'#include "internal.h"\nconst lrf_kernels lrf_kernels_{isa} = {{.name = "{isa}"}};\n'
            (self.root / "src_c" / f"kernels_{isa}.c").write_text(stub)
        golden.write_variants(self.root / "build" / "golden_variants.inc")
        self.cythonize()
        sources = ["build/_core.c", *self.sources, *(f"tests/c/{name}.c" for name in self.programs)]
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(lambda source: self.compile(source, "base"), sources))
        (self.root / "lrfast" / "_build_info.json").write_text('{"result": "compiled kernels"}\n')
        self.link_extension(set())
        (self.root / "lrfast" / "lib").mkdir(exist_ok=True)
        self.run(["ar", "rcs", "lrfast/lib/liblrfast.a", *self.objects(set())], "ar")
        start = time.monotonic()
        self.run_golden(set())
        self.patience = 10 + 15 * (time.monotonic() - start)  # seconds of a test that ends, however busy the machine
        return self

    def judge(self, mutant: Mutant) -> dict[str, object]:
        """What becomes of a mutant: killed, survived, same code or invalid; and by what."""
        path, start = self.root / mutant.file, time.monotonic()
        original = path.read_text(encoding="utf-8")
        text = (self.root / "build" / "dispatch.c").read_text() if path.name == "dispatch.c" else original
        path.write_text(one_instruction_set(mutant.applied(text)), encoding="utf-8")
        found = ("survived", "")
        try:
            found = self.outcome(mutant.file)
        finally:
            path.write_text(original, encoding="utf-8")
        if "::" in found[1] and not self.passes(found[1], mutant.file):
            found = ("broken", f"{found[1]} fails without it")
        return {"result": found[0], "by": found[1], "seconds": round(time.monotonic() - start, 1)}

    def outcome(self, file: str) -> tuple[str, str]:
        rebuilt: set[str] = set()
        try:
            if file.endswith(".py"):
                compile((self.root / file).read_text(encoding="utf-8"), file, "exec")
            elif file.endswith(".pyx"):
                self.cythonize()
                rebuilt |= self.rebuild(["build/_core.c"])
            else:
                rebuilt |= self.rebuild(self.depending(file, [*self.sources, "tests/c/golden.c"]))
        except (Failed, SyntaxError):
            return "invalid", "the compiler"
        try:
            if file.startswith("src_c/"):
                if rebuilt:
                    self.run_golden(rebuilt, FIRST_LINES.get(file, OTHER_LINES))
                    self.run_golden(rebuilt)
                programs = [f"tests/c/{name}.c" for name in self.programs if name != "golden"]
                rebuilt |= self.rebuild(self.depending(file, [*programs, "build/_core.c"]))
                if rebuilt:
                    self.run_programs(rebuilt)
            if rebuilt:
                self.link_extension(rebuilt)
            elif not file.endswith(".py"):
                return "same code", ""
            self.run_tests(file)
        except Failed as failure:
            return ("invalid" if str(failure) == "the compiler" else "killed"), str(failure)
        finally:
            if rebuilt:
                self.link_extension(set())
        return "survived", ""

    def depending(self, file: str, sources: list[str]) -> list[str]:
        """The sources that a file is part of."""
        return [source for source in sources if file in self.parts(source)]

    def parts(self, source: str) -> set[str]:
        rules = (self.root / "build" / "base" / f"{Path(source).stem}.d").read_text()
        return {os.path.normpath(word) for word in rules.split()}

    def rebuild(self, sources: list[str]) -> set[str]:
        """Compiles sources; the stems of those whose objects came out different."""
        return {Path(source).stem for source in sources if self.compile(source, "mutant")}

    def compile(self, source: str, folder: str) -> bool:
        """Whether the object is another than without a mutant; what the preprocessor finds equal is not compiled."""
        flags = [*CC, *(EXTENSION_FLAGS if source == "build/_core.c" else [])]
        base, target = (f"build/{name}/{Path(source).stem}" for name in ("base", folder))
        self.run([*flags, "-E", "-P", "-MMD", "-MF", f"{target}.d", source, "-o", f"{target}.i"], "the compiler")
        if target != base and self.are_equal(f"{target}.i", f"{base}.i"):
            return False
        self.run([*flags, "-c", f"{target}.i", "-o", f"{target}.o"], "the compiler")
        return not self.are_equal(f"{target}.o", f"{base}.o")

    def are_equal(self, one: str, other: str) -> bool:
        return (self.root / one).read_bytes() == (self.root / other).read_bytes()

    def cythonize(self) -> None:
        self.run([sys.executable, "-m", "cython", "-3", "lrfast/_engine/_core.pyx", "-o", "build/_core.c"], "cython")

    def objects(self, rebuilt: set[str]) -> list[str]:
        stems = [Path(source).stem for source in self.sources]
        return [f"build/{'mutant' if stem in rebuilt else 'base'}/{stem}.o" for stem in stems]

    def link(self, name: str, rebuilt: set[str]) -> str:
        main = f"build/{'mutant' if name in rebuilt else 'base'}/{name}.o"
        self.run([CC[0], main, *self.objects(rebuilt), "-pthread", "-lm", "-o", f"build/{name}"], "the linker")
        return f"build/{name}"

    def link_extension(self, rebuilt: set[str]) -> None:
        core = f"build/{'mutant' if '_core' in rebuilt else 'base'}/_core.o"
        (self.root / EXTENSION).unlink(missing_ok=True)
        self.run([CC[0], "-shared", core, *self.objects(rebuilt), "-pthread", "-lm", "-o", EXTENSION], "the linker")

    def run_golden(self, rebuilt: set[str], names: Sequence[str] = ()) -> None:
        """The lines of these names, or all."""
        found = {
            tuple(line.split()) for line in self.run([self.link("golden", rebuilt), *names], "golden").splitlines()
        }
        expected = set(golden.read().items())
        if not found <= expected or (not names and found != expected):
            raise Failed("golden")

    def run_programs(self, rebuilt: set[str]) -> None:
        for name in self.programs:
            if name != "golden" and (name != "test_pool" or "pool" in rebuilt):
                self.run([self.link(name, rebuilt)], name)

    def run_tests(self, file: str) -> None:
        knowing = next(names for start, names in FIRST.items() if file.startswith(start))
        others = IN_C if file.startswith("src_c/") else IN_PYTHON
        for names in knowing, [name for name in others if name not in knowing]:
            self.pytest(file, [f"tests/test_{name}.py" for name in names])

    def passes(self, test: str, file: str) -> bool:
        """Whether a test that failed passes where the file is as it should be."""
        test = "tests/" + re.split(r"\[|: no end", test.removeprefix("tests/"))[0]  # with all its parameters
        if test not in self.passed:
            with suppress(Failed):
                self.pytest(file, [test])
                self.passed.add(test)
        return test in self.passed

    def pytest(self, file: str, tests: list[str]) -> None:
        for cached in (self.root / file).parent.glob(f"__pycache__/{Path(file).stem}.*.pyc"):
            cached.unlink()  # which is known by size and second
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
        command += ["-o", f"faulthandler_timeout={self.patience}", "-m", "not matrix"]
        self.run([*command, *tests], "tests", 30 * self.patience)

    def run(self, command: list[str], name: str, limit: float = 0) -> str:
        """What a command prints; Failed, with the test that failed, where it does not succeed in time."""
        with tempfile.TemporaryFile("w+", errors="replace") as file:
            streams = {"stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True}
            process = subprocess.Popen(command, cwd=self.root, env=self.environment, **streams)
            try:
                process.wait(limit or self.patience)
            except subprocess.TimeoutExpired:
                raise Failed(f"{name}: no end") from None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it has left behind
                process.wait()
            file.seek(0)
            output = file.read()
        if process.returncode != 0:
            test = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
            late = re.search(r'File ".*tests/(test_\w+\.py)", line \d+ in (test_\w+)', output)
            raise Failed(test[1] if test else f"{late[1]}::{late[2]}: no end" if late else name)
        return output


def one_instruction_set(dispatch: str) -> str:
    """dispatch.c with the baseline kernels alone."""
    return re.sub(r"^ *&lrf_kernels_avx\w+,\n", "", dispatch, flags=re.MULTILINE)


def extension_flags() -> list[str]:
    import numpy

    includes = [f"-I{numpy.get_include()}", f"-I{sysconfig.get_path('include')}", "-O0"]
    return [*includes, "-DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION", "-DNPY_TARGET_VERSION=NPY_1_26_API_VERSION"]


EXTENSION_FLAGS = extension_flags()
