"""Code of the user that changes the optimizer under the call: refused or whole, never a crash; hostile.py has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("plan", ["compiled", "numpy"])
def test_code_of_the_user_that_changes_the_optimizer(plan):
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile.py")), plan],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert run.returncode == 0, run.stdout[-300:] + run.stderr[-3000:]
    assert run.stdout.splitlines()[-1].startswith("all")
