"""The programs of examples/with_torch run, and the benchmark against torch.optim."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parent.parent
PROGRAMS = [
    ("examples/with_torch/gpt.py", "--steps 3 --depth 1"),
    ("examples/with_torch/gpt.py", "--steps 3 --depth 1 --optimizer torch"),
    ("bench/peers/run_torch.py", "--quick --rounds 1 --threads 1"),
]
if importlib.util.find_spec("sklearn"):
    PROGRAMS.append(("examples/with_torch/resnet_digits.py", "--epochs 1"))


@pytest.mark.parametrize(("program", "arguments"), PROGRAMS)
def test_it_runs(program, arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(ROOT / program), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) >= 2
