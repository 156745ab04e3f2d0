/* Everything that depends on compiler or processor: attributes, target selection, floating-point environment. */
#ifndef LRF_COMPILER_H
#define LRF_COMPILER_H

/* ---- what is refused ---------------------------------------------------------------------------------------- */

#ifdef __cplusplus
#error "lrfast's sources are C11: compile them as C (gcc or clang, not g++ or clang++); lrfast.h is for C++ too"
#endif
#if !defined(__GNUC__) || !defined(__STDC_VERSION__) || __STDC_VERSION__ < 201112L
#error "lrfast's sources are C11 for gcc or clang: compile with one of them, without an -std before -std=c11"
#endif
#ifndef __SIZEOF_INT128__
#error "lrfast needs 128-bit integers: a 64-bit target of gcc or clang, without -m32"
#endif
/* 16, for processors with _Float16, says the same of float and double. */
#if __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "lrfast promises the same bits everywhere: compile without -mfpmath=387 and -mfpmath=both (x86-64, not x87)"
#endif
#if defined(__FAST_MATH__)
#error "lrfast promises the same bits everywhere: compile without -ffast-math, -Ofast and -ffp-model=fast"
#elif __FINITE_MATH_ONLY__
#error "lrfast promises to find every NaN: compile without -ffinite-math-only, or add -fno-finite-math-only after it"
#elif defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "lrfast promises the same bits everywhere: compile without -funsafe-math-optimizations and its parts \
-fassociative-math, -freciprocal-math, -fno-signed-zeros"
#elif defined(__GCC_IEC_559) && !__GCC_IEC_559 /* what has no macro of its own, and gcc before 12 */
#error "lrfast promises the same bits everywhere: compile without -funsafe-math-optimizations and its parts, \
-fsingle-precision-constant, and -ffp-contract=fast beside -std=c11"
#endif

struct lrf_padded {
    char first;
    double second;
};
_Static_assert(sizeof(struct lrf_padded) == 16, "lrfast's structs have the layout of its hosts: compile without "
                                                "-fpack-struct");

/* ---- what is set right, whatever the flags say -------------------------------------------------------------------
 * Before the first function, those of system headers too: this file comes first, LRF_END_OF_SOURCE last.
 *
 * No contraction into FMA, which comes with avx512f and with -march=haswell; gcc knows no other pragma for that, and
 * after it heeds an -fassociative-math that it ignored before. clang defines no macro for the parts of -ffast-math,
 * which its pragmas turn off.
 *
 * Whatever -march and -mbmi2 say, everything but the kernels runs on every processor of the architecture: what chooses
 * kernels has to, and nothing else would gain. Kernels name all that they may use. */
#if defined(__clang__)
#if defined(__x86_64__) || defined(__powerpc64__) /* elsewhere clang 14 does not know it */
#pragma float_control(precise, on)
#endif
#pragma clang fp reassociate(off)
#pragma STDC FP_CONTRACT OFF
#if defined(__x86_64__)
#define LRF_BASELINE "arch=x86-64,no-sse3,no-popcnt,no-lzcnt,no-bmi,no-bmi2,no-movbe,no-adx"
#elif defined(__aarch64__)
#define LRF_BASELINE "no-sve,no-lse,no-rcpc"
#endif
#if defined(LRF_BASELINE)
#pragma clang attribute push(__attribute__((target(LRF_BASELINE))), apply_to = function)
#define LRF_END_OF_SOURCE _Pragma("clang attribute pop")
#else
#define LRF_END_OF_SOURCE
#endif
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off", "no-associative-math")
#if defined(__x86_64__)
#pragma GCC target("arch=x86-64,tune=generic,no-sse3")
#elif defined(__aarch64__)
#pragma GCC target("arch=armv8-a")
#endif
#define LRF_END_OF_SOURCE _Pragma("GCC pop_options")
#endif

#include <float.h>
#include <stdint.h>

/* ---- attributes ------------------------------------------------------------------------------------------------ */

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

/* Instruction sets of the kernels: all that they may use. clang adds to what -march says, gcc to the pragma above. */
#if defined(__clang__)
#define LRF_TARGET_AVX2 __attribute__((target(LRF_BASELINE ",avx2")))
#define LRF_TARGET_AVX512 __attribute__((target(LRF_BASELINE ",avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define LRF_TARGET_AVX2 __attribute__((target("avx2")))
#define LRF_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
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
