"""What pickles of earlier versions hold, and where it is now."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from .buffers import Snapshot
from .form import Form
from .further_keys import NAMES

MOVED: dict[str, dict[str, str]] = {
    "lrfast._optimizer": {"Optimizer": "lrfast._engine.optimizer:Optimizer"},
    "lrfast._tail": {"Report": "lrfast._engine.options:Report", "Tail": "lrfast._engine.options:Options"},
    "lrfast._threads": {
        "get_num_threads": "lrfast._engine.threads:get_num_threads",
        "num_threads": "lrfast._engine.threads:num_threads",
        "set_num_threads": "lrfast._engine.threads:set_num_threads",
    },
    "lrfast._verdict": {"Verdict": "lrfast.diagnose.verdict:Verdict"},
    "lrfast.finder": {"Sweep": "lrfast.diagnose.finder:Sweep", "find_lr": "lrfast.diagnose.finder:find_lr"},
    "lrfast.monitor": {
        "Monitor": "lrfast.diagnose.monitor:Monitor",
        "Verdict": "lrfast.diagnose.verdict:Verdict",
    },
}
"""Old module -> name -> where it is now."""


_BOUND = ("params", "labels", "grads", "copies", "ema", "states", "steps", "updates", "skipped")  # of 0.1.0


class _Moved(ModuleType):
    """Stands in ``sys.modules`` for a module that is gone; knows its names, and imports nothing before it is asked."""

    def __getattr__(self, name: str) -> Any:
        try:
            module, _, now = MOVED[self.__name__][name].partition(":")
        except KeyError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None
        return getattr(import_module(module), now)


def answer_old_names() -> None:
    """Called once at import."""
    for module in MOVED:
        package, _, name = module.rpartition(".")
        stand_in = sys.modules.setdefault(module, _Moved(module, __doc__))
        if not name.startswith("_"):
            setattr(sys.modules[package], name, stand_in)  # lrfast.monitor.Monitor was public


def upgraded(saved: dict[str, Any]) -> dict[str, Any]:
    """The pickled state of an optimizer, as this version has it."""
    if "form" in saved:
        return saved
    attributes = dict(saved["attributes"])  # 0.1.0
    names = ("defaults", "_tail", "_param_groups", "_schedules", "_structures", "_keys", "_bare", "_takes_list")
    own = {name: attributes.pop(name) for name in names}
    groups, keys = own["_param_groups"], own["_keys"]
    if keys is not None:
        groups = [{**groups[0], NAMES: tuple(keys)}]
    return {
        "attributes": attributes,
        "defaults": own["defaults"],
        "groups": groups,
        "schedules": own["_schedules"],
        "known": [None] * len(own["_schedules"]),
        "form": Form(own["_bare"], keys, own["_takes_list"]),
        "options": own["_tail"],
        "bound": Snapshot(**dict(zip(_BOUND, saved["bound"], strict=True))),
    }
