"""What is shipped: sdist and wheel, their contents, embedding from the wheel, installation without a compiler.

The wheel is built from the sdist, and everything from a copy of the tree with whatever was generated in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import lrfast

import toolchain
from toolchain import EXAMPLES, ROOT, SOURCES, run

NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "node_modules")
COMPLETE = {**os.environ, "LRFAST_REQUIRE_EXT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

STEP_ON_THE_REFERENCE = """
import numpy as np, lrfast
param = np.ones(3, np.float32)
optimizer = lrfast.Adam(param, lr=0.5)
optimizer.step(np.array([1, 2, 3], np.float32))
assert np.allclose(param, 0.5), param
assert lrfast.isa() == "numpy" and lrfast.available_isas() == ("numpy",)
lrfast.show_config()
print(lrfast.__file__)
"""


def backend(hook: str, tree: Path, out: Path, environment: dict[str, str]) -> None:
    """A hook of the build backend, as build front ends call it."""
    out.mkdir(exist_ok=True)
    call = f"from setuptools import build_meta; build_meta.{hook}({str(out)!r})"
    run([sys.executable, "-c", call], cwd=tree, env=environment)


def install(package: Path, target: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
    return subprocess.run(
        [*pip, "--target", str(target), str(package)], env=environment, capture_output=True, text=True, timeout=600
    )


def python(code: str, target: Path) -> str:
    """What code prints with the package that is installed in target.

    Without `site`, which would let an editable installation stand in for a missing extension.
    """
    environment = {name: value for name, value in os.environ.items() if name != "LRFAST_ISA"}
    environment["PYTHONPATH"] = os.pathsep.join([str(target), str(Path(np.__file__).parents[1])])
    return run([sys.executable, "-S", "-c", code], cwd=target.parent, env=environment)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, directory / "tree", ignore=NOT_COPIED)
    (directory / "tree" / "lrfast" / "_core.c").write_text("generated")
    (directory / "tree" / "lrfast" / "stale.so").write_text("built")
    backend("build_sdist", directory / "tree", directory / "out", COMPLETE)
    (built,) = (directory / "out").iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(["tar", "-xf", sdist, "-C", directory], check=True)
    (tree,) = directory.iterdir()
    toolchain.build_quickly(tree)
    backend("build_wheel", tree, directory / "out", COMPLETE)
    (built,) = (directory / "out").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed") / "site"
    done = install(wheel, target, COMPLETE)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


# ---- contents ------------------------------------------------------------------------------------------------


def files_below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith((".so", ".pyc"))
    }


def test_contents_of_the_sdist(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    for folder in (SOURCES, ROOT / "tests", EXAMPLES):
        assert files_below(folder) <= names
    assert {"Makefile", "README.md", "LICENSE", "pyproject.toml", "setup.py", "lrfast/_engine/_core.pyx"} <= names
    built = {ROOT / "lrfast" / f"{name}.pyi" for name in ("optim", "reference", "functional")}
    sources = {path for path in (ROOT / "lrfast").rglob("*.py*") if path.suffix != ".pyc"}
    assert {str(path.relative_to(ROOT)) for path in sources - built} <= names
    unwanted = [name for name in names if name.endswith((".so", ".o", ".a", ".pyc"))]
    unwanted += [name for name in names if re.fullmatch(r"lrfast/(.*\.c|include/.*|lib/.*|_build_info\.json)", name)]
    assert unwanted == []


def test_contents_of_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("lrfast/")}
    assert all(re.match(r"lrfast-[^/]+\.dist-info/", name) for name in names - package)
    headers = {"lrfast/include/optimizers.def", *(f"lrfast/include/{name}" for name in toolchain.public_headers())}
    assert {name for name in package if "/include/" in name} == headers
    required = ["py.typed", "lib/liblrfast.a", "_build_info.json"]
    required += [path.relative_to(ROOT / "lrfast") for path in (ROOT / "lrfast").rglob("*.py*")]
    assert {f"lrfast/{name}" for name in required if Path(name).suffix not in (".pyc", ".pyx")} <= package
    assert any(re.fullmatch(r"lrfast/_engine/_core\.[^/]+\.so", name) for name in package)
    assert "lrfast/_engine/_core.pyi" in package
    kinds = {Path(name).suffix for name in package}
    assert kinds == {".py", ".pyi", ".typed", ".so", ".a", ".h", ".def", ".json"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_one_version(wheel):
    header = re.search(r'LRF_VERSION_STRING "(.+)"', (SOURCES / "lrfast.h").read_text())[1]
    assert wheel.name.startswith(f"lrfast-{lrfast.__version__}-")
    assert header == lrfast.__version__


# ---- the archive ---------------------------------------------------------------------------------------------


def symbols(*command: object) -> set[str]:
    lines = run(["nm", "--defined-only", *command]).splitlines()
    return {line.split()[-1] for line in lines if len(line.split()) == 3}


def declared(include: Path) -> set[str]:
    """Functions of the public headers."""
    text = "\n".join(path.read_text() for path in include.glob("*.h"))
    return set(re.findall(r"^(?!typedef|static)[a-z][\w ]*[ *](lrf_\w+)\(", text, re.MULTILINE))


def test_archive_defines_what_the_header_declares(installed):
    names = symbols("-g", installed / "lrfast" / "lib" / "liblrfast.a")
    assert {name for name in names if not name.startswith("lrf_")} == set()
    functions = declared(installed / "lrfast" / "include")
    assert {"lrf_step", "lrf_run", "lrf_version", "lrf_check_overlap"} <= functions <= names


def test_archive_exports_nothing_from_libraries_that_link_it(installed, tmp_path):
    archive = installed / "lrfast" / "lib" / "liblrfast.a"
    whole = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"]
    run([*toolchain.CC, "-shared", *whole, "-lm", "-pthread", "-o", tmp_path / "library.so"])
    assert {name for name in symbols("-D", tmp_path / "library.so") if name.startswith("lrf_")} == set()
    (extension,) = (installed / "lrfast").glob("_engine/_core.*.so")
    assert {name for name in symbols("-D", extension) if name.startswith("lrf_")} == set()


def test_library_built_by_hand_exports_the_header_alone(installed, tmp_path):
    objects = toolchain.build_objects(tmp_path, "-fPIC", "-O0")
    run([*toolchain.CC, *toolchain.FLAGS, "-shared", *objects, "-lm", "-pthread", "-o", tmp_path / "library.so"])
    exported = {name for name in symbols("-D", tmp_path / "library.so") if not name.startswith("_")}
    assert exported == declared(installed / "lrfast" / "include")


# ---- embedding -----------------------------------------------------------------------------------------------


def quoted_example() -> str:
    """The example at the top of lrfast.h as a program; the other sources are in examples/."""
    comment = (SOURCES / "lrfast.h").read_text().partition("*/")[0]
    lines = re.search(r"(^ \*     .*\n)+", comment[comment.index(" *     float w[3]") :], re.MULTILINE)[0].splitlines()
    body = "\n".join(line.removeprefix(" *     ") for line in lines)
    result = "return status == LRF_OK && w[0] < 1 && tensor.step == 1 ? 0 : 1;"
    return f'#include <stdio.h>\n#include "lrfast.h"\n\nint main(void)\n{{\n{body}\n{result}\n}}\n'


@pytest.mark.parametrize("name", ["quoted", *sorted(path.stem for path in EXAMPLES.glob("*.c"))])
def test_embedding_from_the_wheel(name, installed, tmp_path):
    """The second command of the header, word for word but for the names of files."""
    source = tmp_path / "app.c"
    source.write_text(quoted_example() if name == "quoted" else (EXAMPLES / f"{name}.c").read_text())
    places = python("import lrfast; print(lrfast.get_include()); print(lrfast.get_library_dir())", installed)
    include, library = places.splitlines()
    assert Path(include).is_relative_to(installed)
    command = [*toolchain.CC, *toolchain.PEDANTIC, source, f"-I{include}", f"-L{library}", "-llrfast", "-lm"]
    run([*command, *(["-pthread"] if name == "threads" else []), "-o", tmp_path / "app"])
    run([tmp_path / "app"], env={k: v for k, v in os.environ.items() if k != "LRFAST_ISA"})


# ---- without a compiler --------------------------------------------------------------------------------------


@pytest.fixture
def no_compiler(tmp_path):
    (tmp_path / "bin").mkdir()
    environment = {name: value for name, value in COMPLETE.items() if name not in ("LRFAST_REQUIRE_EXT", "LDSHARED")}
    return {**environment, "CC": "/nonexistent/cc", "CXX": "/nonexistent/c++", "PATH": str(tmp_path / "bin")}


def test_without_a_compiler_it_installs_and_runs_on_the_reference(sdist, no_compiler, tmp_path):
    done = install(sdist, tmp_path / "site", no_compiler)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((tmp_path / "site" / "lrfast").glob("*.so"))
    printed = python(STEP_ON_THE_REFERENCE, tmp_path / "site")
    assert "none: the NumPy reference runs instead" in printed
    assert "no extension was built" in printed
    assert str(tmp_path / "site") in printed.splitlines()[-1]


def test_without_a_compiler_the_extension_can_be_required(sdist, no_compiler, tmp_path):
    done = install(sdist, tmp_path / "site", {**no_compiler, "LRFAST_REQUIRE_EXT": "1"})
    assert done.returncode != 0
    assert not (tmp_path / "site" / "lrfast").exists()
    assert "/nonexistent/cc" in done.stdout + done.stderr


# ---- with flags that the core refuses ------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["-ffinite-math-only", "-include /nonexistent.h"])
def test_why_there_is_no_extension_is_told_by_the_build_and_by_the_package(flags, sdist, tmp_path):
    """In the compiler's words, which pip shows only to those who ask."""
    environment = {name: value for name, value in COMPLETE.items() if name != "LRFAST_REQUIRE_EXT"}
    environment["CFLAGS"] = flags
    sentence = flags.split()[-1]
    pip = [sys.executable, "-m", "pip", "install", "-v", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", str(tmp_path / "site"), str(sdist)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = (done.stdout + done.stderr).partition("lrfast: no extension was built: ")[2]
    assert sentence in built.splitlines()[0]
    printed = python(STEP_ON_THE_REFERENCE, tmp_path / "site")
    assert sentence in next(line for line in printed.splitlines() if "why:" in line)


def test_flags_that_are_refused_end_a_build_that_requires_the_extension(sdist, tmp_path):
    done = install(sdist, tmp_path / "site", {**COMPLETE, "CFLAGS": "-ffast-math"})
    assert done.returncode != 0
    assert "compile without -ffast-math" in done.stdout + done.stderr
