"""The bits that the core tries its kernels by: `python tests/selftest.py` writes src_c/selftest.def.

Computed by the specification; src_c/selftest.c runs the same training. test_flags.py compares file and specification.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import lrfast

from golden import COPIES, Case, members
from variants import Settings

FILE = Path(__file__).resolve().parents[1] / "src_c" / "selftest.def"
HEAD = "/* The trainings of selftest.c and the hashes of what they give; written by tests/selftest.py. */\n"
# Between them every kind of arithmetic: sums of products, square roots, divisions, maxima, scalars by t.
TRAININGS: list[tuple[type[lrfast.Optimizer], Settings]] = [
    (lrfast.SGD, dict(lr=1e-2, momentum=0.9, weight_decay=0.01, nesterov=True)),
    (lrfast.Adagrad, dict(lr_decay=0.1, weight_decay=0.01)),
    (lrfast.RMSprop, dict(alpha=0.9, momentum=0.5, centered=True)),
    (lrfast.AdamW, dict(amsgrad=True)),
    (lrfast.Adadelta, dict(weight_decay=0.01)),
]
COUNT, UPDATES, DENORMAL = 67, 2, 5
OPTIONS = dict(clip_value=0.25, clip_norm=0.75, nonfinite="skip", ema=0.9, stats=True)
STATISTICS = 79  # of a row; what later versions append is not hashed


def text() -> str:
    """The whole file."""
    lines = []
    for cls, settings in TRAININGS:
        group = next(m for m in members(Case("", cls, settings)) if m.startswith(".group"))
        hashes = ", ".join(f"0x{run(cls, settings, dtype):016x}" for dtype in (np.float32, np.float64))
        lines.append(f"{{{group}, .hashes = {{{hashes}}}}},\n")
    return HEAD + "".join(lines)


def run(cls: type[lrfast.Optimizer], settings: Settings, dtype: Any) -> int:
    """Hash of everything that the training writes."""
    param, grad = numbers(dtype, 0), np.zeros(COUNT, dtype)
    copy_to = np.zeros(COUNT, COPIES["f16" if dtype == np.float64 else "bf16"])
    optimizer = cls(param, grads=grad, copy_to=copy_to, **OPTIONS, **settings)
    with lrfast.use_isa("numpy"):
        for t in range(1, UPDATES + 1):
            grad[...] = numbers(dtype, t)
            optimizer.step(grad_scale=1.0 / 3)
    states = [optimizer.state[0][name] for name in optimizer._settings.rules[0].states if name]
    assert optimizer.ema is not None
    return hash_words([param, *states, optimizer.ema[0], copy_to, optimizer._recorder.rows[0, :STATISTICS]])


def numbers(dtype: Any, stream: int) -> np.ndarray:
    """As selftest.c makes them."""
    digits = 52 if dtype == np.float64 else 23
    z = (np.arange(COUNT, dtype=np.uint64) + np.uint64((stream << 32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z = z ^ z >> np.uint64(31)
    integers = (z >> np.uint64(63 - digits)).astype(np.int64) - (1 << digits)
    found = np.ldexp(integers.astype(np.float64), -digits - (z & np.uint64(7)).astype(np.int64)).astype(dtype)
    found[DENORMAL] = 0 if stream > 0 else np.ldexp(1.5, -1060 if dtype == np.float64 else -140)
    return found


def hash_words(arrays: list[np.ndarray]) -> int:
    result = 0
    for array in arrays:
        for word in np.ascontiguousarray(array).view(f"u{array.itemsize}").ravel().tolist():
            rotated = (result << 5 | result >> 59) & 0xFFFFFFFFFFFFFFFF
            result = (rotated ^ word) * 0x517CC1B727220A95 & 0xFFFFFFFFFFFFFFFF
    return result


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
