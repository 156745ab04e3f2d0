/* Formats of 16 bits: what a float32 becomes there, rounded to nearest even, and what a code is as float32, which is
 * exact. NaN is one code, positive and quiet. Included by kernels.h, once per instruction set, as there is only float32
 * to compute with. */

LRF_KERNELS_TARGET static inline uint32_t word_of(float x)
{
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

LRF_KERNELS_TARGET static inline float float_of(uint32_t word)
{
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
}

/* bfloat16: the upper half of a float32. */
LRF_KERNELS_TARGET static inline uint16_t to_bfloat16(float x)
{
    const uint32_t word = word_of(x), rounded = (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
    return (uint16_t)(x == x ? rounded : 0x7fc0u);
}

LRF_KERNELS_TARGET static inline float from_bfloat16(uint16_t code)
{
    return float_of((uint32_t)code << 16);
}

/* IEEE float16. Below its smallest normal number, 2^-14, adding 0.5 rounds to units of 2^-24, which are its denormals.
 */
LRF_KERNELS_TARGET static inline uint16_t to_float16(float x)
{
    const uint32_t half = 0x3f000000u, smallest_normal = 0x38800000u, overflow = 0x477ff000u; /* of float32 */
    const uint32_t word = word_of(x), size = word & 0x7fffffffu;
    const uint32_t denormal = word_of(fabsf(x) + 0.5f) - half;
    const uint32_t normal = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
    const uint32_t finite = size < smallest_normal ? denormal : normal;
    const uint32_t number = (word >> 16 & 0x8000u) | (size >= overflow ? 0x7c00u : finite);
    return (uint16_t)(x == x ? number : 0x7e00u);
}

/* The same in reverse: a denormal is what lies above 2^-14 where its fraction does, less 2^-14. */
LRF_KERNELS_TARGET static inline float from_float16(uint16_t code)
{
    const uint32_t smallest_normal = 0x38800000u, word = (uint32_t)code << 16, size = word & 0x7fff0000u;
    const uint32_t shifted = size >> 3, denormal = word_of(float_of(shifted + smallest_normal) - 0x1p-14f);
    const uint32_t normal = shifted + ((size < 0x7c000000u ? 112u : 224u) << 23);
    return float_of((word & 0x80000000u) | (size < 0x04000000u ? denormal : normal));
}

/* ---- tiles ------------------------------------------------------------------------------------------------- */

LRF_KERNELS_TARGET static void decode_bfloat16(float *restrict out, const uint16_t *restrict codes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = from_bfloat16(codes[i]);
}

LRF_KERNELS_TARGET static void decode_float16(float *restrict out, const uint16_t *restrict codes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = from_float16(codes[i]);
}

/* A master stays, but where its parameter is no longer what it rounds to: somebody has written that, and it becomes its
 * value. */
LRF_KERNELS_TARGET static void settle_bfloat16(float *restrict master, const uint16_t *restrict codes, size_t n)
{
    uint32_t different = 0;

    for (size_t i = 0; i < n; i++)
        different |= (uint32_t)(to_bfloat16(master[i]) ^ codes[i]);
    if (different == 0)
        return;
    for (size_t i = 0; i < n; i++)
        master[i] = to_bfloat16(master[i]) == codes[i] ? master[i] : from_bfloat16(codes[i]);
}

LRF_KERNELS_TARGET static void settle_float16(float *restrict master, const uint16_t *restrict codes, size_t n)
{
    uint32_t different = 0;

    for (size_t i = 0; i < n; i++)
        different |= (uint32_t)(to_float16(master[i]) ^ codes[i]);
    if (different == 0)
        return;
    for (size_t i = 0; i < n; i++)
        master[i] = to_float16(master[i]) == codes[i] ? master[i] : from_float16(codes[i]);
}

/* What a parameter would be without its decoupled decay. */
LRF_KERNELS_TARGET static void subtract(float *restrict out, const float *restrict p, const float *restrict u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = p[i] - u[i];
}

/* Elements whose update was lost: u is not 0, and yet what was stored of p - u is p again. */
LRF_KERNELS_TARGET static uint64_t count_lost(const float *p, const float *u, const float *stored, size_t n)
{
    int32_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += (u[i] != 0) & (stored[i] == p[i]);
    return (uint64_t)count;
}

/* A float32 in two halves: the bfloat16 nearest to it, at ties the one away from zero, and a remainder. Which of the
 * two numbers of 16 bits around it that was follows from the remainder alone. */
LRF_KERNELS_TARGET static void split(uint16_t *restrict upper, uint16_t *restrict remainder, const float *restrict x,
                                     size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t number = x[i] == x[i] ? word_of(x[i]) : 0x7fc00000u;
        upper[i] = (uint16_t)((number + 0x8000u) >> 16);
        remainder[i] = (uint16_t)number;
    }
}

LRF_KERNELS_TARGET static void join(float *restrict out, const uint16_t *restrict upper,
                                    const uint16_t *restrict remainder, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = float_of((((uint32_t)upper[i] - ((uint32_t)remainder[i] >> 15)) << 16) | remainder[i]);
}
