"""Statistics of steps: ``optimizer.stats``.

With the keyword ``stats`` of an optimizer they come out of the pass that updates. ``optimizer.stats["total"]`` covers
all parameters, ``optimizer.stats[i]`` the i-th. Each is a dict; s is the gradient times ``grad_scale`` and the sign of
``maximize``, before clipping and decay, p the parameter before the step, d its update (p moves by d beside decoupled
weight decay), eta/sigma the effective rate; s' and d' belong to the step before.

=================== ===================================================================================================
``elements``        elements that had a gradient
``grad_norm``       |s|
``param_norm``      |p|
``update_norm``     |d|
``update_ratio``    |d| / |p|
``grad_max``        largest magnitude in s
``update_max``      largest magnitude in d
``nan, inf, zero``  elements of the gradient that are so
``lost``            elements whose update changed nothing: d != 0, but p + d == p
``dot``             <s, d>: the change of the loss that the gradient predicts
``cosine``          of s and d'; above 0 the last step went too far
``bounce``          share of elements in which s and d' have the same sign: the gradient has turned around
``sharpness``       <d', s - s'> / |d'|^2: curvature of the loss along the last update; decoupled decay, which is not
                    part of d', leaks into it
``sharpness_limit`` where that update would just not have lowered the loss: -2 <s', d'> / |d'|^2, for gradient descent
                    2 / lr; with heavy-ball momentum and no clipping
                    2 (1 + momentum) / ((1 - dampening) lr)
``minimum``         <s', d'> / <d', s' - s>: where along d' the loss is least; 1 is its end, less than 1/2 means that
                    the loss rose
``rates``           64 counts: elements with 2^(k-32) <= eta/sigma < 2^(k-31), the outer bins open. Of each 1,024
                    elements at most 16, evenly spaced, are counted
``rate_median``     middle of the bin in which the median of these lies
``rate_max``        largest eta/sigma of all elements
``eps_dominates``   share of elements with eps > sigma
``n_eff``           gradients that sigma has effectively seen, (1+b)/(1-b) (1-b^t)/(1+b^t) with b = beta2 or alpha; t
                    for sums and means; in the total the smallest of all tensors
=================== ===================================================================================================

What is not known is NaN: whatever compares with the step before, until two have been seen; with ``stats="norms"`` all
but the first lines up to ``update_ratio``. With ``stats=k`` every k-th update is measured, and the one before it traced
for d'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._engine.stages import BINS, FIELDS, FIRST_RATE

if TYPE_CHECKING:
    from ._engine.optimizer import Optimizer

__all__ = ["Stats"]

Array = np.ndarray[Any, Any]
_KEPT = [FIELDS.index(name) for name in ("elements", "grad_update", "update_sq")]


class Recorder:
    """Keeps what steps wrote of statistics: one row of FIELDS and rates per tensor.

    A plan asks ``wanted`` and ``target`` before a step and says ``commit`` after one that was completed.
    """

    def __init__(self, tensors: int, every: int, norms: bool) -> None:
        self.every, self.norms = every, norms
        self.rows: Array | None = None  # of the last measured step
        self.before: Array | None = None  # what of the step before it counts: (elements, <s', u'>, |u'|^2) per tensor
        self.updates = 0  # of the optimizer after the measured step
        self.grad_scale = 1.0
        self.last_lrs: list[float] = []  # of the groups, in the step before
        self._buffers = [np.zeros((tensors, len(FIELDS) + BINS)) for _ in range(2)]
        self._measured, self._latest, self._traced_at = 1, 0, -1
        self._kept: Array | None = None

    def wanted(self, updates: int) -> bool:
        """Whether the step after so many updates has to write into ``target``."""
        return self.norms or (updates + 1) % self.every == 0 or (updates + 2) % self.every == 0

    def target(self, updates: int) -> Array:
        """Where that step writes, shape (tensors, numbers)."""
        follows = self._traced_at == updates and not self.norms
        self._kept = self._buffers[self._latest][:, _KEPT] if follows else None
        return self._buffers[1 - self._measured]

    def commit(self, updates: int, grad_scale: float, last_lrs: list[float]) -> None:
        """The target is complete; ``updates`` counts this step, too; ``last_lrs`` of the groups in the step before."""
        self._latest, self._traced_at = 1 - self._measured, updates
        if self.norms or updates % self.every == 0:
            self._measured = self._latest
            self.rows, self.before = self._buffers[self._latest], self._kept
            self.updates, self.grad_scale, self.last_lrs = updates, grad_scale, last_lrs


class Stats(Mapping[Any, dict[str, Any]]):
    """Statistics of the latest measured step: keys "total" and 0, 1, ...; empty before there is one.

    ``updates`` is the value of ``optimizer.updates`` after that step.
    """

    def __init__(self, optimizer: Optimizer, recorder: Recorder | None) -> None:
        self._optimizer = optimizer
        self._recorder = recorder

    @property
    def updates(self) -> int:
        """``optimizer.updates`` after the measured step; 0 before there is one."""
        return 0 if self._recorder is None else self._recorder.updates

    @property
    def every(self) -> int:
        """Every so many updates are measured; 0: statistics are off."""
        return 0 if self._recorder is None else self._recorder.every

    @property
    def norms(self) -> bool:
        """Whether only norms are measured."""
        return self._recorder is not None and self._recorder.norms

    def __len__(self) -> int:
        return 0 if self._recorder is None or self._recorder.rows is None else 1 + len(self._recorder.rows)

    def __iter__(self) -> Iterator[Any]:
        if len(self):
            yield "total"
            yield from range(len(self) - 1)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        recorder = self._recorder
        if recorder is None:
            raise KeyError(f"{key!r}: statistics are off; construct the optimizer with stats=True")
        if recorder.rows is None:
            raise KeyError(f"{key!r}: no step was measured yet")
        tensors = range(len(recorder.rows))
        if key != "total" and (not isinstance(key, (int, np.integer)) or isinstance(key, bool) or key not in tensors):
            raise KeyError(f"{key!r}: expected 'total' or a number from 0 to {len(tensors) - 1}")
        return _describe(recorder, self._optimizer, list(tensors) if key == "total" else [int(key)])

    def __repr__(self) -> str:
        return f"Stats(updates={self.updates}, total={self['total']})" if len(self) else "Stats()"


def _describe(recorder: Recorder, optimizer: Optimizer, tensors: list[int]) -> dict[str, Any]:
    """The dict of some tensors together."""
    assert recorder.rows is not None
    tensors = [i for i in tensors if recorder.rows[i, 0] > 0]
    rows = recorder.rows[tensors]

    def total(name: str) -> float:
        return _in_order(rows[:, FIELDS.index(name)])

    def largest(name: str) -> float:
        return float(np.max(rows[:, FIELDS.index(name)])) if len(rows) else math.nan

    param_norm, update_norm = math.sqrt(total("param_sq")), math.sqrt(total("update_sq"))
    norms = {
        "elements": int(total("elements")),
        "grad_norm": abs(recorder.grad_scale) * math.sqrt(total("grad_sq")),
        "param_norm": param_norm,
        "update_norm": update_norm,
        "update_ratio": _quotient(update_norm, param_norm),
    }
    if recorder.norms:
        return {**norms, **_UNKNOWN, "rates": np.zeros(BINS, np.int64)}
    rates = rows[:, len(FIELDS) :].sum(axis=0).astype(np.int64)
    return {
        **norms,
        **{name: largest(name) for name in ("grad_max", "update_max", "rate_max")},
        **{name: int(total(name)) for name in _COUNTED},
        "dot": -total("grad_update"),
        **_compare(recorder, optimizer, tensors),
        "rates": rates,
        "rate_median": _median(rates),
        "eps_dominates": _quotient(total("eps_dominates"), total("elements")),
        "n_eff": optimizer._n_eff(tensors, recorder.updates),
    }


def _compare(recorder: Recorder, optimizer: Optimizer, tensors: list[int]) -> dict[str, float]:
    """What relates a step to the one before it, over the tensors that took part in both."""
    assert recorder.rows is not None
    before = recorder.before
    if before is not None:
        tensors = [i for i in tensors if before[i, 0] > 0]
    if before is None or not tensors:
        return dict.fromkeys(_COMPARED, math.nan)
    rows = recorder.rows[tensors]
    then = _in_order(before[tensors, 1])  # <s', u'>
    now = _in_order(rows[:, FIELDS.index("grad_last")])  # <s, u'>
    squares = _in_order(before[tensors, 2])  # |u'|^2
    grad_norm = abs(recorder.grad_scale) * math.sqrt(_in_order(rows[:, FIELDS.index("grad_sq")]))
    limit = optimizer._sharpness_limit(tensors, recorder.last_lrs)
    return {
        "cosine": _quotient(-now, grad_norm * math.sqrt(squares)),
        "bounce": _quotient(_in_order(rows[:, FIELDS.index("turned")]), _in_order(rows[:, 0])),
        "sharpness": _quotient(then - now, squares),
        "sharpness_limit": _quotient(2 * then, squares) if limit is None else limit,
        "minimum": _quotient(then, then - now),
    }


def _in_order(values: Array) -> float:
    """The sum, one after the other, as the C core adds up."""
    return float(np.add.accumulate(values)[-1]) if len(values) else 0.0


def _quotient(x: float, y: float) -> float:
    """x / y as IEEE has it."""
    with np.errstate(all="ignore"):
        return float(np.float64(x) / np.float64(y))


def _median(rates: Array) -> float:
    count = int(rates.sum())
    if count == 0:
        return math.nan
    k = int(np.searchsorted(np.cumsum(rates), (count + 1) // 2))
    return float(2.0 ** (k + FIRST_RATE + 0.5))


_COMPARED = ("cosine", "bounce", "sharpness", "sharpness_limit", "minimum")
_COUNTED = ("nan", "inf", "zero", "lost")
_OF_RATES = ("rate_median", "rate_max", "eps_dominates", "n_eff")
_UNKNOWN = dict.fromkeys(("grad_max", "update_max", *_COUNTED, "dot", *_COMPARED, *_OF_RATES), math.nan)
