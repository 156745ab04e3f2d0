"""The demo as the command runs it, in a process of its own; with it comes the lecture."""

import subprocess
import sys

import pytest

from toolchain import ROOT


@pytest.fixture(scope="session")
def quick_demo(made_once):
    """The folder that it wrote, in a new one, and what it printed."""

    def make(folder):
        command = [sys.executable, "-m", "lrfast", "demo", "--quick", str(folder / "new" / "folder")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "printed").write_text(done.stdout, encoding="utf-8")

    made = made_once("demo", make)
    return made / "new" / "folder", (made / "printed").read_text(encoding="utf-8")
