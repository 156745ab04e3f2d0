/* What kernels and the phases that call them have in common: sizes, scalars, slots, and the table of kernels that each
 * instruction set fills. */
#ifndef LRF_TYPES_H
#define LRF_TYPES_H

#include "../compiler.h"
#include "../lrfast.h"

/* Elements; each is a multiple of the next. A step with statistics goes from strip to strip of a tile: sums of a whole
 * one would keep the memory waiting (measured with Adam beyond the caches: 1.3 ns per element in place of 1.0). */
enum { LRF_TILE = 1024, LRF_STRIP = 256, LRF_LANES = 32 };

/* One past the last rule id. */
enum {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) LRF_RULE_END_AFTER_##NAME = id,
#include "../optimizers.def"
#undef LRF_RULE
    LRF_RULE_END
};

/* The scalars of one update: those of the rule's family, whose struct stands in rules/, computed in float64 and rounded
 * to the element type; and rate, for statistics: the learning rate alone. */
enum { LRF_MOST_SCALARS = 15 };
typedef struct lrf_scalars {
    union {
        double doubles[LRF_MOST_SCALARS];
        float singles[LRF_MOST_SCALARS];
    } values;
    double rate;
} lrf_scalars;

/* Where a rule stores what it traces, for a tile; of the tensor's type. NULL where its variant does not. */
typedef struct lrf_trace {
    void *update, *denominator;
} lrf_trace;

/* Variants of a rule's loop: alone, storing its update, and storing all that statistics look at. */
enum { LRF_PLAIN, LRF_WITH_NORMS, LRF_TRACED, LRF_VARIANTS };

/* ---- statistics ------------------------------------------------------------------------------------------ */

/* What statistics know of a tile, raw: g in place of s. */
enum { LRF_SAMPLES = 16, LRF_NO_BIN = 255 };
typedef struct lrf_slot {
    double overflowed; /* as lrf_report has it; without statistics, all that a tile leaves */
    double grad_sq, param_sq, update_sq, grad_update, grad_last;
    double grad_max, update_max, rate_max;
    double nan, inf, zero, lost, turned, eps_dominates, dead;
    uint8_t bins[LRF_SAMPLES];
} lrf_slot;

/* The sums of a tile before its lanes are folded. */
typedef struct lrf_sums {
    double grad_sq[LRF_LANES], param_sq[LRF_LANES], update_sq[LRF_LANES], grad_update[LRF_LANES], grad_last[LRF_LANES];
} lrf_sums;

/* Elements first .. first + n of a tile of `tile` elements, as statistics see them; the pointers are those of the
 * strip. before: p before the update; last: the update before this one. */
typedef struct lrf_strip {
    const void *g, *before, *update, *denominator, *last;
    size_t first, n, tile;
} lrf_strip;

/* Of the doubles of a slot; NaN if either is. */
static inline double lrf_larger(double x, double y)
{
    return x >= y || x != x ? x : y;
}

/* ---- the table ------------------------------------------------------------------------------------------- */

typedef void lrf_update(const lrf_tensor *tensor, size_t first, size_t n, const lrf_scalars *scalars,
                        const lrf_trace *trace);

/* [2]: [dtype - LRF_FLOAT32]. What they do stands where they are defined: rules/, reduce.h, stages.h, statistics.h,
 * formats.h. */
typedef struct lrf_kernels {
    const char *name;
    lrf_update *update[LRF_VARIANTS][LRF_RULE_END][2];
    double (*sum_squares[2])(const void *x, size_t n);
    double (*sum_scaled_squares[2])(const void *x, size_t n, double unit);
    void (*multiply[2])(void *restrict out, const void *restrict g, size_t n, double factor);
    void (*clamp[2])(void *restrict out, const void *restrict g, size_t n, double scale, double bound);
    uint64_t (*count_nonfinite[2])(const void *g, size_t n, double scale);
    double (*largest[2])(const void *x, size_t n);
    uint64_t (*count_overflowed[2])(const void *before, const void *after, size_t n);
    void (*average[2][2])(void *restrict ema, const void *restrict p, size_t n, double weight); /* [1]: in float64 */
    void (*copy[LRF_BFLOAT16 + 1][2])(void *restrict out, const void *restrict p, size_t n);    /* [copy_dtype] */
    void (*decode[LRF_BFLOAT16 + 1])(float *restrict out, const uint16_t *restrict codes, size_t n); /* [format] */
    void (*settle[LRF_BFLOAT16 + 1])(float *restrict master, const uint16_t *restrict codes, size_t n);
    void (*subtract)(float *restrict out, const float *restrict p, const float *restrict u, size_t n);
    uint64_t (*count_lost)(const float *p, const float *u, const float *stored, size_t n);
    void (*split)(uint16_t *restrict upper, uint16_t *restrict remainder, const float *restrict x, size_t n);
    void (*join)(float *restrict out, const uint16_t *restrict upper, const uint16_t *restrict remainder, size_t n);
    void (*gather_norms[2])(lrf_sums *sums, const lrf_strip *strip);
    void (*gather[2])(lrf_slot *slot, lrf_sums *sums, const lrf_strip *strip, double rate, double eps, double sign);
    void (*fold_sums[2])(lrf_slot *slot, lrf_sums *sums);
} lrf_kernels;

/* Whether a row of the table names a state in a slot; folded by the compiler. */
static LRF_ALWAYS_INLINE int lrf_is_there(const char *name)
{
    return name != NULL;
}

#endif
