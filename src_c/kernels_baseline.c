#include "compiler.h"

#if !defined(LRF_AARCH64)
#define LRF_KERNELS lrf_kernels_baseline
#define LRF_KERNELS_NAME "baseline"
#define LRF_KERNELS_TARGET
#include "kernels.h"
#else
typedef int lrf_no_kernels_baseline; /* ISO C forbids an empty translation unit */
#endif
