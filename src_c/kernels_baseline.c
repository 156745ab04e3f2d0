#include "compiler.h"

#if !defined(LRF_AARCH64)
#define LRF_KERNELS lrf_kernels_baseline
#define LRF_KERNELS_NAME "baseline"
#define LRF_KERNELS_TARGET
#define LRF_BLOCK 4
#include "kernels/kernels.h"
#else
typedef int lrf_no_kernels_baseline; /* ISO C forbids an empty translation unit */
#endif

LRF_END_OF_SOURCE
