"""The floors of the house: imports of lrfast/ and includes and calls of src_c/ go down, never up and never round.

Read from the sources as text: those under TYPE_CHECKING and inside functions too, those of Cython and of stubs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from toolchain import ROOT

# Floor of a module: that of its longest prefix here.
FLOORS = {
    "lrfast._version": 0,
    "lrfast._engine": 1,
    "lrfast.rules": 2,
    "lrfast.matrix": 2,
    "lrfast.diagnose": 2,
    "lrfast.groups": 3,
    "lrfast.optim": 3,
    "lrfast.reference": 3,
    "lrfast.schedules": 3,
    "lrfast.stats": 3,
    "lrfast.config": 3,
    "lrfast.functional": 4,
    "lrfast": 4,
    "lrfast.torch": 5,
    "lrfast.integrations": 5,
    "lrfast.lab": 6,
    "lrfast.cli": 7,
    "lrfast.__main__": 7,
    "bench": 7,
}
PACKAGES_ON_THEIR_OWN = ("lrfast.rules", "lrfast.matrix", "lrfast.diagnose")  # of one floor, and none knows another
ADAPTERS = ("lrfast.torch", "lrfast.integrations")
MEASURED = "bench.peers"  # what is compared with a library compares its adapter, too
TOP_OF_LRFAST = 22  # names at most

Graph = dict[str, set[str]]


# ---- Python ---------------------------------------------------------------------------------------------------


def modules(root: Path) -> dict[str, list[Path]]:
    """Name -> files of everything in lrfast/ and bench/ that imports; a stub belongs to its module."""
    found: dict[str, list[Path]] = {}
    for folder in ("lrfast", "bench"):
        for path in sorted((root / folder).rglob("*.p*")):
            if path.suffix in (".py", ".pyi", ".pyx", ".pxd"):
                parts = path.relative_to(root).with_suffix("").parts
                found.setdefault(".".join(parts[:-1] if parts[-1] == "__init__" else parts), []).append(path)
    return found


def imports(root: Path) -> Graph:
    """Module -> modules of lrfast that it imports."""
    known = modules(root)
    return {
        name: {target for path in paths for target in targets_of(path, name, known) if target != name}
        for name, paths in known.items()
    }


def targets_of(path: Path, name: str, known: Mapping[str, Any]) -> Iterator[str]:
    """The modules that a file imports: of ``from x import y`` x.y if that is one, otherwise x."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for level, base, names in statements(path.read_text(encoding="utf-8")):
        above = package.rsplit(".", level - 1)[0] if level else ""
        base = ".".join(part for part in (above, base) if part)
        if base.partition(".")[0] == "lrfast":
            for imported in names or [""]:
                yield f"{base}.{imported}" if f"{base}.{imported}" in known else base


