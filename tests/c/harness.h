/* What the C tests share: a check that reports and counts, and data that needs no generator of the C library. */
#ifndef HARNESS_H
#define HARNESS_H

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lrfast.h"

#define UNUSED __attribute__((unused))

/* ---- checks ---------------------------------------------------------------------------------------------- */

static unsigned failures;
static char context[200];

/* Counts and reports a failure, and goes on. */
#define CHECK(condition) check_that((condition) != 0, __FILE__, __LINE__, #condition)

static UNUSED void check_that(int holds, const char *file, int line, const char *text)
{
    if (!holds && failures++ < 20)
        fprintf(stderr, "%s:%d: %s   [%s]\n", file, line, text, context);
}

/* What is being tested from here on, for the report of a failure. */
static UNUSED __attribute__((format(printf, 1, 2))) void describe(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
}

/* What main returns. */
static UNUSED int result(void)
{
    if (failures > 0)
        fprintf(stderr, "%u checks failed\n", failures);
    return failures > 0;
}

/* ---- numbers --------------------------------------------------------------------------------------------- */

static inline size_t element_size(uint32_t dtype)
{
    return dtype == LRF_FLOAT64 ? sizeof(double) : sizeof(float);
}

static inline void put(void *buffer, uint32_t dtype, size_t i, double x)
{
    if (dtype == LRF_FLOAT64)
        ((double *)buffer)[i] = x;
    else
        ((float *)buffer)[i] = (float)x;
}

static inline double get(const void *buffer, uint32_t dtype, size_t i)
{
    return dtype == LRF_FLOAT64 ? ((const double *)buffer)[i] : (double)((const float *)buffer)[i];
}

/* splitmix64 of a position, so that every number can be made on its own; tests/golden.py has the same. */
static inline uint64_t bits_at(uint64_t stream, uint64_t index)
{
    uint64_t z = ((stream << 32 | index) + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Between -1 and 1, over 16 binary orders of magnitude, exact in the dtype. */
static inline double number_at(uint32_t dtype, uint64_t stream, uint64_t index)
{
    const uint64_t bits = bits_at(stream, index);
    const int digits = dtype == LRF_FLOAT64 ? 52 : 23;
    const int64_t integer = (int64_t)(bits >> (63 - digits)) - ((int64_t)1 << digits);
    return ldexp((double)integer, -digits - (int)(bits & 15));
}

/* Gradient of update t: some elements so small that their squares are denormal, some dead after update 20. */
static inline double gradient_at(uint32_t dtype, uint64_t t, uint64_t index)
{
    const double g = number_at(dtype, t, index);
    if (index % 16 == 3)
        return ldexp(g, dtype == LRF_FLOAT64 ? -508 : -60);
    return index % 16 == 7 && t > 20 ? 0 : g;
}

/* ---- tensors --------------------------------------------------------------------------------------------- */

/* Memory that a test can compare as a whole. */
typedef struct arena {
    unsigned char *bytes;
    size_t size, used;
} arena;

/* Aligned to 64 bytes. */
static inline void *take(arena *memory, size_t bytes)
{
    void *const start = memory->bytes + memory->used;
    memory->used += (bytes + 63) / 64 * 64;
    if (memory->used > memory->size) {
        fprintf(stderr, "the arena of this test is too small\n");
        exit(2);
    }
    return start;
}

static UNUSED lrf_stats *take_stats(arena *memory)
{
    lrf_stats *const stats = take(memory, sizeof *stats);
    stats->struct_size = sizeof *stats;
    return stats;
}

/* Gives a group storage for what its tensors carry, if its rule carries anything: [count], all of it 1/2. */
static UNUSED void give_storage(lrf_group *group, lrf_storage *storage)
{
    for (size_t i = 0; i < group->count; i++)
        storage[i] = (lrf_storage){.struct_size = sizeof storage[i], .scalar = {0.5, 0.5, 0.5, 0.5}};
    group->storage = storage;
}

/* A tensor whose buffers come from the arena, filled with numbers; states are not negative. */
static UNUSED lrf_tensor make_tensor(arena *memory, const lrf_rule_info *rule, uint32_t dtype, size_t count,
                                     uint64_t stream)
{
    const size_t bytes = count * element_size(dtype);
    lrf_tensor tensor = {.param = take(memory, bytes), .grad = take(memory, bytes), .count = count};

    for (size_t i = 0; i < count; i++) {
        put(tensor.param, dtype, i, number_at(dtype, stream, i));
        put(tensor.grad, dtype, i, gradient_at(dtype, stream + 1, i));
    }
    for (size_t slot = 0; slot < 4; slot++)
        if (rule->state[slot]) {
            tensor.state[slot] = take(memory, bytes);
            for (size_t i = 0; i < count; i++)
                put(tensor.state[slot], dtype, i, fabs(number_at(dtype, stream + 2 + slot, i)));
        }
    return tensor;
}

static UNUSED const lrf_rule_info *find_rule(lrf_rule id)
{
    for (size_t i = 0; lrf_rule_at(i); i++)
        if (lrf_rule_at(i)->id == (uint32_t)id)
            return lrf_rule_at(i);
    return NULL;
}

#endif
