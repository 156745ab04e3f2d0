"""A small classifier in plain NumPy and real data for it: the UCI handwritten digits that scikit-learn ships."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from .._engine.arithmetic import Array

__all__ = ["MLP", "Digits", "load_digits"]

_TRAIN = 1437  # of 1,797 images: four fifths


@dataclass(frozen=True)
class Digits:
    """Images of shape (n, 64), float32 from 0 to 1; labels of shape (n,), integers from 0 to 9."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def load_digits(seed: int) -> Digits:
    """The 1,797 images of 8 x 8 grey values, split at random into 1,437 to train on and 360 to test with."""
    images, labels = _images_and_labels()
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:_TRAIN], order[_TRAIN:]
    return Digits(images[train], labels[train], images[test], labels[test])


@cache
def _images_and_labels() -> tuple[Array, Array]:
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels


class MLP:
    """A multi-layer perceptron with ReLU between its layers and cross-entropy as its loss.

    ``sizes`` are the widths from input to output. ``params`` and ``grads`` map ``weight0`` (sizes[0], sizes[1]),
    ``bias0`` (sizes[1],), ``weight1``, ... to arrays of ``dtype`` that stay the same objects, so that an optimizer can
    be bound to them. Weights start from a normal distribution of variance 2 / fan-in (He et al. 2015), biases at 0.
    """

    def __init__(self, sizes: tuple[int, ...], seed: int, dtype: Any = np.float32) -> None:
        rng = np.random.default_rng(seed)
        self.layers = len(sizes) - 1
        self.params: dict[str, Array] = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            weight = rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)
            self.params[f"weight{i}"] = weight.astype(dtype)
            self.params[f"bias{i}"] = np.zeros(fan_out, dtype)
        self.grads = {name: np.zeros_like(param) for name, param in self.params.items()}

    def loss(self, images: Array, labels: Array) -> float:
        """Mean cross-entropy of a batch in nats; fills ``grads`` with its gradient.

        .. code-block:: text

            forward    h_0 = images,  h_i+1 = relu(h_i W_i + b_i),  the last layer without relu: logits
            loss       mean over the batch of log(sum_k exp(logit_k)) - logit_label
            backward   d = (softmax(logits) - onehot(labels)) / n
                       dW_i = h_i^T d,  db_i = sum over the batch of d,  d = (d W_i^T) where h_i > 0
        """
        hidden, logits = self._forward(images)
        rows = np.arange(len(labels))
        logits = logits - logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
        exps = np.exp(logits)
        sums = exps.sum(axis=1, keepdims=True)
        loss = float((np.log(sums[:, 0]) - logits[rows, labels]).mean())

        delta = exps / sums
        delta[rows, labels] -= 1
        delta /= len(labels)
        for i in reversed(range(self.layers)):
            np.matmul(hidden[i].T, delta, out=self.grads[f"weight{i}"])
            np.sum(delta, axis=0, out=self.grads[f"bias{i}"])
            if i > 0:
                delta = (delta @ self.params[f"weight{i}"].T) * (hidden[i] > 0)
        return loss

    def accuracy(self, images: Array, labels: Array) -> float:
        """Share of images, from 0 to 1, whose largest logit is that of their label."""
        _, logits = self._forward(images)
        return float((logits.argmax(axis=1) == labels).mean())

    def grad_norm(self) -> float:
        """Euclidean norm of all gradients together."""
        return float(np.sqrt(sum(np.vdot(grad, grad) for grad in self.grads.values())))

    def _forward(self, images: Array) -> tuple[list[Array], Array]:
        """The input of each layer, and the logits."""
        hidden, out = [], images
        for i in range(self.layers):
            hidden.append(out)
            out = out @ self.params[f"weight{i}"] + self.params[f"bias{i}"]
            if i < self.layers - 1:
                out = np.maximum(out, 0)
        return hidden, out