def statements(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """(dots, module, names) of each import of Python or Cython, wherever it stands; names are [] for all of it."""
    text = re.sub(r"\([^()]*\)", lambda found: found[0].replace("\n", " "), re.sub(r"#.*", "", text))
    for dots, base, names in re.findall(
        r"(?:^|;)\s*from\s+(\.*)\s*([\w.]*)\s+c?import\s+([^;\n]+)", text, re.MULTILINE
    ):
        words = [part.split()[0] for part in names.strip(" ()\t").split(",") if part.strip()]
        yield len(dots), base, [] if words == ["*"] else words
    for names in re.findall(r"(?:^|;)\s*c?import\s+([\w., ]+)", text, re.MULTILINE):
        yield from ((0, part.split()[0], []) for part in names.split(",") if part.strip())
    for base in re.findall(r"(?:import_module|__import__)\(\s*[\"'](lrfast[\w.]*)", text):
        yield 0, base, []


def floor_of(module: str) -> int | None:
    """None for a module that stands on no floor."""
    if module == "lrfast":
        return FLOORS[module]
    prefixes = [prefix for prefix in FLOORS if prefix != "lrfast" and (module + ".").startswith(prefix + ".")]
    return FLOORS[max(prefixes, key=len)] if prefixes else None


def wrong_imports(graph: Graph) -> list[str]:
    """What breaks the rules of the house."""
    wrong = [f"{name} stands on no floor" for name in graph if floor_of(name) is None]
    for name, targets in graph.items():
        for target in sorted(targets):
            here, there = floor_of(name), floor_of(target)
            if here is not None and there is not None and there > here:
                wrong.append(f"{name} (floor {here}) imports {target} (floor {there})")
            mine, its = (
                next((p for p in PACKAGES_ON_THEIR_OWN if (x + ".").startswith(p + ".")), None) for x in (name, target)
            )
            if mine and its and mine != its:
                wrong.append(f"{name} imports its neighbour {target}")
            if target.startswith(ADAPTERS) and not name.startswith((*ADAPTERS, MEASURED)):
                wrong.append(f"{name} imports the adapter {target}")
            if name.startswith(target + ".") and target != "lrfast":
                wrong.append(f"{name} imports its own package {target}: a circle")
    inner = {name: {t for t in targets if not name.startswith(t + ".")} for name, targets in graph.items()}
    return wrong + circles(inner)


def circles(graph: Graph) -> list[str]:
    """The first circle, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["circle: " + " -> ".join(error.args[1])]
    return []


# ---- C --------------------------------------------------------------------------------------------------------

# Floor of a file; a function, and what is declared in internal.h, belongs to the file that defines it.
FLOORS_C = {
    "compiler.h": 0,
    "optimizers.def": 0,
    "selftest.def": 0,
    "lrfast.h": 0,
    "pool.h": 0,
    "internal.h": 0,
    "tiles.h": 0,
    "kernels": 1,
    "rules": 1,
    "elementary.c": 1,
    "table.c": 1,
    "kernels_avx2.c": 1,
    "kernels_avx512.c": 1,
    "kernels_baseline.c": 1,
    "kernels_neon.c": 1,
    "buffers.c": 2,
    "formats.c": 2,
    "scalars.c": 2,
    "check.c": 3,
    "overlap.c": 3,
    "norm.c": 3,
    "update.c": 3,
    "selftest.c": 4,
    "dispatch.c": 5,
    "master.c": 6,
    "step.c": 6,
    "pool.c": 7,
}
PUBLIC = {"lrfast.h", "pool.h", "optimizers.def"}
PER_ELEMENT = ("kernels/", "rules/")


def includes(root: Path) -> Graph:
    """File -> files of src_c/ that it includes, as paths within src_c/."""
    folder = root / "src_c"
    graph = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".h", ".def")):
        names = re.findall(r'^\s*#\s*include "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        targets = set()
        for name in names:
            near = path.parent / name
            targets.add(os.path.relpath(near if near.exists() else folder / name, folder))
        graph[str(path.relative_to(folder))] = targets
    return graph


def calls(root: Path) -> Graph:
    """Source -> sources whose functions or tables it uses."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((root / "src_c").glob("*.c"))}
    texts = {name: re.sub(r'/\*.*?\*/|"[^"\n]*"', "", text, flags=re.DOTALL) for name, text in texts.items()}
    defined = {}
    for name, text in texts.items():
        found = re.findall(
            r"^(?!static|typedef|extern)\w[\w \*]*?\b(lrf_\w+)(?:\([^;{]*\)\s*\{| = \{)", text, re.MULTILINE
        )
        defined |= dict.fromkeys(found, name)
    return {
        name: {defined[word] for word in re.findall(r"\blrf_\w+", text) if word in defined} - {name}
        for name, text in texts.items()
    }


def floor_of_file(name: str) -> int | None:
    return FLOORS_C.get(name, FLOORS_C.get(name.partition("/")[0]))


def wrong_includes(graph: Graph, called: Graph | None = None) -> list[str]:
    """Every file stands on a floor; sources include headers and call downwards; kernels and rules include only each
    other and what is private to all; public headers nothing but public ones."""
    wrong = [f"{name} stands on no floor" for name in graph if floor_of_file(name) is None]
    for name, targets in (called or {}).items():
        here = floor_of_file(name) or 0
        wrong += [f"{name} calls up into {target}" for target in sorted(targets) if (floor_of_file(target) or 0) > here]
    for name, targets in graph.items():
        for target in sorted(targets):
            if target.endswith(".c"):
                wrong.append(f"{name} includes the source {target}")
            if (
                name in PUBLIC
                and target not in PUBLIC
                and not (name == "optimizers.def" and target.startswith("rules/"))
            ):
                wrong.append(f"{name} is public and includes {target}")
            private = ("internal.h", "compiler.h", "tiles.h", *PUBLIC)
            if name.startswith(PER_ELEMENT) and not target.startswith(PER_ELEMENT) and target not in private:
                wrong.append(f"{name} is per element and includes {target}")
            if target == "pool.h" and name != "pool.c":
                wrong.append(f"{name} knows the pool, which is optional")
    # The table brings the rules in where a macro asks for it: no circle of meaning.
    inner = {name: targets if name != "optimizers.def" else set() for name, targets in graph.items()}
    return wrong + circles(inner) + circles(called or {})


# ---- the house ------------------------------------------------------------------------------------------------


def test_imports_go_down():
    graph = imports(ROOT)
    assert len(graph) > 30
    assert wrong_imports(graph) == []


def test_includes_go_down():
    graph, called = includes(ROOT), calls(ROOT)
    assert len(graph) > 20
    assert {"norm.c", "update.c", "check.c", "dispatch.c"} <= called["step.c"]
    assert wrong_includes(graph, called) == []


def test_the_listing_tells_the_story():
    built = re.compile(r"(__pycache__|include|lib|_build_info\.json|\w+\.pyi)$")
    names = [path.name for path in (ROOT / "lrfast").iterdir() if not built.match(path.name)]
    assert len(names) <= TOP_OF_LRFAST, names
    underscored = {name for name in names if name.startswith("_") and not name.startswith("__")}
    assert underscored == {"_version.py", "_engine"}


@pytest.mark.parametrize("folder", ["lrfast", "src_c", "tests"])
def test_file_names_are_unique(folder):
    """Within each of the three; __init__.py is a folder's, and a fixture belongs to its release."""
    names = [
        path.name
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".pyx", ".c", ".h", ".def")
        and path.name not in ("__init__.py", "_core.c", "_roofline.c")
        if "include" not in path.parts
    ]
    assert sorted(names) == sorted(set(names))


