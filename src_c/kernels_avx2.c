#include "compiler.h"

#if defined(LRF_X86_64)
#define LRF_KERNELS lrf_kernels_avx2
#define LRF_KERNELS_NAME "avx2"
#define LRF_KERNELS_TARGET LRF_TARGET_AVX2
#define LRF_BLOCK 8
#include "kernels/kernels.h"
#else
typedef int lrf_no_kernels_avx2; /* ISO C forbids an empty translation unit */
#endif

LRF_END_OF_SOURCE
