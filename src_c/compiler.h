/* Everything that depends on compiler or processor: attributes, target selection, floating-point environment. */
#ifndef LRF_COMPILER_H
#define LRF_COMPILER_H

#include <float.h>
#include <stdint.h>

#ifdef __FAST_MATH__
#error "lrfast promises the same bits everywhere: build it without -ffast-math and -Ofast"
#endif
#if FLT_EVAL_METHOD != 0
#error "lrfast needs float and double arithmetic in their own precision (x86-64, not x87)"
#endif
#ifndef __SIZEOF_INT128__
#error "lrfast needs 128-bit integers: a 64-bit target of gcc or clang"
#endif

#if defined(__x86_64__)
#define LRF_X86_64 1
#include <xmmintrin.h>
#elif defined(__aarch64__)
#define LRF_AARCH64 1
#else
#include <fenv.h>
#endif

#define LRF_NOINLINE __attribute__((noinline))
#define LRF_ALWAYS_INLINE inline __attribute__((always_inline))
#define LRF_PURE __attribute__((const)) /* depends on its arguments alone */
#define LRF_UNUSED __attribute__((unused))

/* Before a short inner loop that clang would unroll instead of vectorising it (2.5 times as slow). */
#if defined(__clang__)
#define LRF_DO_NOT_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define LRF_DO_NOT_UNROLL
#endif

/* The archive is linked into other people's libraries: nothing is exported from there unless they say so. */
#define LRF_HIDDEN __attribute__((visibility("hidden")))

/* Instruction sets of the kernels. FMA comes with avx512f, so contraction must be off (see lrfast.h). */
#if defined(LRF_X86_64)
#define LRF_TARGET_AVX2 __attribute__((target("avx2")))
#if defined(__clang__)
#define LRF_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define LRF_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif
#endif

/* gcc ignores this pragma and knows only the flag; clang honours both. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* Tells the processor that this thread waits for another. */
static inline void lrf_relax(void)
{
#if defined(LRF_X86_64)
    _mm_pause();
#elif defined(LRF_AARCH64)
    __asm__ volatile("yield");
#endif
}

/* The default environment (round to nearest, no flush to zero, no traps) around a piece of work:
 *     const lrf_fpenv saved = lrf_fpenv_enter();  work_not_inlined();  lrf_fpenv_leave(saved);
 * leave restores control bits and sticky flags alike. */
#if defined(LRF_X86_64)
typedef unsigned int lrf_fpenv;
static inline lrf_fpenv lrf_fpenv_enter(void)
{
    const lrf_fpenv saved = _mm_getcsr();
    _mm_setcsr(0x1f80u);
    return saved;
}
static inline void lrf_fpenv_leave(lrf_fpenv saved)
{
    _mm_setcsr(saved);
}
#elif defined(LRF_AARCH64)
typedef struct lrf_fpenv {
    uint64_t control, status;
} lrf_fpenv;
static inline lrf_fpenv lrf_fpenv_enter(void)
{
    lrf_fpenv saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved.control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(saved.status));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return saved;
}
static inline void lrf_fpenv_leave(lrf_fpenv saved)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(saved.control) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(saved.status) : "memory");
}
#else
typedef fenv_t lrf_fpenv;
static inline lrf_fpenv lrf_fpenv_enter(void)
{
    lrf_fpenv saved;
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    return saved;
}
static inline void lrf_fpenv_leave(lrf_fpenv saved)
{
    fesetenv(&saved);
}
#endif

#endif
