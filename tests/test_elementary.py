"""exp, log, power and cos: the same bits in C and in Python, at most 1 ulp from the truth, and nobody else's libm.

``python tests/test_elementary.py 10000000`` proves the second over so many numbers per function, in an hour or so.
"""

from __future__ import annotations

import ast
import math
import re
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
from mpmath import libmp

from lrfast._engine import backend
from lrfast._engine import elementary as twin

import drawn
from toolchain import LIBM, PROGRAMS, ROOT

TRUE = {"exp": libmp.mpf_exp, "log": libmp.mpf_log, "power": libmp.mpf_pow, "cos": libmp.mpf_cos}
FUNCTIONS = list(TRUE)
PRECISION = 160

# Off by more than 1/2 ulp only where two rounded neighbours are almost equally near: see the docstring of elementary.
MOST_ULP = 0.502

TINY, HUGE, NEXT = 5e-324, sys.float_info.max, 2.0**-52
SPECIAL = [
    *(0.0, 1.0, 0.5, 2.0, 3.0, 0.1, 1.5, 2.5, TINY, HUGE, 2.0**-1022, 2.0**-1022 - TINY, math.inf, math.nan),
    *(1 + NEXT, 1 - NEXT / 2, 2.0**53, 2.0**53 - 1, 2.0**53 + 2, 2.0**63, 2.0**64, 1e22, 2.0**-27, 2.0**-28),
]
SPECIAL = [*SPECIAL, *(-x for x in SPECIAL)]

# Numbers whose images are hard to round, or hard to reduce: from the lists that are handed around (Lefevre & Muller,
# "Worst cases for correct rounding of the elementary functions in double precision"; Kahan's for cos; ends of ranges).
HARD = {
    "exp": [
        *map(
            float.fromhex,
            [
                "-0x1.290ea09e36479p-3",
                "0x1.83d4bcdebb3f4p+2",
                "-0x1.05a1bf6c1c0f5p+6",
                "0x1.005ae04256babp-1",
                "0x1.accfbe46b4ef0p-1",
                "-0x1.57d511a9b7ba1p-3",
                "0x1.62e42fefa39efp+9",
                "0x1.62e42fefa39f0p+9",
                "-0x1.74910d52d3051p+9",
                "-0x1.74910d52d3052p+9",
                "-0x1.6232bdd7abcd2p+9",
                "0x1.0000000000000p-54",
                "-0x1.0000000000000p-53",
                "0x1.ffffffffffffcp-54",
            ],
        )
    ],
    "log": [
        *map(
            float.fromhex,
            [
                "0x1.0ac82d6b31e28p+678",
                "0x1.62a88613629b5p+678",
                "0x1.ab50b409c8aeep+8",
                "0x1.61178e1f5c3efp-35",
                "0x1.9ddaaa1a4f5c1p-384",
                "0x1.0000000000001p+0",
                "0x1.fffffffffffffp-1",
                "0x1.6a09e667f3bcdp-1",
                "0x1.6a09e667f3bccp-1",
                "0x1.6a09e667f3bcdp+0",
                "0x0.0000000000001p-1022",
            ],
        )
    ],
    "cos": [
        6381956970095103.0 * 2.0**797,  # nearest to a multiple of pi/2 of all float64
        *(n * math.pi / 4 for n in range(1, 40)),
        *(math.nextafter(n * math.pi / 4, math.inf) for n in range(1, 40)),
        *map(float.fromhex, ["0x1.921fb54442d18p+0", "0x1.6ac5b262ca1ffp+849", "0x1.fffffffffffffp+1023"]),
        *(2.0**-27, math.nextafter(2.0**-27, 0), 1.0, 2.0, 22.0, 355.0, 1e16, 1e22, 1e300),
    ],
    "power": [
        (1 + NEXT, 2.0**52),
        (1 - NEXT / 2, 2.0**62),
        (1 + NEXT, 709.0 * 2.0**52),
        (1 - NEXT / 2, -1.0),
        (0.96, 0.004),
        (2.0, -1074.0),
        (2.0, -1074.5),
        (2.0, -1075.0),
        (2.0, 1023.9999999999999),
        (TINY, 0.5),
        (HUGE, 0.5),
        (HUGE, 1.0),
        (TINY, 1.0),
        (2.0**27 + 1, 2.0),
        (3.0, 33.0),
        (10.0, 22.0),
        (10.0, 308.0),
        (10.0, -323.0),
        (-3.0, 33.0),
        (-0.5, 1074.0),
    ],
}


