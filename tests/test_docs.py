"""What the documents show is run: the Python blocks of README and range test, the four edits for a new optimizer."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(document, language):
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


README = [block for block in blocks("README.md", "python") if "torch" not in block or importlib.util.find_spec("torch")]


EXAMPLES = [*README, *blocks("docs/learning-rate-finder.md", "python"), *blocks("docs/diagnostics.md", "python")]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples(code, tmp_path):
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, timeout=120)


def test_readme_example_has_ten_lines():
    assert len(README[0].splitlines()) <= 11


def test_four_edits_make_an_optimizer(tmp_path):
    """The walk-through of docs/adding-an-optimizer.md, done to a copy, passes the tests that find a new class."""
    edits = blocks("docs/adding-an-optimizer.md", "c") + blocks("docs/adding-an-optimizer.md", "python")
    # Under another name and id, for a tree in which somebody has followed the document.
    names = {"LION": "DOCUMENTED", "Lion": "Documented", "lion": "documented", "RULE(11,": "RULE(40,"}
    for name, other in names.items():
        edits = [edit.replace(name, other) for edit in edits]
    rule, row, reference, optimizer = edits
    for name in ("src_c", "lrfast", "tests"):
        generated = shutil.ignore_patterns("*.so", "__pycache__", "_*.c", "lib")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=generated)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path)

    (tmp_path / "src_c/rules/documented.h").write_text(rule)
    include, _, row = row.partition("\n\n")
    edit(tmp_path / "src_c/optimizers.def", '#include "rules/rmsprop.h"\n', f'{include}\n#include "rules/rmsprop.h"\n')
    table = (tmp_path / "src_c/optimizers.def").read_text().rstrip()
    assert table.endswith("#endif")
    (tmp_path / "src_c/optimizers.def").write_text(table.removesuffix("#endif") + row + "#endif\n")
    edit(tmp_path / "lrfast/reference.py", '"adamw", ', '"adamw", "documented", ')
    edit(
        tmp_path / "lrfast/reference.py",
        "\n\n# ---- what the rules share",
        f"\n\n{reference}\n\n# ---- what the rules share",
    )
    edit(tmp_path / "lrfast/optim.py", '"AdamW", ', '"AdamW", "Documented", ')
    edit(tmp_path / "lrfast/optim.py", "\n\ndef all_optimizers", f"\n\n{optimizer}\n\ndef all_optimizers")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LRFAST_REQUIRE_EXT": "1"}
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    run = {"check": False, "cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    built = subprocess.run(build, **run)
    assert built.returncode == 0, built.stderr[-3000:]
    tests = [f"tests/test_{name}.py" for name in ("bits", "table", "vectorised", "checkpoint")]
    arguments = ["-q", "-p", "no:cacheprovider", "-k", "documented or table or vector", *tests]
    tested = subprocess.run([sys.executable, "-m", "pytest", *arguments], **run)
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", tested.stdout)[1]) >= 10


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), encoding="utf-8")
