"""What runs: the extension or the NumPy specification, chosen at import; instruction sets; how they were built."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from . import elementary as in_integers
from . import threads

PACKAGE = Path(__file__).parents[1]

extension: Any = None  # the module _core, where it can be imported
why_no_extension = ""
try:
    from . import _core

    if _core.has_kernels():
        extension = _core
    else:
        why_no_extension = (
            "its kernels do not give the promised bits, as it was compiled with flags that change arithmetic; build it "
            "once more without -ffast-math, parts of it and -ffp-contract=fast (in CFLAGS?)"
        )
except Exception as error:  # of any kind: built for another NumPy or Python, cut off, ...
    why_no_extension = f"{type(error).__name__}: {error}"

if extension is None:
    from . import numpy_plan
Plan: Any = numpy_plan.Plan if extension is None else extension.Plan
"""What an optimizer binds its buffers to."""
elementary: Any = in_integers if extension is None else extension
"""exp, log, power and cos: the bits are the same, the time is not."""


def compiled() -> ModuleType | None:
    """The extension if compiled kernels are in use, otherwise None."""
    return None if isa() == "numpy" else extension


def available_isas() -> tuple[str, ...]:
    """Instruction sets that this machine and build can run, best first; ``"numpy"``, the reference, is always last."""
    return ("numpy",) if extension is None else tuple(extension.available_isas())


def isa() -> str:
    """The one in use: the best, or what ``LRFAST_ISA`` or ``use_isa`` names."""
    return "numpy" if extension is None else str(extension.isa())


def set_isa(name: str) -> None:
    """Forces one for the whole process. Raises ValueError if it is not available."""
    if extension is not None:
        extension.set_isa(name)
    elif name != "numpy":
        raise ValueError(f"isa {name!r} is not available here; there is numpy (no extension: {why_no_extension})")


def why_not_built() -> str:
    """Why there is no extension, or no archive, and what to do."""
    try:
        result = json.loads((PACKAGE / "_build_info.json").read_text(encoding="utf-8"))["result"]
    except (OSError, ValueError, KeyError):
        result = "the package was not built"
    if result == "compiled kernels":
        return why_no_extension
    return f"{result}; install gcc and the headers of Python, then lrfast once more"


def _follow_environment() -> None:
    """LRFAST_ISA, read once at import."""
    name = os.environ.get("LRFAST_ISA")
    if name:
        if name not in available_isas():
            raise ValueError(f"LRFAST_ISA={name!r} is not available here; there are {', '.join(available_isas())}")
        set_isa(name)


def _tell_what_is_missing() -> None:
    """Nobody should find out by a stopwatch."""
    if extension is None and os.environ.get("LRFAST_ISA") != "numpy":
        warnings.warn(
            f"lrfast runs on its NumPy reference, with the same bits, about 100 times slower: {why_not_built()} "
            "(LRFAST_ISA=numpy, if this is what you want)",
            RuntimeWarning,
            stacklevel=2,
        )


_follow_environment()
_tell_what_is_missing()
if extension is not None:
    threads.start(extension)
