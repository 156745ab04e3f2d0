/* Instantiates every rule of the table for float and double with one instruction set. The file that includes this
 * one defines LRF_KERNELS (the one symbol it exports), LRF_KERNELS_NAME, LRF_KERNELS_TARGET and LRF_BLOCK, the number
 * of doubles in two of its vectors. double comes first: averages of floats may be doubles. */
#include <math.h>
#include <string.h>

#include "types.h"

#include "formats.h"

#define real double
#define integer int64_t
#define LRF_MAGNITUDE_BITS INT64_MAX
#define LRF_LARGEST DBL_MAX
#define root sqrt
#define magnitude fabs
#define LRF_SMALLEST_NORMAL DBL_MIN
#define LRF_TYPED(name) name##_f64
#include "typed.h"
#undef real
#undef integer
#undef LRF_MAGNITUDE_BITS
#undef LRF_LARGEST
#undef root
#undef magnitude
#undef LRF_SMALLEST_NORMAL
#undef LRF_TYPED

#define real float
#define integer int32_t
#define LRF_MAGNITUDE_BITS INT32_MAX
#define LRF_LARGEST FLT_MAX
#define root sqrtf
#define magnitude fabsf
#define LRF_SMALLEST_NORMAL FLT_MIN
#define LRF_TYPED(name) name##_f32
#include "typed.h"
#undef real
#undef integer
#undef LRF_MAGNITUDE_BITS
#undef LRF_LARGEST
#undef root
#undef magnitude
#undef LRF_SMALLEST_NORMAL
#undef LRF_TYPED

/* clang-format off */
const lrf_kernels LRF_KERNELS = {
    .name = LRF_KERNELS_NAME,
#define LRF_ROW(name) {name##_f32, name##_f64}
    .update = {
        [LRF_PLAIN] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) [LRF_##NAME] = LRF_ROW(name),
#include "../optimizers.def"
#undef LRF_RULE
        },
        [LRF_WITH_NORMS] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) [LRF_##NAME] = LRF_ROW(name##_norms),
#include "../optimizers.def"
#undef LRF_RULE
        },
        [LRF_TRACED] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) [LRF_##NAME] = LRF_ROW(name##_traced),
#include "../optimizers.def"
#undef LRF_RULE
        },
    },
    .sum_squares = LRF_ROW(sum_squares),
    .sum_scaled_squares = LRF_ROW(sum_scaled_squares),
    .multiply = LRF_ROW(multiply),
    .clamp = LRF_ROW(clamp),
    .count_nonfinite = LRF_ROW(count_nonfinite),
    .largest = LRF_ROW(largest),
    .count_overflowed = LRF_ROW(count_overflowed),
    .average = {LRF_ROW(average), LRF_ROW(average_in_float64)},
    .copy = {
        [LRF_FLOAT32] = LRF_ROW(to_float32),
        [LRF_FLOAT16] = LRF_ROW(to_float16),
        [LRF_BFLOAT16] = LRF_ROW(to_bfloat16),
    },
    .decode = {[LRF_FLOAT16] = decode_float16, [LRF_BFLOAT16] = decode_bfloat16},
    .settle = {[LRF_FLOAT16] = settle_float16, [LRF_BFLOAT16] = settle_bfloat16},
    .subtract = subtract,
    .count_lost = count_lost,
    .split = split,
    .join = join,
    .gather_norms = LRF_ROW(gather_norms),
    .gather = LRF_ROW(gather),
    .fold_sums = LRF_ROW(fold_sums),
#undef LRF_ROW
};
/* clang-format on */
