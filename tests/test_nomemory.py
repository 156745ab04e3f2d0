"""A failing allocator: no memory at one allocation of a call after the other; nomemory.py has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import drawn

pytest.importorskip("_testcapi", reason="a Python without its own tests cannot fail at an allocation")

CALLS = ["step", "step, bound", "step, scheduled", "step, edited", "step, all options", "step, norms", "step, skipped"]
CALLS += ["state_dict", "load_state_dict", "add_param_group", "use_ema", "clip_norm", "stats", "pickle", "deepcopy"]


@pytest.mark.matrix(3)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("plan", ["compiled", "numpy"])
def test_no_memory_at_any_allocation(plan, call, request):
    """At each, or at the share of them that is drawn."""
    every = 1 if request.config.getoption("--whole") else 11
    which = [str(1 + drawn.number() % every), str(every)]
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("nomemory.py")), plan, *which, call],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert run.returncode == 0, run.stdout[-500:] + run.stderr[-2000:]
    assert run.stdout.splitlines()[-1].startswith(call)
