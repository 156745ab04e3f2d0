"""optax under jit with donated buffers: parameters and state live in JAX."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from contract import Arrays, Contender, Settings

NAMES = ["optax"]


def _transformation(rule: str, h: Settings) -> Any:
    if rule == "sgd":
        return optax.sgd(h["lr"])
    if rule == "momentum":
        return optax.sgd(h["lr"], momentum=h["momentum"])
    if rule == "adagrad":
        return optax.adagrad(h["lr"], initial_accumulator_value=0.0, eps=h["eps"])
    if rule == "rmsprop":
        return optax.rmsprop(h["lr"], decay=h["alpha"], eps=h["eps"], eps_in_sqrt=False)
    if rule == "adam":
        return optax.adam(h["lr"], b1=h["beta1"], b2=h["beta2"], eps=h["eps"])
    return optax.adamw(h["lr"], b1=h["beta1"], b2=h["beta2"], eps=h["eps"], weight_decay=h["weight_decay"])


def make(name: str, rule: str, settings: Settings, params: Arrays, grads: Arrays, threads: int) -> Contender | None:
    transformation = _transformation(rule, settings)
    weights = [jax.device_put(np.array(p)) for p in params]
    gradients = [jax.device_put(g) for g in grads]
    state = transformation.init(weights)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(weights: Any, state: Any, gradients: Any) -> Any:
        updates, state = transformation.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    def step() -> None:
        nonlocal weights, state
        weights, state = update(weights, state, gradients)
        jax.block_until_ready(weights)

    return Contender(name, step, lambda: [np.asarray(w) for w in weights])
