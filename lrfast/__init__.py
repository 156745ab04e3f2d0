"""lrfast: the optimizer step as a library. Fused, in-place parameter updates for NumPy arrays."""

from . import functional, reference, schedules
from .config import available_isas, get_include, get_library_dir, isa, show_config, use_isa
from .optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "available_isas",
    "functional",
    "get_include",
    "get_library_dir",
    "isa",
    "reference",
    "schedules",
    "show_config",
    "use_isa",
]
