/* Which kernels run: the best that processor and operating system allow, or what the user asks for. */
#include "internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(LRF_X86_64)
#include <cpuid.h>
#endif

/* Best first. AVX-512 stands before AVX2 because it is never slower where it was measured and up to 1.6 times as
 * fast in cache, where square root and division are the limit; beyond the cache both run at the speed of memory
 * (docs/performance.md has the figures). */
static const lrf_kernels *const known_kernels[] = {
#if defined(LRF_X86_64)
    &lrf_kernels_avx512,
    &lrf_kernels_avx2,
    &lrf_kernels_baseline,
#elif defined(LRF_AARCH64)
    &lrf_kernels_neon,
#else
    &lrf_kernels_baseline,
#endif
};
enum { KNOWN = sizeof known_kernels / sizeof known_kernels[0] };

/* The dispatch table: NULL until the first use. Relaxed order suffices, it only ever points to constants. */
static _Atomic(const lrf_kernels *) active_kernels;

unsigned lrf_x86_features(uint32_t leaf1_ecx, uint32_t leaf7_ebx, uint64_t xcr0)
{
    const uint32_t osxsave = 1u << 27, avx = 1u << 28;                 /* leaf 1 */
    const uint32_t avx2 = 1u << 5;                                     /* leaf 7 */
    const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* f, dq, bw, vl */
    const uint64_t ymm_saved = 0x6, zmm_saved = 0xe6;
    unsigned features = 0;

    if (!(leaf1_ecx & osxsave) || !(leaf1_ecx & avx) || (xcr0 & ymm_saved) != ymm_saved || !(leaf7_ebx & avx2))
        return 0;
    features |= LRF_HAS_AVX2;
    if ((leaf7_ebx & avx512) == avx512 && (xcr0 & zmm_saved) == zmm_saved)
        features |= LRF_HAS_AVX512;
    return features;
}

#if defined(LRF_X86_64)
static unsigned probe(void)
{
    uint32_t eax, ebx, ecx, edx, leaf1_ecx;
    uint32_t low = 0, high = 0;

    if (!__get_cpuid(1, &eax, &ebx, &leaf1_ecx, &edx) || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return 0;
    if (leaf1_ecx & (1u << 27)) /* xgetbv exists */
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return lrf_x86_features(leaf1_ecx, ebx, (uint64_t)high << 32 | low);
}
#endif

static int runs_here(const lrf_kernels *kernels)
{
#if defined(LRF_X86_64)
    /* Asked once: in a virtual machine cpuid leaves it, which costs tens of microseconds. */
    enum { ASKED = 1 << 8 };
    static atomic_uint known_features;
    unsigned features = atomic_load_explicit(&known_features, memory_order_relaxed);

    if (!features) {
        features = probe() | ASKED;
        atomic_store_explicit(&known_features, features, memory_order_relaxed);
    }
    if (kernels == &lrf_kernels_avx512)
        return (features & LRF_HAS_AVX512) != 0;
    if (kernels == &lrf_kernels_avx2)
        return (features & LRF_HAS_AVX2) != 0;
#else
    (void)kernels;
#endif
    return 1;
}

/* What the self test says of known_kernels[i], which has to run here; asked once. */
static int is_right(size_t i)
{
    static _Atomic signed char verdicts[KNOWN]; /* 0: not asked yet */
    signed char verdict = atomic_load_explicit(&verdicts[i], memory_order_relaxed);

    if (!verdict) {
        verdict = lrf_gives_promised_bits(known_kernels[i]) ? 1 : -1;
        atomic_store_explicit(&verdicts[i], verdict, memory_order_relaxed);
    }
    return verdict > 0;
}

/* name NULL: the best. If there are none, *why_none is LRF_BAD_BUILD when some run, but give other bits. */
static const lrf_kernels *find_kernels(const char *name, lrf_status *why_none)
{
    *why_none = LRF_BAD_ISA;
    for (size_t i = 0; i < KNOWN; i++)
        if ((!name || strcmp(name, known_kernels[i]->name) == 0) && runs_here(known_kernels[i])) {
            if (is_right(i))
                return known_kernels[i];
            *why_none = LRF_BAD_BUILD;
        }
    return NULL;
}

const lrf_kernels *lrf_active_kernels(lrf_status *why_none)
{
    const lrf_kernels *kernels = atomic_load_explicit(&active_kernels, memory_order_relaxed);
    if (!kernels) {
        const char *name = getenv("LRFAST_ISA");
        kernels = find_kernels(name && *name ? name : NULL, why_none);
        atomic_store_explicit(&active_kernels, kernels, memory_order_relaxed);
    }
    return kernels;
}

const char *lrf_isa(void)
{
    lrf_status why_none;
    const lrf_kernels *kernels = lrf_active_kernels(&why_none);
    return kernels ? kernels->name : NULL;
}

const char *lrf_isa_name(size_t index)
{
    for (size_t i = 0; i < KNOWN; i++)
        if (runs_here(known_kernels[i]) && is_right(i) && index-- == 0)
            return known_kernels[i]->name;
    return NULL;
}

lrf_status lrf_set_isa(const char *name)
{
    lrf_status why_none;
    const lrf_kernels *kernels = find_kernels(name, &why_none);
    if (!kernels)
        return why_none;
    atomic_store_explicit(&active_kernels, kernels, memory_order_relaxed);
    return LRF_OK;
}

LRF_END_OF_SOURCE
