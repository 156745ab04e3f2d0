"""What was built, what runs, where the header and the archive are."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ._engine import backend, threads
from ._engine.backend import available_isas, isa
from ._version import __version__

__all__ = ["available_isas", "get_include", "get_library_dir", "isa", "show_config", "use_isa"]


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Force an instruction set inside a ``with`` block, for all threads; the bits stay the same.

    Raises ValueError, naming those that exist, if this machine or build lacks it.
    """
    previous = isa()
    backend.set_isa(name)
    try:
        yield
    finally:
        backend.set_isa(previous)


def get_include() -> str:
    """Directory of ``lrfast.h``, for C and C++ compilers."""
    return str(backend.PACKAGE / "include")


def get_library_dir() -> str:
    """Directory of the static library ``liblrfast.a``. Raises FileNotFoundError if none was built."""
    folder = backend.PACKAGE / "lib"
    if not (folder / "liblrfast.a").is_file():
        raise FileNotFoundError(f"{folder / 'liblrfast.a'} is missing: {backend.why_not_built()}")
    return str(folder)


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print what was built and what runs; ``mode="dicts"`` returns it instead."""
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode: expected 'stdout' or 'dicts', got {mode!r}")
    facts = {
        "lrfast": __version__,
        "extension": "compiled kernels"
        if backend.extension is not None
        else "none: the NumPy reference runs instead, with the same bits, about 100 times slower",
        "why": backend.why_not_built() if backend.extension is None else None,
        "compiler": backend.extension.compiler() if backend.extension is not None else None,
        "isa": isa(),
        "available isas": list(available_isas()),
        "threads": threads.get_num_threads(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "include": get_include(),
        "library": get_library_dir() if backend.extension is not None else None,
    }
    facts = {key: value for key, value in facts.items() if value}
    if mode == "dicts":
        return facts
    for key, value in facts.items():
        print(f"{key:>16}: {', '.join(value) if isinstance(value, list) else value}")
    return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
