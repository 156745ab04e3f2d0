"""What was built, what runs, where the header and the archive are."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ._engine import numpy_plan, threads

_extension: Any = None
_why_no_extension = ""
try:
    from ._engine import _core

    _extension = _core
except Exception as error:  # of any kind: built for another NumPy or Python, cut off, ...
    _why_no_extension = f"{type(error).__name__}: {error}"

__all__ = ["available_isas", "get_include", "get_library_dir", "isa", "show_config", "use_isa"]

_PACKAGE = Path(__file__).parent


def available_isas() -> tuple[str, ...]:
    """Instruction sets that this machine and build can run, best first; ``"numpy"``, the reference, is always last."""
    return ("numpy",) if _extension is None else tuple(_extension.available_isas())


def isa() -> str:
    """The one in use: the best, or what ``LRFAST_ISA`` or :func:`use_isa` names."""
    return "numpy" if _extension is None else str(_extension.isa())


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Force an instruction set inside a ``with`` block, for all threads; the bits stay the same.

    Raises ValueError, naming those that exist, if this machine or build lacks it.
    """
    previous = isa()
    _set_isa(name)
    try:
        yield
    finally:
        _set_isa(previous)


def get_include() -> str:
    """Directory of ``lrfast.h``, for C and C++ compilers."""
    return str(_PACKAGE / "include")


def get_library_dir() -> str:
    """Directory of the static library ``liblrfast.a``. Raises FileNotFoundError if none was built."""
    folder = _PACKAGE / "lib"
    if not (folder / "liblrfast.a").is_file():
        raise FileNotFoundError(f"{folder / 'liblrfast.a'} is missing: {_why_not_built()}")
    return str(folder)


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print what was built and what runs; ``mode="dicts"`` returns it instead."""
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode: expected 'stdout' or 'dicts', got {mode!r}")
    from ._version import __version__

    facts = {
        "lrfast": __version__,
        "extension": "compiled kernels"
        if _extension is not None
        else "none: the NumPy reference runs instead, with the same bits, about 100 times slower",
        "why": _why_not_built() if _extension is None else None,
        "compiler": _extension.compiler() if _extension is not None else None,
        "isa": isa(),
        "available isas": list(available_isas()),
        "threads": threads.get_num_threads(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "include": get_include(),
        "library": get_library_dir() if _extension is not None else None,
    }
    facts = {key: value for key, value in facts.items() if value}
    if mode == "dicts":
        return facts
    for key, value in facts.items():
        print(f"{key:>16}: {', '.join(value) if isinstance(value, list) else value}")
    return None


def plan_class() -> Any:
    """What optimizers bind to: ``_core.Plan``, or the reference where there is no extension."""
    return numpy_plan.ReferencePlan if _extension is None else _extension.Plan


def core() -> Any:
    """The extension if compiled kernels are in use, otherwise None."""
    return None if isa() == "numpy" else _extension


def _set_isa(name: str) -> None:
    if _extension is not None:
        _extension.set_isa(name)
    elif name != "numpy":
        raise ValueError(f"isa {name!r} is not available here; there is numpy (no extension: {_why_no_extension})")


def _why_not_built() -> str:
    try:
        result = json.loads((_PACKAGE / "_build_info.json").read_text(encoding="utf-8"))["result"]
    except (OSError, ValueError, KeyError):
        result = "the package was not built"
    if result == "compiled kernels":
        return _why_no_extension
    return f"{result}; install gcc and the headers of Python, then lrfast once more"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _follow_environment() -> None:
    """LRFAST_ISA, read once at import."""
    name = os.environ.get("LRFAST_ISA")
    if name:
        if name not in available_isas():
            raise ValueError(f"LRFAST_ISA={name!r} is not available here; there are {', '.join(available_isas())}")
        _set_isa(name)


_follow_environment()
if _extension is not None:
    threads.start(_extension)
