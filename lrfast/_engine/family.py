"""What an optimizer class decides: its specification, and at most eight things more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from .arithmetic import Moved

Number = float | Callable[[int], float]
"""A hyper-parameter: a number, or a schedule s(t) of the completed updates t."""


class Twin(NamedTuple):
    """How the state_dict of PyTorch's optimizer of the same name differs.

    ``marks`` go into every group and tell twins apart that have the same settings; ``absent`` holds settings that
    PyTorch lacks or once lacked, with what it means (a missing flag means False); ``counts_steps``: whether its states
    have a step. ``witnesses``: a flag, by which alone another optimizer differs from this one, and a key of PyTorch's
    that proves the group this one's where the flag is missing.
    """

    marks: Mapping[str, Any] = MappingProxyType({})
    absent: Mapping[str, Any] = MappingProxyType({})
    counts_steps: bool = True
    witnesses: Mapping[str, str] = MappingProxyType({})


class Family:
    """Base of :class:`Optimizer`; its classes stand in ``lrfast/rules/``."""

    spec: ClassVar[Callable[..., Moved]]
    """One update in NumPy. Its keywords are settings, and those of the constructor's that an update reads."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Settings that decide what states mean, beside those that decide which exist (``variant``)."""
    torch_twin: ClassVar[Twin] = Twin()
    """How the state_dict of PyTorch's twin differs."""

    @classmethod
    def variant(cls, settings: Mapping[str, Any]) -> str:
        """The row of the table for these settings; a schedule counts as other than 0."""
        return cls.spec.__name__

    @classmethod
    def check(cls, settings: Mapping[str, Any], where: str) -> None:
        """Refuses combinations; single settings are in range already."""

    @classmethod
    def numbers(cls, settings: Mapping[str, Any]) -> Mapping[str, str]:
        """Setting -> number of the C API, where it is not the table's; depends on ``fixed`` settings alone."""
        return {}

    @classmethod
    def initial(cls, state: str, settings: Mapping[str, Any]) -> float | None:
        """What a new state is filled with; None: with its parameter."""
        return 0.0

    @classmethod
    def sigma_decay(cls, settings: Mapping[str, Any]) -> float:
        """Decay of the average of squares in sigma, 1 for a sum or mean of all; NaN without sigma."""
        return math.nan

    @classmethod
    def sharpness_limit(cls, settings: Mapping[str, Any]) -> float | None:
        """Largest curvature at which these settings are stable on a quadratic, where it is known."""
        return None
