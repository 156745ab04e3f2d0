"""NumPy alone: the behavioural tests once more, in a process without the extension."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = ["test_bad_input.py", "test_bad_settings.py", "test_checkpoint.py", "test_schedules.py", "test_optim.py"]
TESTS += ["test_fixtures.py", "test_formats.py"]
# What only makes sense with an extension.
OTHER = "not (gil or isa or fork or versions or interrupt)"


def test_behaviour_without_the_extension():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", OTHER, *TESTS],
        cwd=Path(__file__).parent,
        env={**os.environ, "LRFAST_TEST_WITHOUT_EXTENSION": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-4000:]
