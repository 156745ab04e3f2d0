"""Whether the tests notice when the sources are wrong: `python tests/mutants.py ...` builds and tests small mutations.

    all               every mutant of src_c/rules/ and scalars.c, and a drawn 400 of src_c/ and lrfast/_engine/
    20                so many of all of these, drawn by date (drawn.py): what `make check` does
    src_c/norm.c ...  every mutant of these files
    results.jsonl     what survived there, once more

Two workers, each in a copy of the tree that is built for one instruction set. A mutant meets the golden hashes, the
programs in C, then the tests of Python, those that know its file first; the first that fails ends it, and so do
seconds without an end. A test that failed has to pass without the mutant. What happened is kept by commit in
build/mutants/, so that a run that was cut off goes on. Mutants that compile to the same code are none.
known_mutants.txt lists others that no test can notice, or need not, and why. The run fails if more than one in twenty
of the others survive, of few: more than three.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from mutations import Mutant, mutants
from rings import ROOT, commit

import drawn
import golden

FOLDER = ROOT / "build" / "mutants"
KNOWN = ROOT / "tests" / "known_mutants.txt"
DRAWN = 400
WORKERS = 2

CC = [*shlex.split(os.environ.get("CC", "cc")), "-std=c11", "-O1", "-g0", "-fno-math-errno", "-fno-trapping-math"]
CC += ["-ffp-contract=off", "-fPIC", "-pthread", "-fvisibility=hidden", "-Isrc_c", "-Itests/c", "-Ibuild", "-w"]
EXTENSION = "lrfast/_engine/_core" + sysconfig.get_config_var("EXT_SUFFIX")

# What a mutant meets: tests of behaviour that take seconds.
TESTS = ["bad_input", "bad_options", "bad_settings", "messages", "optim", "options", "stats", "table", "schedules"]
TESTS += ["placement", "names", "further_keys", "loading", "checkpoint", "archive", "fixtures", "norms", "finder"]
TESTS += ["bits", "plan"]
# Which tests know a file, by the start of its name: they come first, and slow ones only where they stand here.
FIRST = {
    "src_c/pool": ["threads"],
    "src_c/step": ["options", "bits", "threads"],
    "src_c/elementary": ["elementary", "bits"],
    "src_c/norm": ["norms", "options"],
    "src_c/check": ["bad_settings", "bad_input", "numbers"],
    "src_c/table": ["table"],
    "src_c/kernels/statistics": ["stats"],
    "src_c/": ["bits", "options", "stats"],
    "lrfast/_engine/_core": ["plan", "bad_input", "optim", "options", "threads"],
    "lrfast/_engine/archive": ["archive", "checkpoint"],
    "lrfast/_engine/backend": ["optim", "threads"],
    "lrfast/_engine/buffers": ["bad_input", "bad_options"],
    "lrfast/_engine/check": ["bad_input", "bad_settings", "checkpoint"],
    "lrfast/_engine/elementary": ["elementary", "schedules", "bits"],
    "lrfast/_engine/family": ["optim"],
    "lrfast/_engine/form": ["bad_input"],
    "lrfast/_engine/further": ["further_keys"],
    "lrfast/_engine/matching": ["names", "loading"],
    "lrfast/_engine/moved": ["fixtures"],
    "lrfast/_engine/options": ["bad_options", "options"],
    "lrfast/_engine/recorder": ["stats"],
    "lrfast/_engine/stat": ["stats"],
    "lrfast/_engine/settings": ["bad_settings", "schedules"],
    "lrfast/_engine/table": ["table"],
    "lrfast/_engine/threads": ["threads"],
    "lrfast/_engine/trial": ["finder"],
    "lrfast/_engine/": ["options", "plan", "bits"],
}


def main(words: list[str]) -> int:
    chosen = choose(words)
    version, remembers = commit()
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{version}.jsonl"
    known = read_results(file) if remembers else {}
    file.write_text("".join(json.dumps(result) + "\n" for result in known.values()))
    waiting = [mutant for mutant in chosen if mutant.name not in known]
    print(
        f"{len(chosen)} mutants, {len(waiting)} of them to be judged; LRFAST_TEST_LINE={drawn.number()} draws the same"
    )
    if waiting:
        trees = make_trees(min(WORKERS, len(waiting)))

        def work(mutant: Mutant) -> None:
            tree = trees.get()
            try:
                result = {"mutant": mutant.name, **tree.judge(mutant)}
            finally:
                trees.put(tree)
            known[mutant.name] = result
            with file.open("a") as lines:
                lines.write(json.dumps(result) + "\n")
            print(f"{result['result']:9} {result['seconds']:5.1f} s  {result['by']:45} {mutant.name}", flush=True)

        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(work, waiting))
    return report([known[mutant.name] for mutant in chosen])


def choose(words: list[str]) -> list[Mutant]:
    """The mutants that the words of the command ask for."""
    if not words:
        sys.exit(__doc__)
    if words[0].endswith(".jsonl"):
        survivors = {name for name, result in read_results(Path(words[0])).items() if result["result"] == "survived"}
        files = sorted({name.partition(":")[0] for name in survivors})
        return [mutant for mutant in of_files(files) if mutant.name in survivors]
    if words[0] != "all" and not words[0].isdecimal():
        return of_files(words)
    core = sorted(path for path in ROOT.glob("src_c/**/*.[ch]") if path.name not in ("lrfast.h", "pool.h"))
    engine = sorted(path for path in ROOT.glob("lrfast/_engine/*.py*") if path.suffix != ".pyi")
    every = of_files([str(path.relative_to(ROOT)) for path in [*core, *engine]])
    chance = random.Random(drawn.number())
    if words[0].isdecimal():
        return chance.sample(every, int(words[0]))
    rules = [mutant for mutant in every if mutant.file.startswith(("src_c/rules/", "src_c/scalars.c"))]
    others = [mutant for mutant in every if mutant not in set(rules)]
    return [*rules, *chance.sample(others, DRAWN)]


def of_files(files: list[str]) -> list[Mutant]:
    return [mutant for file in files for mutant in mutants(file, (ROOT / file).read_text(encoding="utf-8"))]


def read_results(file: Path) -> dict[str, dict]:
    lines = file.read_text().splitlines() if file.exists() else []
    return {result["mutant"]: result for result in map(json.loads, lines)}


def known_mutants() -> dict[str, str]:
    """Mutant -> why it may survive. In the file the reason stands indented below one mutant or several; one that ends
    in "->  *" stands for all of its line."""
    reasons, names = {}, []
    for line in KNOWN.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            names = [line] if names and names[-1] in reasons else [*names, line]
        else:
            for name in names:
                reasons[name] = f"{reasons.get(name, '')} {line.strip()}".strip()
    return reasons


def all_of_line(mutant: str) -> str:
    return mutant.partition("  ->  ")[0] + "  ->  *"


def report(results: list[dict]) -> int:
    """Prints what became of them; 1 if too many survived."""
    reasons, counts = known_mutants(), {}
    for result in results:
        if result["result"] == "survived" and (result["mutant"] in reasons or all_of_line(result["mutant"]) in reasons):
            result = {**result, "result": "known"}
        counts.setdefault(result["mutant"].partition(":")[0], Counter())[result["result"]] += 1
    words = ["killed", "survived", "known", "same code", "invalid", "broken"]
    print(f"\n{'':40}" + "".join(f"{word:>10}" for word in words))
    for file, count in counts.items():
        print(f"{file:40}" + "".join(f"{count[word]:10}" for word in words))
    total = sum(counts.values(), Counter())
    print(f"{'':40}" + "".join(f"{total[word]:10}" for word in words))
    survivors = [result["mutant"] for result in results if result["result"] == "survived"]
    for name in survivors:
        if name not in reasons and all_of_line(name) not in reasons:
            print(f"survived: {name}")
    judged = total["killed"] + total["survived"]
    endless = sum(result["by"].endswith("no end") for result in results)
    print(f"{total['killed'] / max(judged, 1):.1%} of {judged} killed, {endless} of them by the time they took")
    for result in results:
        if result["result"] == "broken":
            print(f"broken: {result['by']}: {result['mutant']}")
    return int(total["broken"] > 0 or total["survived"] > max(judged / 20, 3))


# ---- a copy of the tree ----------------------------------------------------------------------------------------------


class Failed(Exception):
    """A command failed, or did not end: its output."""


def make_trees(count: int) -> SimpleQueue[Tree]:
    """Copies that are built."""
    shutil.rmtree(FOLDER / "tree-1", ignore_errors=True)
    ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.so", "*.egg-info", "_core.c")
    shutil.copytree(ROOT, FOLDER / "tree-1", ignore=ignored)
    trees: SimpleQueue[Tree] = SimpleQueue()
    trees.put(first := Tree(FOLDER / "tree-1").built())
    for i in range(2, count + 1):
        shutil.rmtree(FOLDER / f"tree-{i}", ignore_errors=True)
        shutil.copytree(FOLDER / "tree-1", FOLDER / f"tree-{i}")
        trees.put(Tree(FOLDER / f"tree-{i}", first.patience))
    return trees


class Tree:
    """A copy of the sources with everything that they are built into."""

    def __init__(self, root: Path, patience: float = 100.0) -> None:
        self.root, self.patience = root, patience
        self.passed: set[str] = set()  # tests, without a mutant
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("LRFAST_ISA", "CFLAGS", "LDFLAGS")},
            "PYTHONPATH": str(root),
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
        for source in [*self.sources, *(f"tests/c/{name}.c" for name in self.programs)]:
            self.compile(source, "base")
        self.cythonize()
        self.compile("build/_core.c", "base")
        (self.root / "lrfast" / "_build_info.json").write_text('{"result": "compiled kernels"}\n')
        self.link_extension(set())
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
        if not file.endswith(".py"):
            try:
                rebuilt = self.rebuild(file)
            except Failed:
                return "invalid", "the compiler"
            if not rebuilt:
                return "same code", ""
        else:
            try:
                compile((self.root / file).read_text(encoding="utf-8"), file, "exec")
            except SyntaxError:
                return "invalid", "the compiler"
        try:
            if file.startswith("src_c/"):
                self.run_golden(rebuilt)
                for name in self.programs:
                    if name != "golden" and (name != "test_pool" or "pool" in rebuilt):
                        self.run([self.link(name, rebuilt)], name)
            if rebuilt:
                self.link_extension(rebuilt)
            self.run_tests(file)
        except Failed as failure:
            return "killed", str(failure)
        finally:
            if rebuilt:
                self.link_extension(set())
        return "survived", ""

    def rebuild(self, file: str) -> set[str]:
        """Compiles what a file is part of; the stems of those objects that came out different."""
        if file.endswith(".pyx"):
            self.cythonize()
            self.compile("build/_core.c", "mutant")
            return {"_core"}
        sources = [*self.sources, *(f"tests/c/{name}.c" for name in self.programs), "build/_core.c"]
        sources = [source for source in sources if self.depends(source, file)]
        for source in sources:
            self.compile(source, "mutant")
        stems = {Path(source).stem for source in sources}
        return {stem for stem in stems if self.bytes("mutant", stem) != self.bytes("base", stem)}

    def depends(self, source: str, file: str) -> bool:
        rules = (self.root / "build" / "base" / f"{Path(source).stem}.d").read_text()
        return file in {os.path.normpath(word) for word in rules.split()}

    def bytes(self, folder: str, stem: str) -> bytes:
        return (self.root / "build" / folder / f"{stem}.o").read_bytes()

    def compile(self, source: str, folder: str) -> None:
        target = f"build/{folder}/{Path(source).stem}.o"
        flags = EXTENSION_FLAGS if source == "build/_core.c" else []
        self.run([*CC, *flags, "-MMD", "-c", source, "-o", target], "the compiler")

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

    def run_golden(self, rebuilt: set[str]) -> None:
        lines = self.run([self.link("golden", rebuilt)], "golden").splitlines()
        if {tuple(line.split()) for line in lines} != set(golden.read().items()):
            raise Failed("golden")

    def run_tests(self, file: str) -> None:
        knowing = next((names for start, names in FIRST.items() if file.startswith(start)), [])
        names = [*knowing, *(name for name in TESTS if name not in knowing)]
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
        command += ["-o", f"faulthandler_timeout={self.patience}"]
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

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
