/* The kernel tables, one per instruction set, and the choice among them. */
#ifndef LRF_DISPATCH_H
#define LRF_DISPATCH_H

#include "compiler.h"
#include "scalars.h"

enum { LRF_TILE = 1024, LRF_LANES = 32 }; /* elements; LRF_TILE is a multiple of LRF_LANES */

/* One past the last rule id. */
enum {
#define LRF_RULE(id, NAME, name, family, states, defaults) LRF_RULE_END_AFTER_##NAME = id,
#include "optimizers.def"
#undef LRF_RULE
    LRF_RULE_END
};

typedef void lrf_update(const lrf_tensor *tensor, size_t first, size_t n, const lrf_scalars *scalars);
typedef double lrf_sum(const lrf_tensor *tensor, size_t first, size_t n);

typedef struct lrf_kernels {
    const char *name;
    lrf_update *update[2][LRF_RULE_END]; /* [dtype - LRF_FLOAT32][rule] */
    lrf_sum *sum_squares[2];             /* [dtype - LRF_FLOAT32] */
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
