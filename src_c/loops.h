/* Everything per element for one element type; kernels.h includes it once per type with
 *     real                       the type
 *     root, magnitude            its square root and absolute value
 *     LRF_SMALLEST_NORMAL        its smallest normal number
 *     LRF_TYPED(name)            the name of a function of this type */

/* Opens the loop of a rule over n elements; a rule names the states it uses by slot. The pointers do not overlap,
 * which spares the compiler every check at run time. Inside, u is the direction: p moves by -u beside its
 * decoupled decay. */
#define LRF_UPDATE(name, state0, state1, state2)                                                                       \
    LRF_KERNELS_TARGET static void LRF_TYPED(name)(                                                                    \
        const size_t n, const lrf_scalars *const scalars, real *restrict const p, const real *restrict const g,        \
        LRF_UNUSED real *restrict const state0, LRF_UNUSED real *restrict const state1,                                \
        LRF_UNUSED real *restrict const state2)

#define flush LRF_TYPED(flush)
#define towards LRF_TYPED(towards)
#define not_negative LRF_TYPED(not_negative)
#define larger LRF_TYPED(larger)
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

LRF_KERNELS_TARGET static inline real *at(void *buffer, size_t first)
{
    return buffer ? (real *)buffer + first : NULL;
}

#define LRF_RULE_FILES
#include "optimizers.def"
#undef LRF_RULE_FILES

/* Entries of the kernel table: elements first .. first + n of a tensor. */
#define LRF_RULE(id, NAME, name, family, states, defaults)                                                             \
    LRF_KERNELS_TARGET static void LRF_TYPED(name##_entry)(const lrf_tensor *tensor, size_t first, size_t n,           \
                                                           const lrf_scalars *scalars)                                 \
    {                                                                                                                  \
        LRF_TYPED(name)(n, scalars, at(tensor->param, first), at(tensor->grad, first), at(tensor->state[0], first),    \
                        at(tensor->state[1], first), at(tensor->state[2], first));                                     \
    }
#include "optimizers.def"
#undef LRF_RULE

#include "reduce.h"

#undef flush
#undef towards
#undef not_negative
#undef larger
#undef at
#undef LRF_UPDATE
