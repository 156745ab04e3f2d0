"""A process per number of threads, and what is known about the one that measures."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def environment(threads: int) -> dict[str, str]:
    """Thread numbers that are read once, at import. With one thread the process also gets just one processor."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "LRFAST_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads)), "DS_ACCELERATOR": "cpu", "JAX_PLATFORMS": "cpu"}


def use_processors(threads: int) -> None:
    """As many processors as threads, if there are so many."""
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[:threads] if threads <= len(processors) else processors)


def versions() -> dict[str, str]:
    """The commit that is measured, and the versions of all peers."""
    commit = subprocess.run(["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"], capture_output=True, text=True)
    found = {"commit": commit.stdout.strip() or "unknown"}
    for package in ("numba", "torch", "deepspeed", "jax", "optax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
