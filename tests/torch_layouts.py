"""What the optimizers of PyTorch write into a state_dict, from their sources of each version, 1.13.1 to 2.13.0.

GROUPS: the keys of a group, `defaults` of the class's constructor, in the version that first had them. Read from
1.13.1, 2.0.1, 2.1.2, 2.2.2, 2.3.1, 2.4.1, 2.5.1, 2.6.0, 2.7.1 and 2.13.0; between two that agree, nothing changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import lrfast

VERSIONS = [(1, 13), *((2, minor) for minor in range(14))]

_FLAGS = {"maximize": False, "foreach": None, "differentiable": False, "capturable": False, "fused": None}

# Class -> version -> keys that came with it, with their defaults; no key ever went.
_ALL: dict[str, dict[tuple[int, int], dict[str, Any]]] = {
    "SGD": {
        (1, 13): {
            **{"lr": 0.001, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False},
            **{"maximize": False, "foreach": None, "differentiable": False},
        },
        (2, 3): {"fused": None},
    },
    "Adagrad": {
        (1, 13): {
            **{"lr": 0.01, "lr_decay": 0, "eps": 1e-10, "weight_decay": 0, "initial_accumulator_value": 0},
            **{"foreach": None, "maximize": False},
        },
        (2, 0): {"differentiable": False},
        (2, 4): {"fused": None},
    },
    "RMSprop": {
        (1, 13): {
            **{"lr": 0.01, "momentum": 0, "alpha": 0.99, "eps": 1e-8, "centered": False, "weight_decay": 0},
            **{"foreach": None, "maximize": False, "differentiable": False},
        },
        (2, 4): {"capturable": False},
    },
    "Adam": {
        (1, 13): {
            **{"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, **_FLAGS},
        },
        (2, 7): {"decoupled_weight_decay": False},
    },
    "AdamW": {
        (1, 13): {
            **{"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False},
            **{"foreach": None, "maximize": False, "capturable": False},
        },
        (2, 0): {"differentiable": False, "fused": None},
        (2, 7): {"decoupled_weight_decay": True},
    },
    "RAdam": {
        (1, 13): {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "foreach": None},
        (2, 0): {"differentiable": False},
        (2, 2): {"decoupled_weight_decay": False},
        (2, 3): {"capturable": False},
        (2, 4): {"maximize": False},
    },
    "Adadelta": {
        (1, 13): {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0, "maximize": False, "foreach": None},
        (2, 0): {"differentiable": False},
        (2, 4): {"capturable": False},
    },
    "Adamax": {
        (1, 13): {
            **{"lr": 0.002, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "foreach": None, "maximize": False},
        },
        (2, 0): {"differentiable": False},
        (2, 3): {"capturable": False},
    },
    "Rprop": {
        (1, 13): {"lr": 0.01, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50), "foreach": None, "maximize": False},
        (2, 0): {"differentiable": False},
        (2, 4): {"capturable": False},
    },
    "NAdam": {
        (1, 13): {
            **{"lr": 0.002, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "momentum_decay": 0.004},
            **{"foreach": None},
        },
        (2, 0): {"differentiable": False},
        (2, 1): {"decoupled_weight_decay": False, "capturable": False},
        (2, 4): {"maximize": False},
    },
    "ASGD": {
        (1, 13): {
            **{"lr": 0.01, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0, "foreach": None},
            **{"maximize": False},
        },
        (2, 0): {"differentiable": False},
        (2, 2): {"capturable": False},
    },
}
GROUPS = {cls: keys for cls, keys in _ALL.items() if hasattr(lrfast, cls)}

# Keys that the classes filled in when they loaded a dict without them (__setstate__): checkpoints from before 1.13.
FILLED_IN = {
    "SGD": ["nesterov", "maximize", "foreach", "differentiable"],
    "Adagrad": ["maximize", "foreach", "differentiable"],
    "RMSprop": ["momentum", "centered", "foreach", "maximize", "differentiable", "capturable"],
    "Adam": ["amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"],
    "AdamW": ["amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"],
    "RAdam": ["foreach", "maximize", "differentiable", "decoupled_weight_decay", "capturable"],
    "Adadelta": ["foreach", "maximize", "differentiable", "capturable"],
    "Adamax": ["foreach", "maximize", "differentiable", "capturable"],
    "Rprop": ["foreach", "maximize", "differentiable", "capturable"],
    "NAdam": ["maximize", "foreach", "capturable", "differentiable", "decoupled_weight_decay"],
    "ASGD": ["foreach", "maximize", "differentiable", "capturable"],
}

# Before this version `step` was an int, from it on a tensor of no dimension; before 1.12 it was an int everywhere.
STEP_IS_A_TENSOR_FROM = {"RMSprop": (2, 4), "Adadelta": (2, 4), "Rprop": (2, 4)}
# Before this version the step of a capturable or fused optimizer had the shape (1,).
STEP_HAS_ONE_DIMENSION_BEFORE = (2, 1)
NO_STATE_OF_SGD_FROM = (2, 4)  # without momentum; before, {"momentum_buffer": None}
NAMES_FROM = (2, 6)  # "param_names", of parameters that were given with names


def group(cls: str, version: tuple[int, int]) -> dict[str, Any]:
    """The keys of a group in a version, with their defaults."""
    return {key: value for since, keys in GROUPS[cls].items() if since <= version for key, value in keys.items()}


def steps(cls: str, version: tuple[int, int], count: int) -> Iterator[Any]:
    """How a version may have written a step; SGD does not."""
    if version < STEP_IS_A_TENSOR_FROM.get(cls, (1, 12)):
        yield count
    else:
        yield np.array(count, np.float32)
        if version < STEP_HAS_ONE_DIMENSION_BEFORE:
            yield np.array([count], np.float32)
