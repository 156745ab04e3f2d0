/* Formats of 16 bits: what every code is, what every float32 becomes, and the two halves of every float32. By itself it
 * looks at every place where something changes and at one number in between, on every instruction set;
 * `test_formats whole` at all 2^32 with the one in use, in twenty seconds. */
#include "harness.h"
#include "internal.h"

enum { BLOCK = 4096 };

static const lrf_kernels *kernels;
static int whole;

static float float_of(uint32_t word)
{
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
}

static uint32_t word_of(float x)
{
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

/* ---- what a code is, by definition ----------------------------------------------------------------------- */

/* Of a positive code; the one of infinity is what would come after the largest number. */
static double size_of_code(uint32_t format, uint32_t code)
{
    const int digits = format == LRF_FLOAT16 ? 10 : 7, least = format == LRF_FLOAT16 ? -14 : -126;
    const int exponent = (int)(code >> digits);
    const int fraction = (int)(code & ((1u << digits) - 1));
    return exponent == 0 ? ldexp(fraction, least - digits)
                         : ldexp(fraction + (1 << digits), least - digits + exponent - 1);
}

static uint32_t infinity_of(uint32_t format)
{
    return format == LRF_FLOAT16 ? 0x7c00 : 0x7f80;
}

static uint16_t nan_of(uint32_t format)
{
    return format == LRF_FLOAT16 ? 0x7e00 : 0x7fc0;
}

static void every_code(uint32_t format)
{
    static uint16_t codes[1 << 16], again[1 << 16];
    static float decoded[1 << 16];
    const uint32_t infinite = infinity_of(format);

    describe("codes of format %u, %s", format, kernels->name);
    for (uint32_t code = 0; code < 1u << 16; code++)
        codes[code] = (uint16_t)code;
    kernels->decode[format](decoded, codes, 1 << 16);
    kernels->copy[format][0](again, decoded, 1 << 16);
    for (uint32_t code = 0; code < 1u << 16; code++) {
        const uint32_t size = code & 0x7fff, sign = code >> 15;
        CHECK(size > infinite
                  ? isnan(decoded[code]) != 0
                  : fabs((double)decoded[code]) == (size == infinite ? (double)INFINITY : size_of_code(format, size)));
        CHECK(isnan(decoded[code]) || (signbit(decoded[code]) != 0) == (sign != 0));
        CHECK(again[code] == (size > infinite ? nan_of(format) : code));
    }
}

/* ---- what a float32 becomes ------------------------------------------------------------------------------ */

/* All words first .. last, of which not all need be looked at, become one code. */
static void expect(uint32_t format, uint32_t first, uint32_t last, uint16_t code)
{
    float x[BLOCK];
    uint16_t got[BLOCK];

    for (uint64_t begin = first; begin <= last; begin += BLOCK) {
        const size_t n = last - begin < BLOCK ? (size_t)(last - begin) + 1 : BLOCK;
        unsigned wrong = 0;
        for (size_t i = 0; i < n; i++)
            x[i] = float_of((uint32_t)begin + (uint32_t)i);
        kernels->copy[format][0](got, x, n);
        for (size_t i = 0; i < n; i++)
            wrong += got[i] != code;
        CHECK(wrong == 0);
    }
}

static void expect_range(uint32_t format, uint32_t first, uint32_t last, uint16_t code)
{
    enum { NEAR = 3 };

    if (first > last)
        return;
    if (whole || last - first < 4 * NEAR) {
        expect(format, first, last, code);
        return;
    }
    expect(format, first, first + NEAR, code);
    expect(format, last - NEAR, last, code);
    expect(format, first + (last - first) / 2, first + (last - first) / 2, code);
}

/* Each code is that of all numbers nearer to it than to its neighbours; what lies between two goes to the even one. */
static void every_float(uint32_t format)
{
    const uint32_t infinite = infinity_of(format);
    uint32_t first = 0;

    describe("encoding to format %u, %s", format, kernels->name);
    for (uint32_t code = 0; code < infinite; code++) {
        const double middle = (size_of_code(format, code) + size_of_code(format, code + 1)) / 2;
        const uint32_t tie = word_of((float)middle), last = code % 2 ? tie - 1 : tie;
        CHECK((double)float_of(tie) == middle);
        expect_range(format, first, last, (uint16_t)code);
        expect_range(format, 0x80000000u | first, 0x80000000u | last, (uint16_t)(0x8000u | code));
        first = last + 1;
    }
    expect_range(format, first, 0x7f800000u, (uint16_t)infinite);
    expect_range(format, 0x80000000u | first, 0xff800000u, (uint16_t)(0x8000u | infinite));
    expect_range(format, 0x7f800001u, 0x7fffffffu, nan_of(format));
    expect_range(format, 0xff800001u, 0xffffffffu, nan_of(format));
}

/* ---- halves ---------------------------------------------------------------------------------------------- */

/* Words around a bfloat16, from the tie below it, which is its own, to before the tie above it. */
static void halves_around(uint32_t code)
{
    static const uint32_t steps[] = {0, 1, 2, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xbeef, 0xfffe, 0xffff};
    static float x[1 << 16], joined[1 << 16];
    static uint16_t upper[1 << 16], remainder[1 << 16];
    const size_t n = whole ? 1 << 16 : sizeof steps / sizeof steps[0];
    unsigned wrong = 0;

    for (size_t i = 0; i < n; i++)
        x[i] = float_of((code << 16) - 0x8000u + (whole ? (uint32_t)i : steps[i]));
    kernels->split(upper, remainder, x, n);
    kernels->join(joined, upper, remainder, n);
    for (size_t i = 0; i < n; i++) {
        const int is_nan = (word_of(x[i]) & 0x7fffffffu) > 0x7f800000u;
        wrong += upper[i] != (is_nan ? 0x7fc0u : code);
        wrong += word_of(joined[i]) != (is_nan ? 0x7fc00000u : word_of(x[i]));
        wrong += remainder[i] != (is_nan ? 0 : (word_of(x[i]) & 0xffffu));
    }
    CHECK(wrong == 0);
}

static void every_pair(void)
{
    describe("halves, %s", kernels->name);
    for (uint32_t code = 0; code < 1u << 16; code++)
        if (code != 0 && code != 0x8000) /* below these lie numbers of the other sign */
            halves_around(code);
    for (uint32_t sign = 0; sign < 2; sign++) { /* zeros, and what is nearest to them */
        static float x[1 << 15], joined[1 << 15];
        static uint16_t upper[1 << 15], remainder[1 << 15];
        unsigned wrong = 0;
        for (uint32_t i = 0; i < 1u << 15; i++)
            x[i] = float_of(sign << 31 | i);
        kernels->split(upper, remainder, x, 1 << 15);
        kernels->join(joined, upper, remainder, 1 << 15);
        for (size_t i = 0; i < 1 << 15; i++)
            wrong += upper[i] != sign << 15 || word_of(joined[i]) != word_of(x[i]);
        CHECK(wrong == 0);
    }
}

/* ---- masters --------------------------------------------------------------------------------------------- */

/* A master stays where its parameter is what it rounds to, and becomes the parameter where it is not. */
static void settling(uint32_t format)
{
    enum { N = 20000 };
    static float master[N], before[N], decoded[N];
    static uint16_t codes[N];

    describe("settling, format %u, %s", format, kernels->name);
    for (uint32_t i = 0; i < N; i++)
        before[i] = master[i] = i % 7 == 6 ? NAN : (float)ldexp(number_at(LRF_FLOAT64, 3, i), (int)(i % 50) - 30);
    kernels->copy[format][0](codes, master, N);
    for (uint32_t i = 0; i < N; i += 3)
        codes[i] = (uint16_t)(codes[i] ^ (i % 2 ? 1u : 0x8000u));
    kernels->decode[format](decoded, codes, N);
    kernels->settle[format](master, codes, N);
    for (uint32_t i = 0; i < N; i++)
        CHECK(word_of(master[i]) == word_of(i % 3 == 0 ? decoded[i] : before[i]));
}

static void all_of_them(void)
{
    for (uint32_t format = LRF_FLOAT16; format <= LRF_BFLOAT16; format++) {
        every_code(format);
        every_float(format);
        settling(format);
    }
    every_pair();
}

int main(int argc, char **argv)
{
    lrf_status why_none;

    whole = argc > 1 && strcmp(argv[1], "whole") == 0;
    for (size_t isa = 0; !whole && lrf_isa_name(isa); isa++) {
        CHECK(lrf_set_isa(lrf_isa_name(isa)) == LRF_OK);
        kernels = lrf_active_kernels(&why_none);
        all_of_them();
    }
    if (whole) {
        kernels = lrf_active_kernels(&why_none);
        all_of_them();
    }
    return result();
}

LRF_END_OF_SOURCE
