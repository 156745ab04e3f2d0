"""The rules in Python, a file per family: the specification in NumPy of what ``src_c/rules/<family>.h`` computes, in
the same order of lines and with the same names, and the classes that people use.

The families are those of the table ``optimizers.def``; a new row brings its file in.
"""

from importlib import import_module

from .._engine.optimizer import Optimizer
from .._engine.table import RULES

_FAMILIES = [import_module(f".{family}", __name__) for family in dict.fromkeys(rule.family for rule in RULES.values())]

CLASSES: dict[str, type[Optimizer]] = {
    name: value
    for module in _FAMILIES
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Optimizer) and value.__module__ == module.__name__
}
"""Every optimizer by its name."""
