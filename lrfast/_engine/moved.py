"""Where things are that pickles of earlier versions know under other names."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

MOVED: dict[str, dict[str, str]] = {
    "lrfast._state": {"State": "lrfast._engine.state"},
    "lrfast._tail": {"Report": "lrfast._engine.options", "Tail": "lrfast._engine.options"},
    "lrfast._verdict": {"Verdict": "lrfast.diagnose.verdict"},
    "lrfast.finder": {"Sweep": "lrfast.diagnose.finder", "find_lr": "lrfast.diagnose.finder"},
    "lrfast.monitor": {"Monitor": "lrfast.diagnose.monitor", "Verdict": "lrfast.diagnose.verdict"},
}
"""Old module -> name -> the module that has it now."""


class _Moved(ModuleType):
    """Stands in ``sys.modules`` for a module that is gone; knows its names, and imports nothing before it is asked."""

    def __getattr__(self, name: str) -> Any:
        try:
            place = MOVED[self.__name__][name]
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None
        return getattr(import_module(place), name)


def answer_old_names() -> None:
    """Called once at import."""
    for module in MOVED:
        sys.modules.setdefault(module, _Moved(module, __doc__))