def arguments(name, count, seed):
    """Any float64, and those that are asked for; pairs for power."""
    rng = np.random.default_rng([seed, *map(ord, name)])
    third = count // 3
    anything = rng.integers(0, 2**64, (2, third), np.uint64).view(np.float64)
    if name == "power":
        near_1 = 1 + rng.standard_normal(third) * 10.0 ** rng.uniform(-16, 0, third)
        bases = [anything[0], np.exp(rng.uniform(-700, 700, third)), near_1]
        exponents = [
            anything[1],
            rng.uniform(-3, 3, third),
            rng.standard_normal(third) * 10.0 ** rng.uniform(0, 19, third),
        ]
        return list(zip(np.concatenate(bases).tolist(), np.concatenate(exponents).tolist(), strict=True))
    usual = {"exp": rng.uniform(-746, 710, third), "log": rng.uniform(0, 3, third), "cos": rng.uniform(-4, 4, third)}
    small = rng.standard_normal(third) * 10.0 ** rng.uniform(-20, 2, third)
    return [(x,) for x in np.concatenate([anything[0], usual[name], small]).tolist()]


def hard(name):
    return [x if isinstance(x, tuple) else (x,) for x in HARD[name]]


def special(name):
    return [(x, y) for x in SPECIAL for y in SPECIAL] if name == "power" else [(x,) for x in SPECIAL]


def bits(x):
    """NaNs are all the same."""
    return "nan" if math.isnan(x) else struct.pack("<d", x)


def ulps_off(name, args, result):
    """Distance from the truth in units of the result's last place; None where there is no finite truth to round."""
    if not all(map(math.isfinite, args)) or (name == "log" and args[0] <= 0):
        return None
    if name == "power" and (args[0] == 0 or (args[0] < 0 and args[1] != int(args[1]))):
        return None
    if name in ("exp", "power"):
        magnitude = args[0] if name == "exp" else args[1] * math.log(abs(args[0]))
        if magnitude > 710:
            return 0.0 if math.isinf(result) else math.inf
        if magnitude < -746:
            return abs(result) / TINY
    truth = TRUE[name](*map(libmp.from_float, args), PRECISION)
    if math.isinf(result):
        middle = libmp.mpf_add(libmp.from_float(HUGE), libmp.from_float(math.ulp(HUGE) / 2))
        return 0.0 if libmp.mpf_cmp(libmp.mpf_abs(truth), middle) >= 0 else math.inf
    off = libmp.mpf_sub(truth, libmp.from_float(result), PRECISION)
    return abs(libmp.to_float(libmp.mpf_div(off, libmp.from_float(math.ulp(result)), PRECISION)))


def worst(name, cases, function):
    found = [(ulps_off(name, args, function(*args)), args) for args in cases]
    return max(((off, args) for off, args in found if off is not None), default=(0.0, None))


# ---- the functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_twins_have_equal_bits(name):
    """Where there is no extension this compares Python with itself."""
    compiled, own = getattr(backend.elementary, name), getattr(twin, name)
    cases = [*special(name), *hard(name), *arguments(name, 3000, drawn.number())]
    assert [args for args in cases if bits(compiled(*args)) != bits(own(*args))] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_a_unit_off(name):
    """Denormal results are rounded twice, and so up to one unit in the last place off."""
    function = getattr(backend.elementary, name)
    cases = [*special(name), *hard(name), *arguments(name, 6000, drawn.number())]
    normal = [args for args in cases if not abs(function(*args)) < 2.0**-1022]
    off, where = worst(name, normal, function)
    assert off <= MOST_ULP, where
    off, where = worst(name, cases, function)
    assert off <= 1, where


def test_special_values_are_those_of_ieee_754():
    """As Python's own, which raises in place of some."""
    for x, y in special("power"):
        try:
            expected = math.pow(x, y)
        except ValueError:
            expected = math.nan if x else math.inf * (math.copysign(1, x) if math.fmod(y, 2) in (1, -1) else 1)
        except OverflowError:
            expected = math.copysign(math.inf, x) if abs(y) < 2**53 and math.fmod(y, 2) in (1, -1) else math.inf
        assert math.isclose(twin.power(x, y), expected, rel_tol=1e-14) or math.isnan(expected), (x, y)
        assert math.isnan(twin.power(x, y)) == math.isnan(expected), (x, y)
        assert math.copysign(1, twin.power(x, y)) == math.copysign(1, expected) or math.isnan(expected), (x, y)
    assert [twin.exp(x) for x in (0.0, -0.0, math.inf, -math.inf, 710.0, -746.0)] == [1, 1, math.inf, 0, math.inf, 0]
    assert [twin.log(x) for x in (1.0, 0.0, -0.0, math.inf)] == [0, -math.inf, -math.inf, math.inf]
    assert [twin.cos(x) for x in (0.0, -0.0, 1e-300, TINY)] == [1, 1, 1, 1]
    nans = [twin.exp(math.nan), twin.log(-1.0), twin.log(math.nan), twin.cos(math.inf), twin.cos(math.nan)]
    assert all(map(math.isnan, nans))


