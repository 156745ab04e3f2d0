"""Makes the modules beside the tests importable, hides the extension where a test asks for that, draws lines; and has
what several files of tests, or several processes that run them, want to be made once."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import drawn
import toolchain

if os.environ.get("LRFAST_TEST_WITHOUT_EXTENSION"):
    sys.modules["lrfast._engine._core"] = None
    os.environ.setdefault("LRFAST_ISA", "numpy")  # without a warning


@pytest.fixture
def forced_isa(isa, monkeypatch):
    """For tests that are parametrised over isa: they run on it. "numpy plan": as where there is no extension."""
    import lrfast
    from lrfast._engine import backend, numpy_plan

    if isa == "numpy plan":
        monkeypatch.setattr(backend, "Plan", numpy_plan.Plan)
        yield
    else:
        with lrfast.use_isa(isa):
            yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """made_once(name, make): the folder of that name, which make(folder) fills in the first process that asks."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name, make):
        folder = shared / f"once-{name}"
        with (shared / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "done").exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                folder.mkdir()
                make(folder)
                (folder / "done").touch()
        return folder

    return made


@pytest.fixture(scope="session")
def objects(made_once):
    """Object files of the core, by the line that the header quotes, with every warning an error."""
    folder = made_once("objects", lambda folder: toolchain.build_objects(folder, *toolchain.STRICT))
    return sorted(folder.glob("*.o"))


@pytest.fixture(scope="session")
def quick_demo(made_once):
    """The folder that the command wrote, with the lecture, in a process of its own; and what it printed."""

    def make(folder):
        command = [sys.executable, "-m", "lrfast", "demo", "--quick", folder / "new" / "folder"]
        printed = toolchain.run(command, cwd=toolchain.ROOT)
        (folder / "printed").write_text(printed, encoding="utf-8")

    made = made_once("demo", make)
    return made / "new" / "folder", (made / "printed").read_text(encoding="utf-8")


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="all of each matrix instead of the line of the day")


def pytest_configure(config):
    config.addinivalue_line("markers", "matrix(lines): cases of which a run takes one in so many, unless --whole")
    drawn.number()


def pytest_collection_modifyitems(config, items):
    if config.getoption("--whole") or any("::" in argument for argument in config.args):
        return
    left_out = [
        item
        for item in items
        if (matrix := item.get_closest_marker("matrix")) and not drawn.is_drawn(item.name, matrix.args[0])
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--whole"):
        terminalreporter.line(f"lines of the matrices: LRFAST_TEST_LINE={drawn.number()} draws them once more")
