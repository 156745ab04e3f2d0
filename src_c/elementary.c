/* Elementary functions of which every processor gives the same bits, in integers alone: neither compiler flags nor
 * floating-point environment reach them. At most 1 ulp off; beside its own rounding a result is less than 2^-6 ulp off.
 *
 * Fixed point in [0, 1): the number is q / 2^128, or q / 2^64 in a series, and products drop what lies below.
 * Double-double arithmetic is as exact, but takes longer, which a step on a small tensor feels, and twice the lines. */
#include "internal.h"

#include <math.h>
#include <string.h>

__extension__ typedef unsigned __int128 fraction;

#define WORDS(high, low) ((fraction)(high) << 64 | (low))
#define MOST (~(fraction)0) /* as good as 1 */

static fraction product(fraction a, fraction b)
{
    const uint64_t a0 = (uint64_t)a, a1 = (uint64_t)(a >> 64);
    const uint64_t b0 = (uint64_t)b, b1 = (uint64_t)(b >> 64);
    const fraction cross1 = (fraction)a1 * b0, cross0 = (fraction)a0 * b1;
    const fraction carry = ((fraction)a0 * b0 >> 64) + (uint64_t)cross1 + (uint64_t)cross0;
    return (fraction)a1 * b1 + (cross1 >> 64) + (cross0 >> 64) + (carry >> 64);
}

static uint64_t short_product(uint64_t a, uint64_t b)
{
    return (uint64_t)((fraction)a * b >> 64);
}

/* Binary digits before the first 1, of what is not 0. */
static int leading_zeros(fraction q)
{
    const uint64_t high = (uint64_t)(q >> 64);
    return high ? __builtin_clzll(high) : 64 + __builtin_clzll((uint64_t)q);
}

/* ---- 1 - beta^t -------------------------------------------------------------------------------------------- */

/* A power loses at most about exponent * 2^-127. */
double lrf_one_minus_power(double base, uint64_t exponent)
{
    const double two_to_64 = 18446744073709551616.0;
    const double scaled = base * two_to_64;
    const uint64_t high = (uint64_t)scaled, low = (uint64_t)((scaled - (double)high) * two_to_64);
    const fraction q = WORDS(high, low);
    fraction power = q;

    /* The power is below e^(-exponent (1 - base)); below 2^-54 it is lost beside 1, and below 2^-64 it only shrinks. */
    if ((1 - base) * (double)exponent > 38)
        return 1;
    for (int bit = 62 - __builtin_clzll(exponent); bit >= 0 && power >> 64 > 0; bit--) {
        power = product(power, power);
        if (exponent >> bit & 1)
            power = product(power, q);
    }
    return power >> 64 > 0 ? (double)-power / two_to_64 / two_to_64 : 1;
}

/* ---- floating point with 128 digits ------------------------------------------------------------------------ */

/* -1^negative mantissa 2^exponent; the mantissa is in [1/2, 1), or 0. */
typedef struct number {
    fraction mantissa;
    int exponent, negative;
} number;

/* Of what is neither 0, infinite nor NaN. */
static number number_of(double x)
{
    uint64_t bits, mantissa;
    int exponent, zeros;

    memcpy(&bits, &x, sizeof bits);
    exponent = (int)(bits >> 52 & 0x7ff);
    mantissa = bits & 0xfffffffffffff;
    if (exponent > 0)
        mantissa |= UINT64_C(1) << 52;
    else
        exponent = 1; /* denormal */
    zeros = __builtin_clzll(mantissa);
    return (number){WORDS(mantissa << zeros, 0), exponent - 1011 - zeros, (int)(bits >> 63)};
}