def test_exact_values_are_exact():
    for x in (2.0, 3.0, 10.0, 0.5, 1.5, -3.0):
        for n in range(-20, 21):
            exact = Fraction(x) ** n
            assert twin.power(x, float(n)) == float(exact), (x, n)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_hash_that_the_program_in_c_promises(name):
    """tests/c/test_elementary.c computes it on every machine, with every compiler."""
    text = (PROGRAMS / "test_elementary.c").read_text(encoding="utf-8")
    promised = int(re.search(rf'{{"{name}", \w+, \w+, (0x\w+)}}', text)[1], 16)
    assert hash_of(name) == promised, hex(hash_of(name))


def hash_of(name, count=2000):
    """FNV-1a of the results' bits for numbers made by splitmix64; a NaN counts as 1."""
    result = 0xCBF29CE484222325
    for i in range(count):
        x, y = number_at(2 * i), number_at(2 * i + 1)
        value = getattr(twin, name)(*((x, y) if name == "power" else (x,)))
        word = 1 if math.isnan(value) else struct.unpack("<Q", struct.pack("<d", value))[0]
        for byte in word.to_bytes(8, "little"):
            result = (result ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return result


def number_at(index):
    """Any exponent for one in four, otherwise some between 1/64 and 64."""
    word = (index + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    word = (word ^ word >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    word ^= word >> 31
    if index % 8 > 1:
        word = word & ~(0x7FF << 52) | 1017 + (word >> 52) % 12 << 52
    return struct.unpack("<d", struct.pack("<Q", word))[0]


# ---- and nobody else's ----------------------------------------------------------------------------------------

# What schedules, rules and the engine may ask of Python's math and of NumPy: exact, or correctly rounded everywhere.
EXACT = {"sqrt", "pi", "inf", "nan", "isfinite", "isinf", "isnan", "copysign", "frexp", "ldexp", "ulp", "nextafter"}
EXACT |= {"factorial", "prod"}


def calls_of_libm(text):
    """Where source in Python computes with functions that differ between C libraries."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("math", "np"):
            unknown = node.value.id == "math" and node.attr not in EXACT
            if unknown or (node.attr not in EXACT and LIBM.fullmatch(node.attr)):
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("math", "cmath"):
            yield f"{node.lineno}: from {node.module} import ..."
        elif is_power(node):
            yield f"{node.lineno}: {ast.unparse(node)}"


def is_power(node):
    """Except of two with a constant, which is exact: 2.0**-27."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        constant = isinstance(node.right, (ast.Constant, ast.UnaryOp))
        return not (constant and isinstance(node.left, ast.Constant) and node.left.value == 2)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pow"


PURE = [
    "schedules.py",
    *(
        f"_engine/{name}.py"
        for name in ("arithmetic", "elementary", "stages", "specification", "numpy_plan", "settings")
    ),
]
PURE += [f"rules/{path.name}" for path in (ROOT / "lrfast/rules").glob("*.py")]


@pytest.mark.parametrize("name", PURE)
def test_no_other_libm_in_python(name):
    assert list(calls_of_libm((ROOT / "lrfast" / name).read_text(encoding="utf-8"))) == []


def test_other_libms_are_found():
    for text in (
        "math.exp(x)",
        "np.log(x)",
        "x ** y",
        "x ** 2.5",
        "pow(x, y)",
        "from math import cos",
        "np.power(x, 2)",
    ):
        assert list(calls_of_libm(text)), text
    assert not list(calls_of_libm("math.sqrt(x) + np.where(x < 2.0**-27, x, elementary.exp(x))"))


def prove(count: int) -> None:
    for name in FUNCTIONS:
        most = (0.0, None)
        function = getattr(backend.elementary, name)
        for seed in range(-(-count // 100_000)):
            cases = [c for c in arguments(name, 100_000, 10**6 + seed) if not abs(function(*c)) < 2.0**-1022]
            most = max(most, worst(name, cases, function), key=lambda found: found[0])
        print(f"{name}: {count} numbers, at most {most[0]:.6f} ulp off, at {most[1]}", flush=True)


if __name__ == "__main__":
    prove(int(sys.argv[1]))
