/* Loops that only stream: one buffer is read, 1 to 4 others are read and written, as an update does with a gradient,
 * a parameter and its states. Compiled per instruction set like the kernels. */
#ifndef LRFAST_ROOFLINE_H
#define LRFAST_ROOFLINE_H

#include <stddef.h>
#include <string.h>

#include "compiler.h"

typedef void lrf_stream(size_t n, const float *restrict g, float *restrict a, float *restrict b, float *restrict c,
                        float *restrict d);

#define LRF_STREAMS(isa, target)                                                                                       \
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
    static lrf_stream *const streams_##isa[] = {stream1_##isa, stream2_##isa, stream3_##isa, stream4_##isa};

LRF_STREAMS(baseline, )
#if defined(LRF_X86_64)
LRF_STREAMS(avx2, LRF_TARGET_AVX2)
LRF_STREAMS(avx512, LRF_TARGET_AVX512)
#endif

/* The loop that writes 1 to 4 buffers, for kernels of that name. */
static lrf_stream *lrf_find_stream(const char *isa, size_t written)
{
#if defined(LRF_X86_64)
    if (strcmp(isa, "avx512") == 0)
        return streams_avx512[written - 1];
    if (strcmp(isa, "avx2") == 0)
        return streams_avx2[written - 1];
#endif
    (void)isa;
    return streams_baseline[written - 1];
}

#endif
