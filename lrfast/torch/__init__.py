"""lrfast for PyTorch: optimizers that are torch.optim.Optimizers, and step in one pass over the tensors' memory.

.. code-block:: python

    from lrfast.torch import AdamW  # in place of torch.optim

    optimizer = AdamW(model.parameters(), lr=1e-3, clip_norm=1.0)

Schedulers, GradScaler, hooks and checkpoints of PyTorch work as they are, and a ``state_dict`` is PyTorch's: either
side loads the other's. docs/torch.md says what is equal, what is better and what is refused. Needs PyTorch, which
``import lrfast`` does not.
"""

from .backward import step_in_backward
from .base import Optimizer
from .classes import ASGD, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, NAdam, RAdam, RMSprop, Rprop

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "step_in_backward",
]
