"""Makes the modules beside the tests importable, hides the extension where a test asks for that, draws lines."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import drawn

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