def test_only_the_engine_knows_the_inside_of_an_optimizer():
    """No private attribute of an optimizer is reached from outside _engine."""
    names = "plan|buffers|settings|options|form|recorder|scheduled|snapshot|shape|take_edits"
    private = re.compile(rf"\._(?:{names})\b|\b(?:optimizer|opt|twin)\._(?!_)\w+")
    found = []
    for name, paths in modules(ROOT).items():
        if not name.startswith("lrfast._engine"):
            found += [f"{name}: {match}" for path in paths for match in private.findall(path.read_text("utf-8"))]
    assert found == []


def test_the_plan_never_calls_up():
    """_core knows neither the optimizer nor its settings' class."""
    text = (ROOT / "lrfast/_engine/_core.pyx").read_text(encoding="utf-8")
    assert not re.search(r"\bowner\b|weakref|optimizer\.|import optimizer", text)
    below = imports(ROOT)["lrfast._engine._core"] | imports(ROOT)["lrfast._engine.numpy_plan"]
    assert not below & {"lrfast._engine.optimizer", "lrfast._engine.settings", "lrfast._engine.backend"}


# ---- that the rules bite --------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path):
    """Writes a small house; files as keywords, / as __."""

    def build(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


GOOD = {
    "lrfast/__init__.py": "from .optim import SGD\n",
    "lrfast/optim.py": "from .rules import sgd\n",
    "lrfast/rules/__init__.py": "from . import sgd\n",
    "lrfast/rules/sgd.py": "from .._engine import plan\n",
    "lrfast/_engine/__init__.py": "",
    "lrfast/_engine/plan.pyx": "from . import checks\n",
    "lrfast/_engine/checks.py": "import numpy\n",
    "lrfast/diagnose/__init__.py": "",
    "lrfast/lab/__init__.py": "import lrfast\n",
}
BAD = {
    "an arrow up": ({"lrfast/_engine/checks.py": "from ..optim import SGD\n"}, "imports lrfast.optim"),
    "an arrow up for types": (
        {"lrfast/_engine/checks.py": "if TYPE_CHECKING:\n    from ..rules.sgd import SGD\n"},
        "imports lrfast.rules.sgd",
    ),
    "an arrow up in a function": (
        {"lrfast/rules/sgd.py": "def f():\n    from ..lab import demo\n"},
        "imports lrfast.lab",
    ),
    "an arrow up in Cython": ({"lrfast/_engine/plan.pyx": "from ..rules import sgd\n"}, "imports lrfast.rules.sgd"),
    "by its full name": ({"lrfast/_engine/checks.py": "import lrfast.optim\n"}, "imports lrfast.optim"),
    "a circle": ({"lrfast/_engine/checks.py": "from . import plan\n"}, "circle"),
    "a neighbour": ({"lrfast/rules/sgd.py": "from ..diagnose import verdict\n"}, "neighbour"),
    "an adapter": (
        {"lrfast/torch/__init__.py": "from ..optim import SGD\n", "lrfast/cli.py": "from . import torch\n"},
        "imports the adapter",
    ),
    "no floor": ({"lrfast/_helpers.py": ""}, "stands on no floor"),
    "several lines of Cython": (
        {"lrfast/_engine/plan.pyx": "from ..rules import (\n    sgd,\n)\n"},
        "imports lrfast.rules.sgd",
    ),
    "everything, in Cython": ({"lrfast/_engine/plan.pyx": "from ..optim cimport *\n"}, "imports lrfast.optim"),
    "a declaration for Cython": ({"lrfast/_engine/api.pxd": "cimport numpy, lrfast.optim\n"}, "imports lrfast.optim"),
    "a stub": ({"lrfast/_engine/plan.pyi": "from ..rules.sgd import SGD\n"}, "imports lrfast.rules.sgd"),
    "behind a semicolon": ({"lrfast/_engine/plan.pyx": "x = 1; from .. import optim\n"}, "imports lrfast.optim"),
    "by name": ({"lrfast/_engine/checks.py": 'import_module("lrfast.optim")\n'}, "imports lrfast.optim"),
    "its own package": ({"lrfast/rules/sgd.py": "from . import CLASSES\n"}, "its own package"),
    "an adapter, in the benchmark": (
        {"lrfast/torch/__init__.py": "", "bench/run.py": "from lrfast import torch\n"},
        "imports the adapter",
    ),
}


def test_a_good_house_is_good(house):
    assert wrong_imports(imports(house(GOOD))) == []


@pytest.mark.parametrize("kind", BAD)
def test_every_kind_of_wrong_import_is_found(kind, house):
    files, expected = BAD[kind]
    assert any(expected in line for line in wrong_imports(imports(house({**GOOD, **files}))))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"src_c/lrfast.h": '#include "internal.h"\n', "src_c/internal.h": ""}, "is public"),
        ({"src_c/rules/sgd.h": '#include "../pool.c"\n', "src_c/pool.c": ""}, "the source"),
        ({"src_c/kernels/a.h": '#include "step.h"\n', "src_c/step.h": ""}, "per element"),
        ({"src_c/a.h": '#include "b.h"\n', "src_c/b.h": '#include "a.h"\n'}, "circle"),
        ({"src_c/helpers.h": ""}, "no floor"),
        ({"src_c/check.c": '#include "pool.h"\n', "src_c/pool.h": ""}, "knows the pool"),
        (
            {
                "src_c/check.c": "int f(void)\n{\n    return lrf_end();\n}\n",
                "src_c/step.c": "int lrf_end(void)\n{\n}\n",
            },
            "calls up into step.c",
        ),
    ],
)
def test_every_kind_of_wrong_include_is_found(files, expected, house):
    root = house(files)
    assert any(expected in line for line in wrong_includes(includes(root), calls(root)))
