"""A failing allocator: no memory at one allocation of a call after the other; nomemory.py has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrfast._engine import backend

import drawn
import toolchain

TESTS = Path(__file__).parent

pytest.importorskip("_testcapi", reason="a Python without its own tests cannot fail at an allocation")

CALLS = ["step", "step, bound", "step, scheduled", "step, edited", "step, all options", "step, norms", "step, skipped"]
CALLS += ["state_dict", "load_state_dict", "add_param_group", "use_ema", "clip_norm", "stats", "pickle", "deepcopy"]


@pytest.mark.matrix(3)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("plan", ["compiled", "numpy"])
def test_no_memory_at_any_allocation(plan, call, request):
    """At each, or at the share of them that is drawn."""
    every = 1 if request.config.getoption("--whole") else 11
    assert allocations(plan, call, 1 + drawn.number() % every, every) > 3


@pytest.fixture(scope="session")
def allocator(tmp_path_factory):
    """A library that makes calloc and realloc of the extension fail."""
    library = tmp_path_factory.mktemp("allocator") / "nomemory.so"
    toolchain.run([*toolchain.CC, "-shared", "-fPIC", TESTS / "nomemory.c", "-ldl", "-o", library])
    return library


# Call -> how many allocations it has at least.
IN_C = {"step, measured at last": 1, "deepcopy": 5, "deepcopy, carrying": 6, "unpickle": 5, "add_param_group": 5}
IN_C |= {"__init__": 5, "__setstate__": 5}


@pytest.mark.skipif(backend.extension is None, reason="no extension")
@pytest.mark.parametrize("call", IN_C)
def test_no_memory_at_any_allocation_in_c(call, allocator):
    assert allocations("c", call, 1, 1, LD_PRELOAD=str(allocator)) - 4 >= IN_C[call]


def allocations(plan, call, first, every, **environment):
    """Makes them fail in a program of its own; after how many it was through, and three times more."""
    run = subprocess.run(
        [sys.executable, str(TESTS / "nomemory.py"), plan, str(first), str(every), call],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), **environment},
    )
    assert run.returncode == 0, run.stdout[-500:] + run.stderr[-2000:]
    *name, count = run.stdout.splitlines()[-1].split()
    assert " ".join(name) == call
    return int(count)
