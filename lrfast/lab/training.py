"""What the demo trains and measures: every optimizer on the digits, and its step beside the one in NumPy."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import lrfast

from .bench.numpy_steps import UNWRITTEN, VARIANTS, make_step
from .bench.timing import take_turns
from .digits import MLP, Digits

__all__ = [
    "BATCH",
    "CONTESTANTS",
    "FIRST_SEED",
    "SIZES",
    "Contestant",
    "History",
    "Result",
    "StepTime",
    "time_steps",
    "train",
]

SIZES = (64, 256, 128, 10)
BATCH = 32
_TIMING = 1e-3  # seconds: as long as a round times a contender
FIRST_SEED = 100  # learning rates were chosen on the splits of seeds 0 to 4, so results come from others


@dataclass(frozen=True)
class Contestant:
    """An optimizer in the demo: its name there, its family, its variant in ``numpy_steps``, its peak learning rate."""

    name: str
    family: str
    variant: str
    lr: float
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, params: Any, grads: Any, lr: float | Callable[[int], float]) -> lrfast.Optimizer:
        """The optimizer of lrfast, bound to its gradients."""
        cls, options = VARIANTS[self.variant]
        optimizer: lrfast.Optimizer = getattr(lrfast, cls)(params, lr, grads=grads, **options, **self.settings)
        return optimizer

    @property
    def code(self) -> str:
        """How it is written, without its arrays."""
        cls, options = VARIANTS[self.variant]
        settings = {"lr": self.lr, **options, **self.settings}
        return f"{cls}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


CONTESTANTS = (
    Contestant("SGD", "sgd", "sgd", 0.1),
    Contestant("SGD momentum", "sgd", "momentum", 0.05),
    Contestant("Nesterov", "sgd", "nesterov", 0.05),
    Contestant("ASGD", "sgd", "asgd", 0.1),
    Contestant("Adagrad", "rms", "adagrad", 0.02),
    Contestant("Adagrad mean", "rms", "adagrad-mean", 0.002),
    Contestant("RMSprop", "rms", "rmsprop", 0.001),
    Contestant("RMSprop centered, momentum", "rms", "rmsprop-centered-momentum", 0.0002),
    Contestant("Adam", "adam", "adam", 0.002),
    Contestant("AMSGrad", "adam", "amsgrad", 0.002),
    Contestant("AdamW", "adam", "adamw", 0.002, {"weight_decay": 0.1}),
    Contestant("RAdam", "adam", "radam", 0.002),
    Contestant("Adadelta", "more", "adadelta", 1.0),
    Contestant("Adamax", "more", "adamax", 0.004),
    Contestant("NAdam", "more", "nadam", 0.002),
    Contestant("Lion", "more", "lion", 0.0002, {"weight_decay": 1.0}),
)
"""Without Rprop, which is not for batches: it takes a gradient that turns around by chance for a valley."""


@dataclass
class History:
    """One training: values over the whole training or test set, before the first epoch and after each."""

    loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)

    def record(self, model: MLP, digits: Digits) -> None:
        """Append the present values; overwrites the gradients of the model."""
        self.loss.append(model.loss(digits.train_images, digits.train_labels))
        self.grad_norm.append(model.grad_norm())
        self.train_accuracy.append(model.accuracy(digits.train_images, digits.train_labels))
        self.test_accuracy.append(model.accuracy(digits.test_images, digits.test_labels))


def train(
    contestant: Contestant,
    digits: Digits,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[], Any],
    dtype: Any = np.float32,
) -> History:
    """Train one network, calling ``after_epoch`` after each epoch. The same seed means the same start and batches.

    Learning rate: a linear warm-up during the first tenth of all updates, then a cosine down to 0.
    """
    from threadpoolctl import threadpool_limits

    model = MLP(SIZES, seed, dtype)
    batches = len(digits.train_labels) // BATCH
    updates = epochs * batches
    lr = lrfast.schedules.cosine(contestant.lr, steps=updates - updates // 10).warmup(updates // 10)
    optimizer = contestant.make(model.params, model.grads, lr)

    history = History()
    rng = np.random.default_rng(seed)
    # Products this small gain nothing from threads of the BLAS, which on a busy machine wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        history.record(model, digits)
        for _ in range(epochs):
            order = rng.permutation(len(digits.train_labels))
            for batch in order[: batches * BATCH].reshape(batches, BATCH):
                model.loss(digits.train_images[batch], digits.train_labels[batch])
                optimizer.step()
            history.record(model, digits)
            after_epoch()
    return history


@dataclass(frozen=True)
class StepTime:
    """Medians in seconds per step of the whole network; None where nobody has written the update in plain NumPy."""

    lrfast: float
    numpy: float | None = None

    def columns(self) -> tuple[str, str, str]:
        """Microseconds by lrfast and by NumPy, and how many steps of lrfast fit into one of NumPy."""
        if self.numpy is None:
            return f"{1e6 * self.lrfast:.1f}", "", ""
        return f"{1e6 * self.lrfast:.1f}", f"{1e6 * self.numpy:.1f}", f"{self.numpy / self.lrfast:.1f}"


@dataclass(frozen=True)
class Result:
    """All that the demo found out about one optimizer: a history per run, and the time of its step."""

    contestant: Contestant
    histories: tuple[History, ...]
    step_time: StepTime

    def curve(self, quantity: str) -> list[float]:
        """A quantity of :class:`History`, before the first epoch and after each: the mean of the runs."""
        return [
            statistics.fmean(values) for values in zip(*(getattr(h, quantity) for h in self.histories), strict=True)
        ]

    def final(self, quantity: str) -> float:
        """The end of that curve."""
        return self.curve(quantity)[-1]


def time_steps(contestant: Contestant, *, rounds: int) -> StepTime:
    """Time the step of lrfast and the same update in in-place NumPy on the demo's network, taking turns.

    Both have a constant learning rate and parameters and gradients of their own; the result is the median round.
    """
    ours, theirs = MLP(SIZES, 0), MLP(SIZES, 0)
    rng = np.random.default_rng(0)
    for name, grad in ours.grads.items():
        grad[...] = 1e-3 * rng.standard_normal(grad.shape)
        theirs.grads[name][...] = grad
    optimizer = contestant.make(ours.params, ours.grads, contestant.lr)
    settings = {"lr": contestant.lr, **contestant.settings}
    numpy_steps = [
        make_step("inplace", contestant.variant, param, theirs.grads[name], settings)
        for name, param in theirs.params.items()
    ]

    def step_numpy() -> None:
        for step in numpy_steps:
            step()

    contenders: dict[str, Callable[[], None]] = {"lrfast": optimizer.step}
    if contestant.variant not in UNWRITTEN:
        contenders["numpy"] = step_numpy

    def warm(contender: str) -> None:
        """Brings its arrays back into the cache."""
        contenders[contender]()

    seconds = take_turns(contenders, rounds, _TIMING, warm)
    return StepTime(**{contender: statistics.median(times) for contender, times in seconds.items()})
