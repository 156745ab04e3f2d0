#include "compiler.h"

#if defined(LRF_X86_64)
#define LRF_KERNELS lrf_kernels_avx512
#define LRF_KERNELS_NAME "avx512"
#define LRF_KERNELS_TARGET LRF_TARGET_AVX512
#define LRF_BLOCK 16
#include "kernels/kernels.h"
#else
typedef int lrf_no_kernels_avx512; /* ISO C forbids an empty translation unit */
#endif

LRF_END_OF_SOURCE
