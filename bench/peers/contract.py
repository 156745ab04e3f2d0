"""What a peer has to offer, and the numbers that all of them use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = list[np.ndarray]
Settings = dict[str, float]

# Rule -> settings under PyTorch's names. Learning rates are small, so that parameters stay where they are for ever.
RULES: dict[str, Settings] = {
    "sgd": {"lr": 1e-6},
    "momentum": {"lr": 1e-6, "momentum": 0.9},
    "adagrad": {"lr": 1e-6, "eps": 1e-10},
    "rmsprop": {"lr": 1e-6, "alpha": 0.99, "eps": 1e-8},
    "adam": {"lr": 1e-6, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "adamw": {"lr": 1e-6, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
}


@dataclass
class Contender:
    """One library set up for one case.

    ``step()`` updates the parameters from gradients that do not change and returns when they are updated;
    ``result()`` is what the parameters then are. Parameters are the contender's own, gradients are shared.
    ``prepare()`` is called before each timing and not timed.
    """

    name: str
    step: Callable[[], object]
    result: Callable[[], Arrays]
    prepare: Callable[[], None] = lambda: None


# A peer is a module with NAMES and
#     make(name, rule, settings, params, grads, threads) -> Contender, or None if it has no such rule
# It may keep `params`, which are copies made for it, and must not write into `grads`.
