"""The optimizers in all their variants: the one list that every test reads.

An optimizer is an entry here, or several; its formula for the comparison with exact arithmetic stands in exact.py.
A class without an entry takes part with its defaults, but test_oracle.py asks for one.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, NamedTuple

import numpy as np

import lrfast
from lrfast._engine.settings import flags_of, numbers_of
from lrfast._engine.table import RULES, Rule

Settings = dict[str, Any]


class Variant(NamedTuple):
    """An optimizer and its settings.

    ``golden``: the bits that it gives are promised by lines of golden.txt. ``with_options``: further lines there
    promise those of updates with options, with its settings (True) or with these in place of them.
    """

    name: str
    cls: type[lrfast.Optimizer]
    settings: Settings
    golden: bool = True
    with_options: bool | Settings = False

    def make(self, params: Any, **more: Any) -> lrfast.Optimizer:
        """The optimizer with its settings, and with more on top of them."""
        return self.cls(params, **{**self.settings, **more})


_LISTED = [
    Variant("sgd", lrfast.SGD, dict(lr=1e-2), with_options=dict(lr=1e-2, maximize=True)),
    Variant("sgd-decay-maximize", lrfast.SGD, dict(lr=1e-2, weight_decay=0.1, maximize=True)),
    Variant("momentum", lrfast.SGD, dict(lr=1e-2, momentum=0.9), with_options=True),
    Variant("momentum-low", lrfast.SGD, dict(lr=1e-2, momentum=0.3, dampening=0.5, weight_decay=0.01)),
    Variant("nesterov", lrfast.SGD, dict(lr=1e-2, momentum=0.9, nesterov=True), with_options=True),
    Variant(
        "nesterov-maximize", lrfast.SGD, dict(lr=1e-2, momentum=0.4, weight_decay=0.1, nesterov=True, maximize=True)
    ),
    Variant("adagrad", lrfast.Adagrad, dict(), with_options=True),
    Variant("adagrad-decay", lrfast.Adagrad, dict(lr_decay=0.1, weight_decay=0.01, initial_accumulator_value=0.1)),
    Variant("adagrad-mean", lrfast.Adagrad, dict(lr_decay=0.01, accumulate="mean", maximize=True)),
    Variant("rmsprop", lrfast.RMSprop, dict(weight_decay=0.01)),
    Variant("rmsprop-low", lrfast.RMSprop, dict(alpha=0.3)),
    Variant("rmsprop-first", lrfast.RMSprop, dict(alpha=0.9, initial="first-gradient")),
    Variant(
        "rmsprop-momentum",
        lrfast.RMSprop,
        dict(momentum=0.9, maximize=True),
        with_options=dict(alpha=0.9, momentum=0.5),
    ),
    Variant("rmsprop-momentum-first", lrfast.RMSprop, dict(alpha=0.9, momentum=0.5, initial="first-gradient")),
    Variant("rmsprop-centered", lrfast.RMSprop, dict(alpha=0.9, centered=True), with_options=True),
    Variant("rmsprop-centered-low", lrfast.RMSprop, dict(alpha=0.2, centered=True)),
    Variant("rmsprop-centered-momentum", lrfast.RMSprop, dict(momentum=0.5, weight_decay=0.01, centered=True)),
    Variant("adam", lrfast.Adam, dict()),
    Variant("adam-low", lrfast.Adam, dict(betas=(0.3, 0.4))),
    Variant("adam-decay-maximize", lrfast.Adam, dict(weight_decay=0.1, maximize=True)),
    Variant("adamw", lrfast.AdamW, dict(weight_decay=0.1), with_options=True),
    Variant(
        "amsgrad",
        lrfast.Adam,
        dict(betas=(0.9, 0.99), weight_decay=0.01, amsgrad=True),
        with_options=dict(betas=(0.9, 0.99), amsgrad=True),
    ),
    Variant("adamw-amsgrad", lrfast.AdamW, dict(amsgrad=True), golden=False),
    Variant("amsgrad-low-decoupled", lrfast.AdamW, dict(betas=(0.4, 0.5), weight_decay=0.01, amsgrad=True)),
    Variant("radam", lrfast.RAdam, dict(weight_decay=0.1), with_options=dict(betas=(0.9, 0.9))),
    Variant("radam-maximize", lrfast.RAdam, dict(betas=(0.9, 0.99), weight_decay=0.01, maximize=True), golden=False),
    Variant("radam-decoupled", lrfast.RAdam, dict(weight_decay=0.1, decoupled_weight_decay=True), golden=False),
    Variant("radam-low-decoupled", lrfast.RAdam, dict(betas=(0.3, 0.6), weight_decay=0.1, decoupled_weight_decay=True)),
    Variant("radam-long-memory", lrfast.RAdam, dict(lr=1e-2, betas=(0.9, 0.99999))),
    Variant("adadelta", lrfast.Adadelta, dict(), with_options=True),
    Variant("adadelta-decay-maximize", lrfast.Adadelta, dict(lr=0.1, rho=0.3, weight_decay=0.1, maximize=True)),
    Variant("adamax", lrfast.Adamax, dict(), with_options=True),
    Variant("adamax-decay-maximize", lrfast.Adamax, dict(betas=(0.4, 0.6), weight_decay=0.1, maximize=True)),
    Variant("rprop", lrfast.Rprop, dict(), with_options=True),
    Variant(
        "rprop-limits-maximize", lrfast.Rprop, dict(lr=0.1, etas=(0.3, 2.0), step_sizes=(0.01, 0.3), maximize=True)
    ),
    Variant("lion", lrfast.Lion, dict(weight_decay=0.1), with_options=True),
    Variant("lion-low-maximize", lrfast.Lion, dict(lr=1e-2, betas=(0.3, 0.6), maximize=True)),
    Variant("nadam", lrfast.NAdam, dict(weight_decay=0.1), with_options=True),
    Variant(
        "nadam-low-decoupled",
        lrfast.NAdam,
        dict(betas=(0.3, 0.6), weight_decay=0.1, momentum_decay=0.3, decoupled_weight_decay=True, maximize=True),
    ),
    Variant("asgd", lrfast.ASGD, dict(), with_options=dict(t0=5.0, lambd=0.1)),
    Variant(
        "asgd-early-maximize",
        lrfast.ASGD,
        dict(lr=0.1, lambd=0.1, alpha=0.3, t0=2.0, weight_decay=0.01, maximize=True),
    ),
]

UNLISTED = [cls for cls in lrfast.optim.all_optimizers() if cls not in {variant.cls for variant in _LISTED}]
_DEFAULTS = [Variant(cls.__name__.lower(), cls, {}, golden=False) for cls in UNLISTED]

VARIANTS = {variant.name: variant for variant in [*_LISTED, *_DEFAULTS]}

_EXTREMES: list[Settings] = [
    *[{"lr": x} for x in (0.0, 10.0)],
    *[{"eps": x} for x in (0.0, 1e30)],
    *[{"alpha": x} for x in (0.0, 0.3, 1 - 2**-20)],
    *[{"betas": x} for x in [(0.0, 0.0), (0.5, 0.5), (0.3, 0.99999), (0.99, 0.0), (1 - 2**-53, 1 - 2**-53)]],
    *[{"rho": x} for x in (0.0, 0.3, 1 - 2**-20)],
    *[{"etas": x} for x in [(5e-324, 1 + 2**-52), (0.9, 1e30)]],
    *[{"momentum_decay": x} for x in (0.0, 1e30)],
    *[{"lambd": x} for x in (0.0, 10.0)],
    *[{"t0": x} for x in (0.0, 0.5, 1.0, 1e30)],
    *[{"step_sizes": x} for x in [(0.0, 0.0), (0.0, 1e30), (1.0, 1.0)]],
]

# Settings with which nothing moves, of those that a class has.
STILL: Settings = {"lr": 0.0, "step_sizes": (0.0, 50.0)}

# Corners of the hyper-parameters: (variant, settings on top of it).
CORNERS: list[tuple[str, Settings]] = [
    *[
        (variant.name, extreme)
        for variant in VARIANTS.values()
        for extreme in _EXTREMES
        if set(extreme) <= set(signature(variant.cls).parameters)
    ],
    ("momentum", {"momentum": 1.5}),
    ("momentum", {"dampening": -2.0}),
    ("momentum", {"dampening": 1.0}),
]


def taken(cls: type[lrfast.Optimizer], settings: Settings) -> Settings:
    """Of some settings, those that a class has."""
    return {name: value for name, value in settings.items() if name in signature(cls).parameters}


def rule_of(optimizer: lrfast.Optimizer) -> Rule:
    """The row of the table by which an optimizer's first group is updated."""
    return optimizer._settings.rules[0]


def lowered(optimizer: lrfast.Optimizer) -> tuple[int, dict[str, float]]:
    """(flags, numbers) of an optimizer's first group, as lrf_group has them."""
    settings = optimizer._settings
    return flags_of(settings.known[0]), numbers_of(
        settings.rules[0], settings.known[0], optimizer.numbers(settings.known[0])
    )


def unused_rules() -> set[str]:
    """Rules of the table that no variant reaches."""
    return set(RULES) - {rule_of(v.make(np.zeros(1))).name for v in VARIANTS.values()}
