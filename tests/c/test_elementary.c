/* exp, log, power and cos give the bits that the twin in Python gives: tests/test_elementary.py computes the hashes. */
#include "harness.h"
#include "internal.h"

enum { COUNT = 2000 };

static const struct {
    const char *name;
    double (*of_one)(double);
    double (*of_two)(double, double);
    uint64_t hash;
} functions[] = {
    {"exp", lrf_exp, NULL, 0x3f83a210c6b98a2d},
    {"log", lrf_log, NULL, 0xee4348add82ba601},
    {"power", NULL, lrf_power, 0x53b4851c6a2647c1},
    {"cos", lrf_cos, NULL, 0xf16c67457a594ed4},
};

/* Any exponent for one in four, otherwise some between 1/64 and 64. */
static double any_number_at(uint64_t index)
{
    uint64_t word = bits_at(0, index);
    double x;

    if (index % 8 > 1)
        word = (word & ~(UINT64_C(0x7ff) << 52)) | (1017 + (word >> 52) % 12) << 52;
    memcpy(&x, &word, sizeof x);
    return x;
}

static uint64_t hash_of(double (*of_one)(double), double (*of_two)(double, double))
{
    uint64_t hash = 0xcbf29ce484222325;

    for (uint64_t i = 0; i < COUNT; i++) {
        const double x = any_number_at(2 * i), y = any_number_at(2 * i + 1);
        const double value = of_one ? of_one(x) : of_two(x, y);
        uint64_t word = 1;
        if (value == value)
            memcpy(&word, &value, sizeof word);
        for (int byte = 0; byte < 8; byte++)
            hash = (hash ^ (word >> 8 * byte & 0xff)) * 0x100000001b3;
    }
    return hash;
}

int main(void)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        describe("%s", functions[i].name);
        CHECK(hash_of(functions[i].of_one, functions[i].of_two) == functions[i].hash);
    }
    return result();
}

LRF_END_OF_SOURCE
