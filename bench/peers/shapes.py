"""What is updated: single tensors, and the parameter shapes of real models."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np

Shape = tuple[int, ...]


def _mlp() -> list[Shape]:
    """784 - 20 - 32 - 10, biases included: 6 tensors, 17 k elements."""
    widths = (784, 20, 32, 10)
    shapes: list[Shape] = []
    for inputs, outputs in pairwise(widths):
        shapes += [(outputs, inputs), (outputs,)]
    return shapes


def _resnet50() -> list[Shape]:
    """He et al. 2016: 161 tensors, 25.6 M elements."""
    shapes: list[Shape] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(width, inputs, 1, 1), (width,), (width,)]
            shapes += [(width, width, 3, 3), (width,), (width,)]
            shapes += [(4 * width, width, 1, 1), (4 * width,), (4 * width,)]
            if block == 0:
                shapes += [(4 * width, inputs, 1, 1), (4 * width,), (4 * width,)]
            inputs = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def _gpt2() -> list[Shape]:
    """Radford et al. 2019, small: 148 tensors, 124 M elements."""
    d = 768
    attention: list[Shape] = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,)]
    layer: list[Shape] = [*attention, (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *(layer * 12), (d,), (d,)]


MODELS: dict[str, list[Shape]] = {
    "MLP": _mlp(),
    "ResNet-50": _resnet50(),
    "GPT-2 small": _gpt2(),
    "10,000 tensors": [(100,)] * 10_000,
}


def shapes_of(case: str) -> list[Shape]:
    """The shapes of a model, or of one tensor of so many elements ("400000")."""
    return MODELS[case] if case in MODELS else [(int(case),)]


def elements_of(case: str) -> int:
    """All elements of a case."""
    return sum(prod(shape) for shape in shapes_of(case))


def make_arrays(case: str, seed: int) -> list[np.ndarray]:
    """Float32 arrays in the shapes of a case, each with memory of its own, from a normal distribution."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes_of(case)]
