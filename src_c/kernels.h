/* Instantiates every rule of the table for float and double with one instruction set. The file that includes this
 * one defines LRF_KERNELS (the one symbol it exports), LRF_KERNELS_NAME and LRF_KERNELS_TARGET. */
#include <math.h>

#include "dispatch.h"

#define real float
#define root sqrtf
#define magnitude fabsf
#define LRF_SMALLEST_NORMAL FLT_MIN
#define LRF_TYPED(name) name##_f32
#include "loops.h"
#undef real
#undef root
#undef magnitude
#undef LRF_SMALLEST_NORMAL
#undef LRF_TYPED

#define real double
#define root sqrt
#define magnitude fabs
#define LRF_SMALLEST_NORMAL DBL_MIN
#define LRF_TYPED(name) name##_f64
#include "loops.h"
#undef real
#undef root
#undef magnitude
#undef LRF_SMALLEST_NORMAL
#undef LRF_TYPED

/* clang-format off */
const lrf_kernels LRF_KERNELS = {
    .name = LRF_KERNELS_NAME,
    .update = {
#define LRF_RULE(id, NAME, name, family, states, defaults) [LRF_##NAME] = name##_entry_f32,
        {
#include "optimizers.def"
        },
#undef LRF_RULE
#define LRF_RULE(id, NAME, name, family, states, defaults) [LRF_##NAME] = name##_entry_f64,
        {
#include "optimizers.def"
        },
#undef LRF_RULE
    },
    .sum_squares = {sum_squares_f32, sum_squares_f64},
};
/* clang-format on */
