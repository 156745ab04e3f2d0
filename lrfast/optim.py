"""The optimizers, with PyTorch's names, defaults and meaning. ``lrfast/rules/`` has them, a file per family."""

from ._engine.optimizer import Optimizer
from .rules import CLASSES

__all__ = sorted(["Optimizer", *CLASSES])

globals().update(CLASSES)


def all_optimizers() -> list[type[Optimizer]]:
    """The public classes of this module, in the order of their names."""
    return [CLASSES[name] for name in sorted(CLASSES)]
