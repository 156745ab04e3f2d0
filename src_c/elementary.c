/* Elementary functions of which every processor gives the same bits: integers and + - * / alone. */
#include "internal.h"

/* Fixed point in [0, 1): the number is q / 2^128. Products drop what lies below 2^-128, so that a power loses at most
 * about exponent * 2^-127. Double-double arithmetic is as exact, but takes 1.5 times as long, which a step on a small
 * tensor feels, and twice the lines. */
__extension__ typedef unsigned __int128 fraction;

static fraction product(fraction a, fraction b)
{
    const uint64_t a0 = (uint64_t)a, a1 = (uint64_t)(a >> 64);
    const uint64_t b0 = (uint64_t)b, b1 = (uint64_t)(b >> 64);
    const fraction cross1 = (fraction)a1 * b0, cross0 = (fraction)a0 * b1;
    const fraction carry = ((fraction)a0 * b0 >> 64) + (uint64_t)cross1 + (uint64_t)cross0;
    return (fraction)a1 * b1 + (cross1 >> 64) + (cross0 >> 64) + (carry >> 64);
}

double lrf_one_minus_power(double base, uint64_t exponent)
{
    const double two_to_64 = 18446744073709551616.0;
    const double scaled = base * two_to_64;
    const uint64_t high = (uint64_t)scaled, low = (uint64_t)((scaled - (double)high) * two_to_64);
    const fraction q = (fraction)high << 64 | low;
    fraction power = q;

    /* Below 2^-64 the power is lost beside 1. */
    for (int bit = 62 - __builtin_clzll(exponent); bit >= 0 && power >> 64 > 0; bit--) {
        power = product(power, power);
        if (exponent >> bit & 1)
            power = product(power, q);
    }
    return power >> 64 > 0 ? (double)-power / two_to_64 / two_to_64 : 1;
}
