"""The promised bits: golden.txt has a hash for every variant, which tests/c/golden.c prints on every machine.

Here the NumPy reference computes them. `python tests/golden.py` writes the files anew: what stands there keeps its
place, what is new follows, and a change of a line is a change of promised bits.

golden_ordinary.txt has the same for gradients of ordinary size alone. Where a correction at the ends of the numbers has
to change golden.txt, that file shows that nothing else changed: its lines are for ever.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lrfast
from lrfast._engine import formats
from lrfast._engine.stages import RATES

from variants import VARIANTS, Settings, lowered, rule_of

FILE = Path(__file__).with_name("golden.txt")
ORDINARY = Path(__file__).with_name("golden_ordinary.txt")

COUNT = 3109
UPDATES, OPTION_UPDATES, ORDINARY_UPDATES = 300, 30, 30
LATE_STEPS = (5000, 123_456_789, 2**40)
DTYPES = {"f32": np.float32, "f64": np.float64}
COPIES = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}
OPTIONS = dict(clip_value=0.4, clip_norm=5.0, nonfinite="skip", zero_grads=True, ema=0.9, stats=True)


# Dtypes of parameter and gradient, and options; bfloat16 by its bits.
FORMATS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bf16": (np.uint16, np.uint16, {}),
    "f16": (np.float16, np.float16, {}),
    "grad": (np.float32, np.uint16, {}),
    "master": (np.uint16, np.uint16, dict(master="float32")),
    "split": (np.uint16, np.uint16, dict(master="split")),
}


class Case(NamedTuple):
    """What one hash is computed for, in each dtype.

    ``with_options``: with OPTIONS, for each copy; ``with_formats``: for each of FORMATS.
    """

    name: str
    cls: type[lrfast.Optimizer]
    settings: Settings
    grad_scale: float = 1.0
    clip_norm: float = 0.0
    with_options: bool = False
    with_formats: bool = False


def cases() -> list[Case]:
    """Those of the variants, and two of Adam whose gradients are scaled and clipped."""
    found = [Case(v.name, v.cls, v.settings) for v in VARIANTS.values() if v.golden]
    found += cases_of_scale()
    for v in VARIANTS.values():
        if v.with_options:
            settings = v.settings if v.with_options is True else v.with_options
            # "tail" is what options were called once; it stays in names of lines, which are promised.
            found.append(Case(f"{v.name}-tail", v.cls, settings, 0.7, with_options=True))
            found.append(Case(f"{v.name}-formats", v.cls, settings, 0.7, with_formats=True))
    return found


def text() -> str:
    """The whole file."""
    return lines({name: x for case in cases() for name, x in hashes(case).items()}, read())


def hashes(case: Case) -> dict[str, int]:
    """Name -> hash of the lines that a case has."""
    if case.with_options:
        return {
            f"{case.name}-{dtype}-{copy}": run_with_options(case, DTYPES[dtype], COPIES[copy])
            for dtype in DTYPES
            for copy in COPIES
        }
    if case.with_formats:
        return {f"{case.name}-{kind}": run_with_formats(case, *FORMATS[kind]) for kind in FORMATS}
    return {f"{case.name}-{dtype}": run(case, DTYPES[dtype], gradient, UPDATES) for dtype in DTYPES}


def ordinary_cases() -> list[Case]:
    """All variants, and gradients that are scaled and clipped."""
    return [Case(v.name, v.cls, v.settings) for v in VARIANTS.values()] + cases_of_scale()


def cases_of_scale() -> list[Case]:
    """Adam with gradients that are scaled, and clipped as well."""
    return [Case("adam-scaled", lrfast.Adam, {}, -1.0 / 3), Case("adam-clipped", lrfast.Adam, {}, 0.7, 0.5)]


def ordinary_text(isa: str = "numpy") -> str:
    """The whole file of ordinary gradients, as kernels compute it."""
    found = {
        f"{case.name}-{dtype}": run(case, DTYPES[dtype], ordinary_gradient, ORDINARY_UPDATES, isa)
        for case in ordinary_cases()
        for dtype in DTYPES
    }
    return lines(found, read(ORDINARY))


def lines(hashes: dict[str, int], known: dict[str, str]) -> str:
    """A file of hashes, in which what is known keeps its place."""
    places = list(known)
    names = sorted(hashes, key=lambda name: places.index(name) if name in known else len(known))
    return "".join(f"{name} {hashes[name]:016x}\n" for name in names)


def read(file: Path = FILE) -> dict[str, str]:
    """Hash of each name, as the file has them."""
    return dict(line.split() for line in file.read_text(encoding="utf-8").splitlines()) if file.exists() else {}


def run(case: Case, dtype: Any, gradient: Any, updates: int, isa: str = "numpy") -> int:
    """Hash of parameter and states after so many updates and the late ones; gradient(dtype, t) is that of update t."""
    param = numbers(dtype, 0)
    optimizer = case.cls(param, **case.settings, clip_norm=case.clip_norm or None)
    with lrfast.use_isa(isa):
        for t in range(1, updates + len(LATE_STEPS) + 1):
            if t > updates:
                saved = optimizer.state_dict()
                saved["state"][0]["step"] = late = LATE_STEPS[t - updates - 1] - 1
                optimizer.load_state_dict(saved, updates=late)
            optimizer.step(gradient(dtype, t), grad_scale=case.grad_scale)
    arrays = [param, *(optimizer.state[0][name] for name in rule_of(optimizer).state_names)]
    assert all(np.isfinite(array).all() for array in arrays), "only finite numbers have the same bytes everywhere"
    return fnv1a(arrays)


def run_with_options(case: Case, dtype: Any, copy: Any) -> int:
    """Hash of parameter, gradient and of what the options write."""
    param, grad, copy_to = numbers(dtype, 0), np.zeros(COUNT, dtype), np.zeros(COUNT, copy)
    optimizer = case.cls(param, grads=grad, copy_to=copy_to, **OPTIONS, **case.settings)
    with lrfast.use_isa("numpy"):
        for t in range(1, OPTION_UPDATES + 1):
            grad[...] = gradient(dtype, t)
            optimizer.step(grad_scale=case.grad_scale)
    assert optimizer.ema is not None
    return fnv1a([param, grad, optimizer.ema[0], copy_to, optimizer._recorder.rows[:, : RATES.stop]])


def run_with_formats(case: Case, param_dtype: Any, grad_dtype: Any, options: dict[str, Any]) -> int:
    """Hash of parameter, states and master, as they are stored."""
    param = formats.encode(numbers(np.float32, 0), np.dtype(param_dtype))
    optimizer = case.cls(param, **case.settings, uint16="bfloat16", **options)
    with lrfast.use_isa("numpy"):
        for t in range(1, OPTION_UPDATES + 1):
            grad = formats.encode(gradient(np.float32, t), np.dtype(grad_dtype))
            optimizer.step(grad, grad_scale=case.grad_scale)
    arrays = [param, *optimizer._buffers.states[0].values()]
    assert all(np.isfinite(formats.decode(array)).all() for array in arrays if array.dtype != np.uint16)
    return fnv1a(arrays)


def fnv1a(arrays: list[np.ndarray]) -> int:
    """64-bit FNV-1a of the elements' bytes, lowest first on every machine."""
    result = 0xCBF29CE484222325
    for array in arrays:
        for byte in array.astype(array.dtype.newbyteorder("<")).tobytes():
            result = (result ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return result


def write_variants(path: Path) -> None:
    """What golden.c includes: the same cases, as lrf_group has them."""
    path.write_text("".join(f"{{{', '.join(members(case))}}},\n" for case in cases()), encoding="utf-8")


def members(case: Case) -> list[str]:
    """Initialisers of one `variant` of golden.c."""
    optimizer = case.cls(np.zeros(1), **case.settings)
    rule, (flags, numbers) = rule_of(optimizer), lowered(optimizer)
    group = [f".rule = {rule.id}", f".flags = {flags}", *(f".{name} = {x.hex()}" for name, x in numbers.items())]
    initial = [float(optimizer.state[0][name][0]).hex() if name else "0" for name in rule.states]
    return [
        f'.name = "{case.name}"',
        f".group = {{{', '.join(group)}}}",
        f".initial = {{{', '.join(initial)}}}",
        f".grad_scale = {case.grad_scale.hex()}",
        f".clip_norm = {case.clip_norm.hex()}",
        f".with_options = {int(case.with_options)}",
        f".with_formats = {int(case.with_formats)}",
    ]


# ---- the numbers of tests/c/harness.h ------------------------------------------------------------------------


@cache
def gradient(dtype: Any, t: int) -> np.ndarray:
    """Gradient of update t: some elements so small that their squares are denormal, some dead after update 20."""
    grad = numbers(dtype, t)
    grad[3::16] = np.ldexp(grad[3::16], -508 if dtype == np.float64 else -60)
    if t > 20:
        grad[7::16] = 0
    grad.flags.writeable = False
    return grad


@cache
def ordinary_gradient(dtype: Any, t: int) -> np.ndarray:
    """Of either sign and 2^-20 to 2^10 in size, which is 1e-6 to 1e3: an order of magnitude as likely as another."""
    digits, z = 52 if dtype == np.float64 else 23, bits(t)
    size = 1 + np.ldexp((z >> np.uint64(64 - digits)).astype(np.float64), -digits)
    grad = np.ldexp(
        np.where(z & np.uint64(1), -size, size), (z >> np.uint64(1) & np.uint64(0xFF)).astype(int) % 30 - 20
    )
    grad = grad.astype(dtype)
    grad.flags.writeable = False
    return grad


def numbers(dtype: Any, stream: int) -> np.ndarray:
    """Between -1 and 1, over 16 binary orders of magnitude, exact in the dtype."""
    digits, z = 52 if dtype == np.float64 else 23, bits(stream)
    integers = (z >> np.uint64(63 - digits)).astype(np.int64) - (1 << digits)
    return np.ldexp(integers.astype(np.float64), -digits - (z & np.uint64(15)).astype(np.int64)).astype(dtype)


def bits(stream: int) -> np.ndarray:
    """64 random bits for each element, by splitmix64."""
    z = (np.arange(COUNT, dtype=np.uint64) + np.uint64((stream << 32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    ORDINARY.write_text(ordinary_text(), encoding="utf-8")
