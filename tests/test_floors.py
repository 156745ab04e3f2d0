"""The floors of the house: imports of lrfast/ and includes of src_c/ go down, never up and never round.

Read from the sources as text and syntax trees, those under TYPE_CHECKING and inside functions too, and those of .pyx.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from toolchain import ROOT

# Floor of a module: that of its longest prefix here.
FLOORS = {
    "lrfast._version": 0,
    "lrfast.schedules": 0,
    "lrfast._engine": 1,
    "lrfast.rules": 2,
    "lrfast.matrix": 2,
    "lrfast.diagnose": 2,
    "lrfast.optim": 3,
    "lrfast.reference": 3,
    "lrfast.stats": 3,
    "lrfast.config": 3,
    "lrfast.functional": 4,
    "lrfast": 4,
    "lrfast.torch": 5,
    "lrfast.integrations": 5,
    "lrfast.lab": 6,
    "lrfast.cli": 7,
    "lrfast.__main__": 7,
}
PACKAGES_ON_THEIR_OWN = ("lrfast.rules", "lrfast.matrix", "lrfast.diagnose")  # of one floor, and none knows another
ADAPTERS = ("lrfast.torch", "lrfast.integrations")
TOP_OF_LRFAST = 22  # names at most

Graph = dict[str, set[str]]


# ---- Python ---------------------------------------------------------------------------------------------------


def modules(root: Path) -> dict[str, Path]:
    """Name -> file of everything in lrfast/ that imports; a stub stands for its module."""
    found = {}
    for path in sorted((root / "lrfast").rglob("*.py*")):
        if path.suffix in (".py", ".pyx"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Graph:
    """Module -> modules of lrfast that it imports."""
    known = modules(root)
    graph: Graph = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] = {target for target in targets_of(path, package, known) if target != name}
    return graph


def targets_of(path: Path, package: str, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules that a file imports: of ``from x import y`` x.y if that is one, otherwise x."""
    for base, names in statements(path.read_text(encoding="utf-8"), path.suffix == ".pyx", package):
        if base.partition(".")[0] == "lrfast":
            for name in names or [""]:
                yield f"{base}.{name}" if f"{base}.{name}" in known else base


def statements(text: str, is_cython: bool, package: str) -> Iterator[tuple[str, list[str]]]:
    """(absolute module, names) of each import."""
    if is_cython:
        found = re.findall(r"^\s*from (\.*)([\w.]*) c?import \(?([\w, ]+)", text, re.MULTILINE)
        triples = [
            (len(dots), base, [n.split()[0] for n in names.split(",") if n.strip()]) for dots, base, names in found
        ]
        triples += [(0, base, []) for base in re.findall(r"^\s*c?import ([\w.]+)", text, re.MULTILINE)]
    else:
        triples = []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                triples.append((node.level, node.module or "", [alias.name for alias in node.names]))
            elif isinstance(node, ast.Import):
                triples += [(0, alias.name, []) for alias in node.names]
    for level, base, names in triples:
        above = package.rsplit(".", level - 1)[0] if level else ""
        yield ".".join(part for part in (above, base) if part), names


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
            if target.startswith(ADAPTERS) and not name.startswith(ADAPTERS):
                wrong.append(f"{name} imports the adapter {target}")
    return wrong + circles(graph)


def circles(graph: Graph) -> list[str]:
    """The first circle, if there is one. A package is made of its modules: that one imports it is no circle."""
    inner = {name: {t for t in targets if not name.startswith(t + ".")} for name, targets in graph.items()}
    try:
        TopologicalSorter(inner).prepare()
    except CycleError as error:
        return ["circle: " + " -> ".join(error.args[1])]
    return []


# ---- C --------------------------------------------------------------------------------------------------------

# File of src_c -> what it may include, beside the public headers that it implements.
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
            targets.add(str((near if near.exists() else folder / name).relative_to(folder)))
        graph[str(path.relative_to(folder))] = targets
    return graph


def wrong_includes(graph: Graph) -> list[str]:
    """Sources include headers; kernels and rules only each other and what is private to all; public headers nothing
    but public ones."""
    wrong = []
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
    # The table brings the rules in where a macro asks for it: no circle of meaning.
    inner = {name: targets if name != "optimizers.def" else set() for name, targets in graph.items()}
    return wrong + circles(inner)


# ---- the house ------------------------------------------------------------------------------------------------


def test_imports_go_down():
    graph = imports(ROOT)
    assert len(graph) > 30
    assert wrong_imports(graph) == []


def test_includes_go_down():
    graph = includes(ROOT)
    assert len(graph) > 20
    assert wrong_includes(graph) == []


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
    private = re.compile(r"\b(?:optimizer|opt|twin|other|self\._optimizer|self\._twin)\._(?!_)\w+")
    found = []
    for name, path in modules(ROOT).items():
        if not name.startswith("lrfast._engine"):
            found += [f"{name}: {match}" for match in private.findall(path.read_text(encoding="utf-8"))]
    assert found == []


def test_the_plan_never_calls_up():
    """_core knows neither the optimizer nor its settings' class."""
    text = modules(ROOT)["lrfast._engine._core"].read_text(encoding="utf-8")
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
    ],
)
def test_every_kind_of_wrong_include_is_found(files, expected, house):
    assert any(expected in line for line in wrong_includes(includes(house(files))))
