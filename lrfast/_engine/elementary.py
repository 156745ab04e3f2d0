"""Elementary functions of which every machine gives the same bits, in integers alone; the twin of ``elementary.c``.

At most 1 ulp off; beside its own rounding a result is less than 2^-6 ulp off. Fixed point in [0, 1): the number is
q / 2**128, or q / 2**64 in a series, and products drop what lies below.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_DIGITS = 128
_MOST = (1 << _DIGITS) - 1  # as good as 1
_LN_2 = 0xB17217F7D1CF79ABC9E3B39803F2F6AF
_HALF_LOG2_E = 0xB8AA3B295C17F0BBBE87FED0691D3E88
_QUARTER_PI = 0xC90FDAA22168C234C4C6628B80DC1CD1
_SHORT = 64
_INVERSE_FACTORIALS = [((1 << _SHORT) - 1) // math.factorial(n) for n in range(20)]
_INVERSE_ODD = [_MOST // (2 * n + 1) for n in range(14)]
_INVERSE_TWO_PI = 0x28BE60DB9391054A7F09D5F47D4D377036D8A5664F10E4107F9458EAF7AEF1586DC91B8E909374B801924BBA827464873F877AC72C4A69CFBA208D7D4BAED1213A671C09AD17DF904E64758E60D4CE7D272117E2EF7E4A0EC7FE25FFF7816603FBCBC462D6829B47DB4D9FB3C9F2C26DD3D18FD9A797FA8B5D49EEB1FAF97C5ECF41CE7DE294A4BA9AFED7EC47E357421580CC11BF1EDAEAFC33EF0826BD0D87  # noqa: E501
_TWO_PI_DIGITS = 1280


class _Number(NamedTuple):
    """-1^negative mantissa 2^exponent; the mantissa is in [1/2, 1), or 0."""

    mantissa: int
    exponent: int
    negative: bool


def one_minus_power(base: float, exponent: int) -> float:
    """1 - base**exponent, for 0 <= base < 1 and exponent >= 1. Correctly rounded wherever it was tried."""
    if (1 - base) * exponent > 38:  # the power is below e^-38, and lost beside 1
        return 1.0
    q = int(math.ldexp(base, _DIGITS))
    power = q
    for bit in bin(exponent)[3:]:
        power = power * power >> _DIGITS
        if bit == "1":
            power = power * q >> _DIGITS
    return math.ldexp(float((1 << _DIGITS) - power), -_DIGITS)


def exp(x: float) -> float:
    """e**x."""
    if x == 0 or math.isnan(x):
        return 1 + x
    if math.isinf(x):
        return 0.0 if x < 0 else x
    return _exp2_of(_Number(_HALF_LOG2_E, 1, False), _number_of(x))


def log(x: float) -> float:
    """The natural logarithm; -inf for 0 and NaN below."""
    if not x > 0:
        return -math.inf if x == 0 else math.nan
    if math.isinf(x) or x == 1:
        return 0.0 if x == 1 else x
    mantissa, exponent, negative = _log2_of(_number_of(x))
    size = _rounded(mantissa * _LN_2 >> _DIGITS, exponent)
    return -size if negative else size


def power(x: float, y: float) -> float:
    """x**y with the special values of C and IEEE 754; NaN for a negative x and a y that is no integer."""
    size = abs(x)
    is_integer = abs(y) >= 2.0**53 or (math.isfinite(y) and int(y) == y)
    is_odd = is_integer and abs(y) < 2.0**53 and int(y) % 2 == 1
    if y == 0 or x == 1:
        return 1.0
    if math.isnan(x) or math.isnan(y):
        return math.nan
    if size == 0 or math.isinf(x) or math.isinf(y):
        result = 1.0 if size == 1 else math.inf if (size > 1) == (y > 0) else 0.0
    else:
        if x < 0 and not is_integer:
            return math.nan
        result = 1.0 if size == 1 else _exp2_of(_log2_of(_number_of(size)), _number_of(y))
    return -result if is_odd and math.copysign(1.0, x) < 0 else result


def cos(x: float) -> float:
    """The cosine, for every x."""
    half = 1 << 127
    if math.isnan(x) or math.isinf(x):
        return math.nan
    if abs(x) < 2.0**-27:
        return 1.0
    turns = _turns_of(_number_of(x))
    if turns > half:
        turns = (1 << _DIGITS) - turns
    negative = turns > half // 2
    if negative:
        turns = half - turns
    series = 0
    if turns < half // 4:  # cos a = 1 - a^2 (1/2 - a^2/24 + ...)
        angle = (turns << 3) * _QUARTER_PI >> _DIGITS
        square = (angle >> _SHORT) * (angle >> _SHORT) >> _SHORT
        for n in range(18, 0, -2):
            series = _INVERSE_FACTORIALS[n] - (series * square >> _SHORT)
        result = _rounded((1 << _SHORT) - (series * square >> _SHORT) << _SHORT, 0)
    else:  # sin a = a - a a^2 (1/6 - a^2/120 + ...)
        angle = (half // 2 - turns << 3) * _QUARTER_PI >> _DIGITS
        square = (angle >> _SHORT) * (angle >> _SHORT) >> _SHORT
        for n in range(19, 1, -2):
            series = _INVERSE_FACTORIALS[n] - (series * square >> _SHORT)
        result = _rounded(angle - (angle * (series * square >> _SHORT) >> _SHORT), 0)
    return -result if negative else result


def _number_of(x: float) -> _Number:
    """Of what is neither 0, infinite nor NaN."""
    mantissa, exponent = math.frexp(abs(x))
    return _Number(int(math.ldexp(mantissa, _DIGITS)), exponent, x < 0)


def _rounded(mantissa: int, exponent: int) -> float:
    """Mantissa 2^exponent to nearest even, for what is not 0; where it is denormal it is rounded twice.

    By products with powers of two, not by ldexp, which some C libraries do not round.
    """
    x, exponent = float(mantissa), exponent - _DIGITS
    exponent += mantissa.bit_length() - 64
    x = x * math.ldexp(1.0, 64 - mantissa.bit_length())
    if exponent > 960:
        return math.inf
    if exponent < -1200:
        return 0.0
    if exponent < -1022:
        return x * math.ldexp(1.0, -1022) * math.ldexp(1.0, exponent + 1022)
    return x * math.ldexp(1.0, exponent)


def _log2_of(x: _Number) -> _Number:
    """log2 |x| for |x| = m 2^e with m between sqrt(1/2) and sqrt(2), as e + log2 m.

    ln m = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1).
    """
    one, m = 1 << 53, x.mantissa >> 75
    below = m < 0x16A09E667F3BCC  # sqrt(1/2)
    above, total = (2 * m - one, 2 * m + one) if below else (one - m, one + m)
    e = x.exponent - 1 if below else x.exponent
    s = (above << _DIGITS) // total
    s2 = s * s >> _DIGITS
    series = 0
    for n in range(13, 0, -1):
        series = (series * s2 >> _DIGITS) + _INVERSE_ODD[n]
    atanh = s + ((s * s2 >> _DIGITS) * series >> _DIGITS)
    log2_m = (atanh * _HALF_LOG2_E >> _DIGITS) << 2
    size = (e << _DIGITS) + (log2_m if below else -log2_m)
    exponent = abs(size).bit_length() - _DIGITS
    mantissa = abs(size) >> exponent if exponent > 0 else abs(size) << -exponent
    return _Number(mantissa, exponent, size < 0)


def _exp2_of(x: _Number, y: _Number) -> float:
    """2^(x y) for x and y that are not 0, as 2^whole 2^f, where 2^f = 1 + r + r^2/2 + r^3/6 + ..., r = f ln 2."""
    q = x.mantissa * y.mantissa >> _DIGITS
    exponent, negative = x.exponent + y.exponent, x.negative != y.negative
    if exponent > 12:
        return 0.0 if negative else math.inf
    if exponent < -64:
        return 1.0
    size = q << exponent if exponent > 0 else q >> -exponent
    whole, f = divmod(-size if negative else size, 1 << _DIGITS)
    r = f * _LN_2 >> _DIGITS
    short_r, series = r >> _SHORT, 0
    for n in range(18, 1, -1):
        series = (series * short_r >> _SHORT) + _INVERSE_FACTORIALS[n]
    series = (short_r * short_r >> _SHORT) * series >> _SHORT
    return _rounded(r + (series << _SHORT) >> 1 | 1 << 127, whole + 1)


def _turns_of(x: _Number) -> int:
    """|x| / (2 pi) without whole turns, for |x| > 2^-28: of 1 / (2 pi) only 256 digits play a part."""
    m = x.mantissa >> 64
    digits = _INVERSE_TWO_PI >> (_TWO_PI_DIGITS - 256 - (x.exponent - 64))
    return (m * digits & (1 << 256) - 1) >> _DIGITS
