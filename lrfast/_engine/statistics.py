"""What the statistics of a step mean; ``lrfast.stats`` is their manual."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .arithmetic import Array
from .elementary import one_minus_power
from .recorder import Recorder
from .stages import BINS, FIELDS, FIRST_RATE, RATES, ROW, column


def effective_gradients(decay: float, t: int) -> float:
    """(1+b)/(1-b) (1-b^t)/(1+b^t), which for b = 1 is t."""
    if decay == 1 or math.isnan(decay) or t == 0:
        return decay * t
    power = 1 - one_minus_power(decay, t)
    return (1 + decay) / (1 - decay) * (1 - power) / (1 + power)


class Stats(Mapping[Any, dict[str, Any]]):
    """Statistics of the latest measured step: keys "total" and 0, 1, ...; empty before there is one.

    ``updates`` is the value of ``optimizer.updates`` after that step.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        n_eff: Callable[[Sequence[int], int, Sequence[Mapping[str, Any]]], float],
        sharpness_limit: Callable[[Sequence[int], Sequence[Mapping[str, Any]]], float | None],
    ) -> None:
        self._recorder = recorder
        # Of some tensors, with settings of the groups as they were then.
        self._n_eff = n_eff  # (tensors, updates, settings): the least number of gradients that sigma had seen
        self._sharpness_limit = sharpness_limit  # (tensors, settings): None where it is not known

    def __setstate__(self, saved: dict[str, Any]) -> None:
        optimizer = saved.pop("_optimizer", None)
        if optimizer is not None:  # pickled by 0.1.0
            saved |= {"_n_eff": optimizer._n_eff, "_sharpness_limit": optimizer._sharpness_limit}
        self.__dict__.update(saved)

    @property
    def every(self) -> int:
        """One record on every so many updates; 0: statistics are off."""
        return 0 if self._recorder is None else self._recorder.every

    @property
    def norms(self) -> bool:
        """Whether nothing but norms is measured."""
        return self._recorder is not None and self._recorder.norms

    @property
    def updates(self) -> int:
        """``optimizer.updates`` after the measured step; 0 before there is one."""
        return 0 if self._recorder is None else self._recorder.updates

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
        return self._describe(recorder, list(tensors) if key == "total" else [int(key)])

    def __repr__(self) -> str:
        return f"Stats(updates={self.updates}, total={self['total']})" if len(self) else "Stats()"

    def _describe(self, recorder: Recorder, tensors: list[int]) -> dict[str, Any]:
        """The dict of some tensors together."""
        assert recorder.rows is not None
        tensors = [i for i in tensors if recorder.rows[i, 0] > 0]
        rows = recorder.rows[tensors]
        sums = _in_order(rows)
        maxima = rows.max(axis=0).tolist() if len(rows) else [math.nan] * ROW

        def total(name: str) -> float:
            return sums[column(name)]

        def largest(name: str) -> float:
            return maxima[column(name)]

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
        rates = rows[:, RATES].sum(axis=0).astype(np.int64)
        return {
            **norms,
            **{name: largest(name) for name in ("grad_max", "update_max", "rate_max")},
            **{name: int(total(name)) for name in _COUNTED},
            "dot": -total("grad_update"),
            **self._compare(recorder, tensors),
            "rates": rates,
            "rate_median": _median(rates, largest("rate_max")),
            "eps_dominates": _quotient(total("eps_dominates"), total("elements")),
            "n_eff": self._n_eff(tensors, recorder.updates, recorder.settings),
        }

    def _compare(self, recorder: Recorder, tensors: list[int]) -> dict[str, float]:
        """What relates a step to the one before it, over the tensors that took part in both."""
        assert recorder.rows is not None
        before = recorder.before
        if before is not None:
            tensors = [i for i in tensors if before[i, 0] > 0]
        if before is None or not tensors:
            return dict.fromkeys(_COMPARED, math.nan)
        sums = dict(zip(FIELDS, _in_order(recorder.rows[tensors]), strict=False))
        _, then, squares = _in_order(before[tensors, :3])  # <s', u'>, |u'|^2
        now = sums["grad_last"]  # <s, u'>
        grad_norm = abs(recorder.grad_scale) * math.sqrt(sums["grad_sq"])
        limit = self._sharpness_limit(tensors, recorder.last_settings)
        return {
            "cosine": _quotient(-now, grad_norm * math.sqrt(squares)),
            "bounce": _quotient(sums["turned"], sums["elements"]),
            "sharpness": _quotient(then - now, squares),
            "sharpness_limit": _quotient(2 * then, squares) if limit is None else limit,
            "minimum": _quotient(then, then - now),
        }


def _in_order(rows: Array) -> list[float]:
    """Sums of the columns, one row after the other, as the C core adds up."""
    return np.add.accumulate(rows)[-1].tolist() if len(rows) else [0.0] * rows.shape[1]


def _quotient(x: float, y: float) -> float:
    """x / y as IEEE has it."""
    if y:
        return x / y
    return math.copysign(math.inf, x) * math.copysign(1, y) if abs(x) > 0 else math.nan


def _median(rates: Array, largest: float) -> float:
    """The middle of the bin of the median. An outer bin is open and has none: the largest of all rates if that lies in
    it, too, otherwise 0."""
    count = int(rates.sum())
    if count == 0:
        return math.nan
    k = int(np.searchsorted(np.cumsum(rates), (count + 1) // 2))
    if k == BINS - 1 or (k == 0 and largest < 2.0 ** (FIRST_RATE + 1)):
        return largest
    return 0.0 if k == 0 else float(2.0 ** (k + FIRST_RATE + 0.5))


_COMPARED = ("cosine", "bounce", "sharpness", "sharpness_limit", "minimum")
_COUNTED = ("nan", "inf", "zero", "lost", "dead")
_OF_RATES = ("rate_median", "rate_max", "eps_dominates", "n_eff")
_UNKNOWN = dict.fromkeys(("grad_max", "update_max", *_COUNTED, "dot", *_COMPARED, *_OF_RATES), math.nan)
