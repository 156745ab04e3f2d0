"""What the documents show is run: their Python blocks, the three edits for a new optimizer; files they name exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import toolchain

ROOT = Path(__file__).parent.parent


def blocks(document, language):
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


README = blocks("README.md", "python")
PAGES = ["docs/checkpoints.md", "docs/diagnostics.md", "docs/learning-rate-finder.md", "docs/torch.md"]
SHOWN = [*README, *(block for page in PAGES for block in blocks(page, "python"))]
EXAMPLES = [block for block in SHOWN if "import torch" not in block or importlib.util.find_spec("torch")]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples(code, tmp_path):
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, timeout=120)


def test_readme_example_has_ten_lines():
    assert len(README[0].splitlines()) <= 11


# ---- docs/adding-an-optimizer.md -------------------------------------------------------------------------------

RULE_IN_C, INCLUDE, ROW = blocks("docs/adding-an-optimizer.md", "c")
RULE_IN_PYTHON, VARIANTS, FORMULA = blocks("docs/adding-an-optimizer.md", "python")


def test_the_walk_through_quotes_the_tree():
    assert (ROOT / "src_c/rules/lion.h").read_text() == RULE_IN_C
    assert (ROOT / "lrfast/rules/lion.py").read_text() == RULE_IN_PYTHON
    for block, path in {
        INCLUDE: "src_c/optimizers.def",
        ROW: "src_c/optimizers.def",
        VARIANTS: "tests/variants.py",
        FORMULA: "tests/exact.py",
    }.items():
        assert block in (ROOT / path).read_text(), path


def test_three_edits_make_an_optimizer(tmp_path):
    """What the walk-through shows, once more under another name in a copy of the tree, passes the tests for it."""
    for name in ("src_c", "lrfast", "tests"):
        left_out = shutil.ignore_patterns("_core.*.so", "__pycache__", "fixtures", "lib")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "src_c/rules/documented.h").write_text(renamed(RULE_IN_C))
    (tmp_path / "lrfast/rules/documented.py").write_text(renamed(RULE_IN_PYTHON))
    table = tmp_path / "src_c/optimizers.def"
    edit(table, '#include "rules/sgd.h"\n', renamed(INCLUDE) + '#include "rules/sgd.h"\n')
    table.write_text(
        table.read_text().removesuffix("#endif\n") + re.sub(r"\d+", "40", renamed(ROW), count=1) + "#endif\n"
    )
    edit(tmp_path / "tests/variants.py", "]\n\nUNLISTED", renamed(VARIANTS) + "]\n\nUNLISTED")
    with (tmp_path / "tests/exact.py").open("a") as file:
        file.write("\n\n" + renamed(FORMULA))

    toolchain.build_quickly(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LRFAST_REQUIRE_EXT": "1"}
    run = {"check": False, "cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 600}
    built = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], **run)
    assert built.returncode == 0, built.stderr[-3000:]
    tests = ("bits", "options", "stats", "oracle", "checkpoint", "twins", "table", "vectorised")
    chosen = "documented or table or full_width and (baseline or neon)"
    arguments = ["-q", "-p", "no:cacheprovider", "-k", chosen, *(f"tests/test_{name}.py" for name in tests)]
    tested = subprocess.run([sys.executable, "-m", "pytest", *arguments], **run)
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", tested.stdout)[1]) >= 30
    stubs = [(tmp_path / f"lrfast/{face}.pyi").read_text() for face in ("optim", "reference", "functional")]
    assert all("documented" in stub for stub in stubs)


def renamed(block):
    """For a tree in which the example is there already."""
    return block.replace("LION", "DOCUMENTED").replace("Lion", "Documented").replace("lion", "documented")


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


# ---- names of files --------------------------------------------------------------------------------------------

DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/*.md")))]
IN_TREE = re.compile(r"(?:src_c|lrfast|tests|bench|docs|examples)/[\w./-]*|\w+\.(?:c|h|def|pyx?)|[A-Z][A-Z_]+\.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_exists(document):
    """Of files in backticks; and of links, from where the document stands."""
    text = (ROOT / document).read_text(encoding="utf-8")
    quoted = [name for name in re.findall(r"`([^`\n]+)`", text) if IN_TREE.fullmatch(name)]
    known = {path.name for folder in ("src_c", "lrfast", "tests", "bench", "examples", ".") for path in files(folder)}
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    missing = [name for name in quoted if not ((ROOT / name).exists() if "/" in name else name in known)]
    missing += [link for link in links if not ((ROOT / document).parent / link).exists()]
    assert missing == []


def test_the_tree_is_drawn_as_it_is():
    """CONTRIBUTING names every file of the core and of the engine."""
    tree = blocks("CONTRIBUTING.md", "")[0]
    names = [path.name for path in (ROOT / "src_c").glob("*.*") if not path.name.startswith("kernels_")]
    stems = [path.stem for path in (ROOT / "src_c/kernels").glob("*.h")]
    for folder in ("_engine", "diagnose"):
        stems += [path.stem for path in (ROOT / "lrfast" / folder).glob("[a-z]*.p*")]
    words = set(re.findall(r"[\w.]+", tree))
    assert [name for name in [*names, *stems] if name not in words] == []


def files(folder):
    return (ROOT / folder).glob("*") if folder == "." else (ROOT / folder).rglob("*")
