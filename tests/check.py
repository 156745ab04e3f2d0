"""What `make check` adds to `make test`: other compilers, sanitizers, another processor. Needs the packages below.

The C tests are run anew for each of the CONFIGURATIONS, then the Python tests on an extension built by clang. A
missing tool is a failure that names its package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

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

GCC = {"CC": "gcc", "CXX": "g++"}
CLANG = {"CC": "clang", "CXX": "clang++"}
SANITIZED = {"LRFAST_TEST_FLAGS": "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"}
# Forked children that start threads are what the pool is for.
THREADS = {"LRFAST_TEST_FLAGS": "-g -fsanitize=thread", "TSAN_OPTIONS": "die_after_fork=0 halt_on_error=1"}
AARCH64 = {"CC": "aarch64-linux-gnu-gcc -static", "CXX": "", "LRFAST_TEST_RUNNER": "qemu-aarch64"}

# Name, environment of tests/toolchain.py, arguments of pytest.
CONFIGURATIONS = [
    ("gcc", GCC, ["test_c.py", "test_vectorised.py"]),
    ("clang", CLANG, ["test_c.py", "test_vectorised.py"]),
    ("gcc, address and undefined behaviour sanitizers", {**GCC, **SANITIZED}, ["test_c.py"]),
    ("clang, address and undefined behaviour sanitizers", {**CLANG, **SANITIZED}, ["test_c.py"]),
    ("gcc, thread sanitizer", {**GCC, **THREADS}, ["test_c.py", "-k", "pool or threads"]),
    ("aarch64 under qemu", AARCH64, ["test_c.py", "test_vectorised.py"]),
]


def main() -> int:
    missing = missing_packages()
    for tool, package in missing.items():
        print(f"make check needs {tool}: apt install {package}")
    if missing:
        return 1
    failed = [name for name, environment, tests in CONFIGURATIONS if not passes(name, environment, tests)]
    if not passes_with_extension_by_clang():
        failed.append("extension by clang")
    print(f"\nmake check: {'failed: ' + '; '.join(failed) if failed else 'all passed'}")
    return 1 if failed else 0


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


def passes(name: str, environment: dict[str, str], tests: list[str]) -> bool:
    """Whether tests pass in an environment."""
    return run(name, [sys.executable, "-m", "pytest", "-q", *tests], ROOT / "tests", environment)


def passes_with_extension_by_clang() -> bool:
    """Builds the package in a copy of the tree, so that the one in use stays as it is."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "lrfast"
        ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.so", "*.egg-info")
        shutil.copytree(ROOT, tree, ignore=ignored)
        environment = {"CC": "clang", "LRFAST_REQUIRE_EXT": "1", "PYTHONPATH": str(tree)}
        built_by = "import lrfast; print(c := lrfast.show_config('dicts')['compiler']); assert 'clang' in c.lower()"
        return (
            run("extension by clang", [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], tree, environment)
            and run("", [sys.executable, "-c", built_by], tree, environment)
            and run("", [sys.executable, "-m", "pytest", "-q", "-n", "auto", "tests/test_bits.py"], tree, environment)
        )


def run(title: str, command: list[str], directory: Path, environment: dict[str, str]) -> bool:
    """Whether a command succeeds; its output goes where ours goes."""
    if title:
        print(f"\n==== {title}", flush=True)
    inherited = {name: value for name, value in os.environ.items() if name not in ("LRFAST_ISA", "CFLAGS", "LDFLAGS")}
    return subprocess.run(command, cwd=directory, env={**inherited, **environment}).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
