"""lrfast: the optimizer step as a library. Fused, in-place parameter updates for NumPy arrays.

.. code-block:: python

    lr = lrfast.schedules.cosine(3e-4, steps=9_500).warmup(500)
    optimizer = lrfast.AdamW(params, lr=lr, weight_decay=0.1)   # an array, or a sequence or mapping of arrays
    optimizer.step(grads)                                       # params are updated in place
    optimizer.param_groups[0]["weight_decay"] = 0.05            # settings may be edited between steps
    optimizer.state[0]["exp_avg"]                               # live state, with PyTorch's names

``lrfast.optim.__all__`` names the optimizers. ``lrfast.functional`` has single updates of single arrays,
``lrfast.reference`` the specification in NumPy, ``lrfast.schedules`` functions of the completed updates,
``lrfast.find_lr`` a suggestion for the learning rate, ``lrfast.param_groups`` groups by name, ``lrfast.Monitor`` a
record of a run and a verdict on why its loss is stuck; ``lrfast.torch`` has the optimizers for PyTorch.
``copy.deepcopy`` and ``pickle`` of an optimizer include its parameters and bound gradients.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import optim
from ._engine.moved import answer_old_names
from ._engine.threads import get_num_threads, num_threads, set_num_threads
from ._version import __version__
from .config import available_isas, get_include, get_library_dir, isa, show_config, use_isa
from .optim import *  # noqa: F403

__all__ = [
    "Monitor",
    "__version__",
    "available_isas",
    "find_lr",
    "functional",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "isa",
    "num_threads",
    "param_groups",
    "reference",
    "schedules",
    "set_num_threads",
    "show_config",
    "stats",
    "use_isa",
]
__all__ += optim.__all__

answer_old_names()

if _TYPE_CHECKING:
    from . import functional, reference, schedules, stats
    from .diagnose.finder import find_lr
    from .diagnose.monitor import Monitor
    from .groups import param_groups

_LATER = {"Monitor": "diagnose.monitor", "find_lr": "diagnose.finder", "param_groups": "groups"}
_LATER |= {name: name for name in ("functional", "reference", "schedules", "stats")}


def __getattr__(name: str) -> _Any:
    """What a training may never need is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'lrfast' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f".{_LATER[name]}", __name__)
    value = globals()[name] = module if _LATER[name] == name else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
