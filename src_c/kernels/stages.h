/* What else happens to a tile besides its update; included by typed.h. Buffers are of the element type unless they say
 * otherwise, and do not overlap. */

/* out = factor * g. */
LRF_KERNELS_TARGET static void LRF_TYPED(multiply)(void *restrict out_buffer, const void *restrict g_buffer, size_t n,
                                                   double factor_number)
{
    real *restrict const out = out_buffer;
    const real *restrict const g = g_buffer;
    const real factor = (real)factor_number;

    for (size_t i = 0; i < n; i++)
        out[i] = factor * g[i];
}

/* out = scale * g, limited to -bound .. bound; NaN stays. */
LRF_KERNELS_TARGET static void LRF_TYPED(clamp)(void *restrict out_buffer, const void *restrict g_buffer, size_t n,
                                                double scale_number, double bound_number)
{
    real *restrict const out = out_buffer;
    const real *restrict const g = g_buffer;
    const real scale = (real)scale_number, bound = (real)bound_number;

    for (size_t i = 0; i < n; i++) {
        const real x = scale * g[i];
        const real above = x < -bound ? -bound : x;
        out[i] = above > bound ? bound : above;
    }
}

/* How many of scale * g are NaN or infinite. */
LRF_KERNELS_TARGET static uint64_t LRF_TYPED(count_nonfinite)(const void *g_buffer, size_t n, double scale_number)
{
    const real *const g = g_buffer;
    const real scale = (real)scale_number;
    uint64_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += magnitude(scale * g[i]) <= LRF_LARGEST ? 0 : 1;
    return count;
}

/* How many were finite before and are infinite after. */
LRF_KERNELS_TARGET static uint64_t LRF_TYPED(count_overflowed)(const void *before_buffer, const void *after_buffer,
                                                               size_t n)
{
    const real *const before = before_buffer, *const after = after_buffer;
    integer count = 0;

    for (size_t i = 0; i < n; i++)
        count += (magnitude(before[i]) <= LRF_LARGEST) & (magnitude(after[i]) > LRF_LARGEST);
    return (uint64_t)count;
}

/* ema += weight (p - ema); with weight 1 it is p, whatever it was before. */
LRF_KERNELS_TARGET static void LRF_TYPED(average)(void *restrict ema_buffer, const void *restrict p_buffer, size_t n,
                                                  double weight_number)
{
    real *restrict const ema = ema_buffer;
    const real *restrict const p = p_buffer;
    const real weight = (real)weight_number;

    for (size_t i = 0; i < n; i++)
        ema[i] = weight == 1 ? p[i] : towards(ema[i], p[i], weight);
}

/* The same for a float64 average. */
LRF_KERNELS_TARGET static void LRF_TYPED(average_in_float64)(void *restrict ema_buffer, const void *restrict p_buffer,
                                                             size_t n, double weight)
{
    double *restrict const ema = ema_buffer;
    const real *restrict const p = p_buffer;

    for (size_t i = 0; i < n; i++)
        ema[i] = weight == 1 ? p[i] : towards_f64(ema[i], p[i], weight);
}

/* ---- copies, by way of float32, rounded to nearest even ------------------------------------------------------ */

LRF_KERNELS_TARGET static void LRF_TYPED(to_float32)(void *restrict out_buffer, const void *restrict p_buffer, size_t n)
{
    float *restrict const out = out_buffer;
    const real *restrict const p = p_buffer;

    for (size_t i = 0; i < n; i++)
        out[i] = (float)p[i];
}

LRF_KERNELS_TARGET static void LRF_TYPED(to_bfloat16)(void *restrict out_buffer, const void *restrict p_buffer,
                                                      size_t n)
{
    uint16_t *restrict const out = out_buffer;
    const real *restrict const p = p_buffer;

    for (size_t i = 0; i < n; i++)
        out[i] = to_bfloat16((float)p[i]);
}

LRF_KERNELS_TARGET static void LRF_TYPED(to_float16)(void *restrict out_buffer, const void *restrict p_buffer, size_t n)
{
    uint16_t *restrict const out = out_buffer;
    const real *restrict const p = p_buffer;

    for (size_t i = 0; i < n; i++)
        out[i] = to_float16((float)p[i]);
}
