"""The pictures of the demo's trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ...diagnose.figures import DASHED, GREY
from ..lecture import drawing
from ..training import Result

__all__ = ["FAMILIES", "draw_training"]

FAMILIES = {
    "sgd": "Gradient descent",
    "rms": "Divided by past gradients",
    "adam": "Adam and its variants",
    "more": "Relatives of Adam",
}

# Adam and AMSGrad lie on top of each other.
_DASHES: tuple[Any, ...] = ("solid", DASHED, (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))


def draw_training(results: Sequence[Result], folder: Path) -> None:
    """Writes ``<quantity>-<family>.svg`` for loss, grad_norm and test_accuracy and each family.

    All families of a quantity share their axes: each picture shows the others in grey.
    """
    for quantity in ("loss", "grad_norm", "test_accuracy"):
        for family in FAMILIES:
            with matplotlib.rc_context(drawing.STYLE):
                picture = _training_curves(results, quantity, family)
                drawing.save(picture, folder, f"{quantity}-{family}")


def _training_curves(results: Sequence[Result], quantity: str, family: str) -> Figure:
    picture, axes = drawing.new(3.4, legend=2)
    styles = zip(drawing.COLOURS, _DASHES, strict=True)
    for result in sorted(results, key=lambda result: result.contestant.family == family):  # its own on top
        curve = result.curve(quantity)
        if result.contestant.family != family:
            axes.plot(curve, color=GREY, linewidth=0.9)
        else:
            colour, dashes = next(styles)
            axes.plot(curve, color=colour, linestyle=dashes, linewidth=1.9, label=result.contestant.name)
    if quantity == "test_accuracy":
        axes.set_ylim(0.9, 1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel({"loss": "training loss", "grad_norm": "gradient norm", "test_accuracy": "test accuracy"}[quantity])
    axes.margins(x=0.01)
    drawing.legend_above(picture, columns=2)
    return picture
