/* Everything per element for one element type; kernels.h includes it once per type with
 *     real, integer              the type, and the signed integer of its size
 *     root, magnitude            its square root and absolute value
 *     LRF_SMALLEST_NORMAL        its smallest normal number
 *     LRF_LARGEST                its largest finite number
 *     LRF_TYPED(name)            the name of a function of this type */

#define flush LRF_TYPED(flush)
#define towards LRF_TYPED(towards)
#define not_negative LRF_TYPED(not_negative)
#define larger LRF_TYPED(larger)
#define sign_of LRF_TYPED(sign_of)
#define at LRF_TYPED(at)

/* A moving average below the smallest normal number is +0: denormals never slow a run with dead gradients down. */
LRF_KERNELS_TARGET static inline real flush(real x)
{
    return magnitude(x) < LRF_SMALLEST_NORMAL ? 0 : x;
}

/* (1 - weight) from + weight to, exact at both ends: the branch picks the end that weight is nearer to. */
LRF_KERNELS_TARGET static inline real towards(real from, real to, real weight)
{
    const real difference = to - from;
    return weight < (real)0.5 ? from + weight * difference : to - (1 - weight) * difference;
}

LRF_KERNELS_TARGET static inline real not_negative(real x)
{
    return x < 0 ? 0 : x;
}

/* NaN if either is. */
LRF_KERNELS_TARGET static inline real larger(real x, real y)
{
    return ((x >= y) | (x != x)) ? x : y;
}

/* 1 or -1; NaN and zeros stay. */
LRF_KERNELS_TARGET static inline real sign_of(real x)
{
    return x > 0 ? 1 : x < 0 ? -1 : x;
}

LRF_KERNELS_TARGET static inline real *at(void *buffer, size_t first)
{
    return buffer ? (real *)buffer + first : NULL;
}

#include "rules.h"
#include "reduce.h"
#include "stages.h"
#include "statistics.h"

#undef flush
#undef towards
#undef not_negative
#undef larger
#undef sign_of
#undef at
