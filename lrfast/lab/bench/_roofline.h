/* Loops that only stream: one buffer is read, 0 to 4 others are read and written, as an update does with a gradient,
 * a parameter and its states, and a norm with a gradient alone. Compiled per instruction set like the kernels. */
#ifndef LRFAST_ROOFLINE_H
#define LRFAST_ROOFLINE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

typedef void lrf_stream(size_t n, const float *restrict g, float *restrict a, float *restrict b, float *restrict c,
                        float *restrict d);

/* What was read goes here, so that reading is not left out. */
static volatile uint32_t lrf_sink;

#define LRF_STREAMS(isa, target)                                                                                       \
    target static void stream0_##isa(size_t n, const float *restrict g, LRF_UNUSED float *a, LRF_UNUSED float *b,      \
                                     LRF_UNUSED float *c, LRF_UNUSED float *d)                                         \
    {                                                                                                                  \
        uint32_t all = 0;                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                                               \
            uint32_t bits;                                                                                             \
            memcpy(&bits, g + i, sizeof bits);                                                                         \
            all |= bits; /* integers may be reordered, and so the loop is vectorised */                                \
        }                                                                                                              \
        lrf_sink = all;                                                                                                \
    }                                                                                                                  \
    target static void stream1_##isa(size_t n, const float *restrict g, float *restrict a, LRF_UNUSED float *b,        \
                                     LRF_UNUSED float *c, LRF_UNUSED float *d)                                         \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++)                                                                                 \
            a[i] = a[i] + g[i];                                                                                        \
    }                                                                                                                  \
    target static void stream2_##isa(size_t n, const float *restrict g, float *restrict a, float *restrict b,          \
                                     LRF_UNUSED float *c, LRF_UNUSED float *d)                                         \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            a[i] = a[i] + g[i];                                                                                        \
            b[i] = b[i] + g[i];                                                                                        \
        }                                                                                                              \
    }                                                                                                                  \
    target static void stream3_##isa(size_t n, const float *restrict g, float *restrict a, float *restrict b,          \
                                     float *restrict c, LRF_UNUSED float *d)                                           \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            a[i] = a[i] + g[i];                                                                                        \
            b[i] = b[i] + g[i];                                                                                        \
            c[i] = c[i] + g[i];                                                                                        \
        }                                                                                                              \
    }                                                                                                                  \
    target static void stream4_##isa(size_t n, const float *restrict g, float *restrict a, float *restrict b,          \
                                     float *restrict c, float *restrict d)                                             \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            a[i] = a[i] + g[i];                                                                                        \
            b[i] = b[i] + g[i];                                                                                        \
            c[i] = c[i] + g[i];                                                                                        \
            d[i] = d[i] + g[i];                                                                                        \
        }                                                                                                              \
    }                                                                                                                  \
    static lrf_stream *const streams_##isa[] = {stream0_##isa, stream1_##isa, stream2_##isa, stream3_##isa,            \
                                                stream4_##isa};

LRF_STREAMS(baseline, )
#if defined(LRF_X86_64)
LRF_STREAMS(avx2, LRF_TARGET_AVX2)
LRF_STREAMS(avx512, LRF_TARGET_AVX512)
#endif

/* The loop that writes 0 to 4 buffers, for kernels of that name. */
static lrf_stream *lrf_find_stream(const char *isa, size_t written)
{
#if defined(LRF_X86_64)
    if (strcmp(isa, "avx512") == 0)
        return streams_avx512[written];
    if (strcmp(isa, "avx2") == 0)
        return streams_avx2[written];
#endif
    (void)isa;
    return streams_baseline[written];
}

LRF_END_OF_SOURCE

#endif
