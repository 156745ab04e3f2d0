"""Builds the C core once, links it into the extension, and puts archive and headers into the package.

Without a working C compiler the package installs all the same and runs on its NumPy reference; LRFAST_REQUIRE_EXT=1
turns that into an error. Everything else is in pyproject.toml.
"""

import ast
import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
HEADERS = ["lrfast.h", "optimizers.def", "pool.h"]
# -O3 vectorises the loops, the next two let it vectorise square roots and comparisons, the last keeps the same bits.
CFLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# Without debugging information, which would be four fifths of the wheel.
EXTENSION_CFLAGS = [*CFLAGS, "-g0"]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion"]


def write_stubs(package):
    """For type checkers: the names that optim, reference and functional find in rules/ when they are imported."""
    classes, functions = [], []
    for path in sorted((ROOT / "lrfast" / "rules").glob("[a-z]*.py")):
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
        optimizers = [node for node in nodes if isinstance(node, ast.ClassDef) and "spec = " in ast.unparse(node)]
        specs = {re.search(r"spec = staticmethod\((\w+)\)", ast.unparse(node))[1] for node in optimizers}
        classes += [f"from .rules.{path.stem} import {node.name} as {node.name}\n" for node in optimizers]
        functions += [f"from .rules.{path.stem} import {name} as {name}\n" for name in sorted(specs)]
    base = "from ._engine.optimizer import Optimizer as Optimizer\n"
    names = sorted(["Optimizer", *(line.split()[-1] for line in classes)])
    every = f"\n__all__ = {names}\n\ndef all_optimizers() -> list[type[Optimizer]]: ...\n"
    package.mkdir(parents=True, exist_ok=True)
    (package / "optim.pyi").write_text("".join([base, *classes, every]), encoding="utf-8")
    for name in ("reference", "functional"):
        (package / f"{name}.pyi").write_text("".join(functions), encoding="utf-8")


def refuse_what_cannot_work(compiler, include_dirs):
    """Raises what the compiler says to flags (CFLAGS too) and headers: setuptools would only tell that it failed."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "probe.c"
        source.write_text('#include "compiler.h"\n#include <Python.h>\n#include <numpy/arrayobject.h>\n')
        folders = [f"-I{folder}" for folder in (ROOT / "src_c", *include_dirs)]
        done = subprocess.run([*compiler, *folders, "-E", source], capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(next((line for line in said if "error" in line), said[-1]))


class BuildWithCore(build_ext):
    """build_ext that also makes liblrfast.a; its result is told in lrfast/_build_info.json."""

    def run(self):
        package = ROOT / "lrfast" if self.inplace else Path(self.build_lib) / "lrfast"
        (package / "include").mkdir(parents=True, exist_ok=True)
        for header in HEADERS:
            shutil.copy(ROOT / "src_c" / header, package / "include")
        write_stubs(package)
        try:
            self.build_core(package)
            super().run()
            result = "compiled kernels"
        except Exception as error:
            if os.environ.get("LRFAST_REQUIRE_EXT") == "1":
                raise
            result = f"no extension was built: {type(error).__name__}: {error}"
        (package / "_build_info.json").write_text(json.dumps({"result": result}) + "\n", encoding="utf-8")
        if result != "compiled kernels":
            # At the very end, below what setuptools still tells.
            lines = f"lrfast: {result}\nlrfast runs on its NumPy reference: same bits, slower. See lrfast.show_config()"
            atexit.register(print, lines, file=sys.stderr)

    def build_core(self, package):
        from distutils.ccompiler import new_compiler
        from distutils.sysconfig import customize_compiler

        compiler = new_compiler()
        customize_compiler(compiler)
        import numpy

        refuse_what_cannot_work(compiler.compiler_so, [*self.include_dirs, numpy.get_include()])
        sources = sorted(str(path) for path in (ROOT / "src_c").glob("*.c"))
        flags = [*EXTENSION_CFLAGS, *WARNINGS, "-pthread", "-fPIC", "-fvisibility=hidden"]
        objects = compiler.compile(
            [os.path.relpath(source) for source in sources],
            output_dir=self.build_temp,
            extra_preargs=flags,
            depends=[str(path) for path in (ROOT / "src_c").rglob("*.[hd]*")],
        )
        (package / "lib").mkdir(exist_ok=True)
        compiler.create_static_lib(objects, "lrfast", output_dir=str(package / "lib"))
        for extension in self.extensions:
            extension.include_dirs += [numpy.get_include(), str(ROOT / "src_c"), str(ROOT / "lrfast/lab/bench")]
            extension.extra_compile_args += EXTENSION_CFLAGS
        self.extensions[0].extra_objects = objects
        self.extensions[0].depends += objects  # link again when only C changed

    def build_extensions(self):
        """No except here: run() decides what a failure means."""
        for extension in self.extensions:
            self.build_extension(extension)

    def get_outputs(self):
        return [output for output in super().get_outputs() if os.path.exists(output)]


MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_1_26_API_VERSION")]
extensions = [
    Extension("lrfast._engine._core", ["lrfast/_engine/_core.pyx"], define_macros=MACROS),
    Extension(
        "lrfast.lab.bench._roofline",
        ["lrfast/lab/bench/_roofline.pyx"],
        define_macros=MACROS,
        depends=["lrfast/lab/bench/_roofline.h"],
    ),
    Extension("lrfast.torch._tensors", ["lrfast/torch/_tensors.pyx"], define_macros=MACROS),
]
setup(ext_modules=extensions, cmdclass={"build_ext": BuildWithCore})
