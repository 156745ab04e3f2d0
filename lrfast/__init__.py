"""lrfast: the optimizer step as a library. Fused, in-place parameter updates for NumPy arrays."""

from . import functional, optim, reference, schedules
from ._threads import get_num_threads, num_threads, set_num_threads
from .config import available_isas, get_include, get_library_dir, isa, show_config, use_isa
from .optim import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [
    "available_isas",
    "functional",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "isa",
    "num_threads",
    "reference",
    "schedules",
    "set_num_threads",
    "show_config",
    "use_isa",
]
__all__ += optim.__all__
