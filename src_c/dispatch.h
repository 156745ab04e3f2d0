/* The kernel tables, one per instruction set, and the choice among them. */
#ifndef LRF_DISPATCH_H
#define LRF_DISPATCH_H

#include "compiler.h"
#include "scalars.h"

/* Elements; each is a multiple of the next. A step with statistics goes from strip to strip of a tile: sums of a whole
 * one would keep the memory waiting (measured with Adam beyond the caches: 1.3 ns per element in place of 1.0). */
enum { LRF_TILE = 1024, LRF_STRIP = 256, LRF_LANES = 32 };

/* One past the last rule id. */
enum {
#define LRF_RULE(id, NAME, name, family, states, defaults) LRF_RULE_END_AFTER_##NAME = id,
#include "optimizers.def"
#undef LRF_RULE
    LRF_RULE_END
};

/* Where a rule stores what it traces, for a tile; of the tensor's type. NULL where its variant does not. */
typedef struct lrf_trace {
    void *update, *denominator, *last;
} lrf_trace;

/* What statistics know of a tile, raw: g in place of s. */
enum { LRF_SAMPLES = 16, LRF_NO_BIN = 255 };
typedef struct lrf_slot {
    double grad_sq, param_sq, update_sq, grad_update, grad_last;
    double grad_max, update_max, rate_max;
    double nan, inf, zero, lost, turned, eps_dominates;
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

/* NaN if either is. */
static inline double lrf_larger(double x, double y)
{
    return x >= y || x != x ? x : y;
}

/* Variants of a rule's loop. */
enum { LRF_PLAIN, LRF_WITH_NORMS, LRF_TRACED, LRF_VARIANTS };

typedef void lrf_update(const lrf_tensor *tensor, size_t first, size_t n, const lrf_scalars *scalars,
                        const lrf_trace *trace);

/* [2]: [dtype - LRF_FLOAT32]. What they do stands where they are defined: rules/, reduce.h, stages.h, statistics.h. */
typedef struct lrf_kernels {
    const char *name;
    lrf_update *update[LRF_VARIANTS][LRF_RULE_END][2];
    double (*sum_squares[2])(const void *x, size_t n);
    void (*clamp[2])(void *restrict out, const void *restrict g, size_t n, double scale, double bound);
    uint64_t (*count_nonfinite[2])(const void *g, size_t n, double scale);
    void (*average[2])(void *restrict ema, const void *restrict p, size_t n, double weight);
    void (*copy[LRF_BFLOAT16 + 1][2])(void *restrict out, const void *restrict p, size_t n); /* [copy_dtype] */
    void (*gather_norms[2])(lrf_sums *sums, const lrf_strip *strip);
    void (*gather[2])(lrf_slot *slot, lrf_sums *sums, const lrf_strip *strip, double rate, double eps, double sign);
    void (*fold_sums[2])(lrf_slot *slot, lrf_sums *sums);
} lrf_kernels;

#if defined(LRF_X86_64)
LRF_HIDDEN extern const lrf_kernels lrf_kernels_avx512;
LRF_HIDDEN extern const lrf_kernels lrf_kernels_avx2;
LRF_HIDDEN extern const lrf_kernels lrf_kernels_baseline;
#elif defined(LRF_AARCH64)
LRF_HIDDEN extern const lrf_kernels lrf_kernels_neon;
#else
LRF_HIDDEN extern const lrf_kernels lrf_kernels_baseline;
#endif

/* The kernels in use; NULL if LRFAST_ISA names some that this machine or build lacks. */
LRF_HIDDEN const lrf_kernels *lrf_active_kernels(void);

/* What the processor and the operating system offer, as bits; a pure function of what cpuid and xgetbv say.
 * leaf1_ecx: cpuid(1).ecx, leaf7_ebx: cpuid(7, 0).ebx, xcr0: register state that the system saves. */
enum { LRF_HAS_AVX2 = 1, LRF_HAS_AVX512 = 2 };
LRF_HIDDEN unsigned lrf_x86_features(uint32_t leaf1_ecx, uint32_t leaf7_ebx, uint64_t xcr0);

#endif