/* 2^exponent, of a normal number. */
static double power_of_two(int exponent)
{
    const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

/* mantissa 2^exponent to nearest even, for what is not 0; where it is denormal it is rounded twice. */
static double rounded(fraction mantissa, int exponent)
{
    const int zeros = leading_zeros(mantissa);
    const fraction q = mantissa << zeros;
    const double x = (double)((uint64_t)(q >> 64) | ((uint64_t)q != 0)); /* lower digits only say on which side */

    exponent -= zeros + 64;
    if (exponent > 960)
        return INFINITY;
    if (exponent < -1200)
        return 0;
    return exponent < -1022 ? x * power_of_two(-1022) * power_of_two(exponent + 1022) : x * power_of_two(exponent);
}

/* ---- series ------------------------------------------------------------------------------------------------ */

static const fraction ln_2 = WORDS(0xb17217f7d1cf79ab, 0xc9e3b39803f2f6af);
static const fraction half_log2_e = WORDS(0xb8aa3b295c17f0bb, 0xbe87fed0691d3e88);
static const fraction quarter_pi = WORDS(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1);

/* 1 / n! */
static const uint64_t inverse_factorials[] = {
    UINT64_MAX,
    UINT64_MAX,
    UINT64_MAX / 2,
    UINT64_MAX / 6,
    UINT64_MAX / 24,
    UINT64_MAX / 120,
    UINT64_MAX / 720,
    UINT64_MAX / 5040,
    UINT64_MAX / 40320,
    UINT64_MAX / 362880,
    UINT64_MAX / 3628800,
    UINT64_MAX / 39916800,
    UINT64_MAX / 479001600,
    UINT64_MAX / 6227020800,
    UINT64_MAX / 87178291200,
    UINT64_MAX / 1307674368000,
    UINT64_MAX / 20922789888000,
    UINT64_MAX / 355687428096000,
    UINT64_MAX / 6402373705728000,
    UINT64_MAX / 121645100408832000,
};

/* 1 / (2 n + 1) */
static const fraction inverse_odd[] = {MOST,      MOST / 3,  MOST / 5,  MOST / 7,  MOST / 9,  MOST / 11, MOST / 13,
                                       MOST / 15, MOST / 17, MOST / 19, MOST / 21, MOST / 23, MOST / 25, MOST / 27};

/* log2 |x| for |x| = m 2^e with m between sqrt(1/2) and sqrt(2), as e + log2 m, where
 * ln m = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1). */
static number log2_of(number x)
{
    const uint64_t one = UINT64_C(1) << 53, m = (uint64_t)(x.mantissa >> 75);
    const int below = m < 0x16a09e667f3bcc; /* sqrt(1/2) */
    const uint64_t above = below ? 2 * m - one : one - m, sum = below ? 2 * m + one : one + m;
    const int e = below ? x.exponent - 1 : x.exponent;
    const int falls = !below; /* m < 1 */
    const fraction quotient = ((fraction)above << 64) / sum, rest = ((fraction)above << 64) % sum;
    const fraction s = WORDS((uint64_t)quotient, (uint64_t)((rest << 64) / sum));
    const fraction s2 = product(s, s);
    fraction series = 0, log2_m;
    uint64_t whole = (uint64_t)(e < 0 ? -e : e);
    number result = {0, 0, e < 0 || (e == 0 && falls)};

    for (int n = 13; n > 0; n--)
        series = product(series, s2) + inverse_odd[n];
    log2_m = product(s + product(product(s, s2), series), half_log2_e) << 2;
    if (whole > 0 && falls != result.negative && log2_m > 0) {
        whole--;
        log2_m = -log2_m;
    }
    if (whole > 0) {
        result.exponent = 64 - __builtin_clzll(whole);
        result.mantissa = (fraction)whole << (128 - result.exponent) | log2_m >> result.exponent;
    } else if (log2_m > 0) {
        result.exponent = -leading_zeros(log2_m);
        result.mantissa = log2_m << -result.exponent;
    }
    return result;
}

/* 2^(x y) for x and y that are not 0, as 2^whole 2^f, where 2^f = 1 + r + r^2/2 + r^3/6 + ..., r = f ln 2. */
static double exp2_of(number x, number y)
{
    const fraction q = product(x.mantissa, y.mantissa);
    const int exponent = x.exponent + y.exponent, negative = x.negative != y.negative;
    fraction f, r;
    uint64_t short_r, series = 0;
    int whole = 0;

    if (exponent > 12)
        return negative ? 0 : INFINITY;
    if (exponent < -64)
        return 1;
    if (exponent > 0) {
        whole = (int)(q >> (128 - exponent));
        f = q << exponent;
    } else {
        f = q >> -exponent;
    }
    if (negative) {
        whole = -whole - (f > 0);
        f = -f;
    }
    r = product(f, ln_2);
    short_r = (uint64_t)(r >> 64);
    for (int n = 18; n > 1; n--)
        series = short_product(series, short_r) + inverse_factorials[n];
    series = short_product(short_product(short_r, short_r), series);
    return rounded((r + WORDS(series, 0)) >> 1 | (fraction)1 << 127, whole + 1);
}

/* ---- exp, log, power --------------------------------------------------------------------------------------- */

static int is_infinite(double x)
{
    return x > DBL_MAX || x < -DBL_MAX;
}

double lrf_exp(double x)
{
    const number log2_e = {half_log2_e, 1, 0};

    if (x == 0 || x != x)
        return 1 + x;
    if (is_infinite(x))
        return x < 0 ? 0 : x;
    return exp2_of(log2_e, number_of(x));
}

double lrf_log(double x)
{
    number result;

    if (!(x > 0))
        return x == 0 ? -INFINITY : NAN;
    if (is_infinite(x) || x == 1)
        return x == 1 ? 0 : x;
    result = log2_of(number_of(x));
    result.mantissa = product(result.mantissa, ln_2);
    return result.negative ? -rounded(result.mantissa, result.exponent) : rounded(result.mantissa, result.exponent);
}

double lrf_power(double x, double y)
{
    const double size = x < 0 ? -x : x, two_to_53 = 9007199254740992.0;
    const int is_integer = y >= two_to_53 || y <= -two_to_53 || (y == y && (double)(int64_t)y == y);
    const int is_odd = is_integer && y < two_to_53 && y > -two_to_53 && ((int64_t)y & 1);
    double result;

    if (y == 0 || x == 1)
        return 1;
    if (x != x || y != y)
        return NAN;
    if (size == 0 || is_infinite(x) || is_infinite(y)) {
        result = size == 1 ? 1 : (size > 1) == (y > 0) ? INFINITY : 0;
    } else {
        if (x < 0 && !is_integer)
            return NAN;
        result = size == 1 ? 1 : exp2_of(log2_of(number_of(size)), number_of(y));
    }
    return is_odd && signbit(x) ? -result : result;
}

/* ---- cos --------------------------------------------------------------------------------------------------- */

/* 1 / (2 pi), after two words of 0. */
static const uint64_t inverse_two_pi[] = {
    0,
    0,
    0x28be60db9391054a,
    0x7f09d5f47d4d3770,
    0x36d8a5664f10e410,
    0x7f9458eaf7aef158,
    0x6dc91b8e909374b8,
    0x01924bba82746487,
    0x3f877ac72c4a69cf,
    0xba208d7d4baed121,
    0x3a671c09ad17df90,
    0x4e64758e60d4ce7d,
    0x272117e2ef7e4a0e,
    0xc7fe25fff7816603,
    0xfbcbc462d6829b47,
    0xdb4d9fb3c9f2c26d,
    0xd3d18fd9a797fa8b,
    0x5d49eeb1faf97c5e,
    0xcf41ce7de294a4ba,
    0x9afed7ec47e35742,
    0x1580cc11bf1edaea,
    0xfc33ef0826bd0d87,
};

/* |x| / (2 pi) without whole turns, for |x| > 2^-28: of 1 / (2 pi) only 256 digits play a part, those before make
 * whole turns, those behind nothing. */
static fraction turns_of(number x)
{
    const uint64_t m = (uint64_t)(x.mantissa >> 64); /* |x| = m 2^(exponent - 64) */
    const size_t first = (size_t)(x.exponent - 64 + 128);
    uint64_t digits[4];
    fraction sum = 0;

    for (size_t i = 0; i < 4; i++) {
        const uint64_t *const words = &inverse_two_pi[first / 64 + i];
        digits[i] = first % 64 ? words[0] << first % 64 | words[1] >> (64 - first % 64) : words[0];
    }
    for (size_t i = 3; i > 1; i--)
        sum = (fraction)m * digits[i] + (sum >> 64);
    sum = (fraction)m * digits[1] + (sum >> 64);
    return ((fraction)m * digits[0] << 64) + sum;
}

double lrf_cos(double x)
{
    const fraction half = (fraction)1 << 127;
    const double size = x < 0 ? -x : x;
    fraction turns, angle;
    uint64_t square, series = 0;
    int negative;
    double result;

    if (x != x || is_infinite(x))
        return NAN;
    if (size < 7.450580596923828125e-9) /* 2^-27 */
        return 1;
    turns = turns_of(number_of(size));
    if (turns > half)
        turns = -turns;
    negative = turns > half / 2;
    if (negative)
        turns = half - turns;
    if (turns < half / 4) { /* cos a = 1 - a^2 (1/2 - a^2/24 + ...) */
        angle = product(turns << 3, quarter_pi);
        square = short_product((uint64_t)(angle >> 64), (uint64_t)(angle >> 64));
        for (int n = 18; n > 0; n -= 2)
            series = inverse_factorials[n] - short_product(series, square);
        series = short_product(series, square);
        result = series > 0 ? rounded(WORDS(-series, 0), 0) : 1;
    } else { /* sin a = a - a a^2 (1/6 - a^2/120 + ...) */
        angle = product((half / 2 - turns) << 3, quarter_pi);
        square = short_product((uint64_t)(angle >> 64), (uint64_t)(angle >> 64));
        for (int n = 19; n > 1; n -= 2)
            series = inverse_factorials[n] - short_product(series, square);
        result = rounded(angle - product(angle, WORDS(short_product(series, square), 0)), 0);
    }
    return negative ? -result : result;
}

LRF_END_OF_SOURCE
