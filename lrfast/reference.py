"""The specification: every update rule once, in NumPy.

The compiled kernels give the same bits as these functions, which are also what runs where there is no extension. They
work in place on float32 or float64 arrays of one dtype and of any shape, check nothing but the presence of states, and
allocate temporaries, but refuse numbers that the dtype does not hold. ``lrfast.functional`` has the same functions,
checked and compiled; ``lrfast/rules/`` has their source, a file per family.

Conventions, as in PyTorch: ``step`` is the number t >= 1 of this update and the caller counts; numbers per step are
computed in float64 and cast once to the dtype of the parameter; ``maximize`` turns the gradient around before decay;
``grad_scale`` multiplies the gradient first. In every rule with coupled decay

    x = grad_scale g + weight_decay p

so that an infinite parameter makes x NaN, also without decay. Moving averages below the smallest normal number become
+0. Where a state is not needed it is None; a missing or superfluous one raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import numpy as np

from ._engine import checks, fit
from ._engine.arithmetic import Moved, need
from ._engine.commit import at_once, copying
from ._engine.specification import scaled, settings_of
from .rules import CLASSES

__all__ = sorted(cls.spec.__name__ for cls in CLASSES.values())


def _public(specification: Callable[..., Moved]) -> Callable[..., None]:
    """Without warnings, since NaN and infinity are results here as in C; and a superfluous buffer is refused, which an
    optimizer keeps where a schedule makes momentum 0."""
    parameters = signature(specification)

    @wraps(specification)
    def public(*args: Any, **kwargs: Any) -> None:
        given = parameters.bind(*args, **kwargs)
        given.apply_defaults()
        if given.arguments.get("momentum") == 0:
            need("momentum_buffer", given.arguments["momentum_buffer"], False)
        numbers = {name: given.arguments[name] for name in (*settings_of(specification), "grad_scale")}
        param = given.arguments["param"]
        if param.dtype.name not in checks.PLAIN:
            raise TypeError(
                f"param: expected dtype float32 or float64, got {param.dtype}; the optimizer classes take more"
            )
        fit.settings(numbers, param.dtype)
        own = {key: x for key, x in given.arguments.items() if isinstance(x, np.ndarray) and key != "grad"}
        new = {key: x.copy() for key, x in own.items()}
        with np.errstate(all="ignore"):
            given.arguments["grad"], given.arguments["grad_scale"] = scaled(
                given.arguments["grad"], given.arguments["grad_scale"]
            )
            specification(**{**given.arguments, **new})
        at_once([copying(x, new[key]) for key, x in own.items()])

    public.__signature__ = parameters.replace(return_annotation=None)  # type: ignore[attr-defined]
    public.__module__ = __name__
    return public


def __getattr__(name: str) -> Callable[..., None]:
    """One function per optimizer class, made when it is first asked for."""
    for cls in CLASSES.values():
        if cls.spec.__name__ == name:
            globals()[name] = function = _public(cls.spec)
            return function
    raise AttributeError(f"lrfast.reference has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
