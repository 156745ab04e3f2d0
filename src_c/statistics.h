/* What the statistics of a tile are made of; included by loops.h. */

/* Bits of |x|, which are ordered like the numbers; above those of infinity for NaN. */
LRF_KERNELS_TARGET static inline integer LRF_TYPED(size_of)(real x)
{
    integer word;
    memcpy(&word, &x, sizeof word);
    return word & LRF_MAGNITUDE_BITS;
}

LRF_KERNELS_TARGET static inline double LRF_TYPED(number_of)(integer size)
{
    real x;
    memcpy(&x, &size, sizeof x);
    return (double)x;
}

#define size_of LRF_TYPED(size_of)
#define number_of LRF_TYPED(number_of)

LRF_KERNELS_TARGET static double LRF_TYPED(largest_magnitude)(const real *x, size_t n)
{
    integer largest = 0;

    for (size_t i = 0; i < n; i++) {
        const integer size = size_of(x[i]);
        largest = size > largest ? size : largest;
    }
    return number_of(largest);
}

/* Sums of squares and maxima. trace->update holds u, before the p of before the update. */
LRF_KERNELS_TARGET static void LRF_TYPED(gather_norms)(lrf_slot *slot, const void *g, const void *before,
                                                       const lrf_trace *trace, size_t n)
{
    slot->grad_sq = LRF_TYPED(sum_products)(g, g, n);
    slot->param_sq = LRF_TYPED(sum_products)(before, before, n);
    slot->update_sq = LRF_TYPED(sum_products)(trace->update, trace->update, n);
    slot->grad_max = LRF_TYPED(largest_magnitude)(g, n);
    slot->update_max = LRF_TYPED(largest_magnitude)(trace->update, n);
}

/* Bins of the effective rate of up to LRF_SAMPLES elements, evenly spaced; unused ones are LRF_NO_BIN. */
LRF_KERNELS_TARGET static void LRF_TYPED(sample_rates)(lrf_slot *slot, const real *denominator, size_t n, double rate)
{
    const size_t stride = (n + LRF_SAMPLES - 1) / LRF_SAMPLES;

    for (size_t k = 0; k < LRF_SAMPLES; k++) {
        slot->bins[k] = LRF_NO_BIN;
        if (k * stride < n) {
            const double x = rate / (double)denominator[k * stride];
            uint64_t word;
            memcpy(&word, &x, sizeof word);
            const int bin = (int)(word >> 52 & 0x7ff) - 1023 - LRF_FIRST_RATE;
            slot->bins[k] = (uint8_t)(bin < 0 ? 0 : bin >= LRF_RATE_BINS ? LRF_RATE_BINS - 1 : bin);
        }
    }
}

/* Everything else. sign: of the gradient (maximize); trace: u, denominators and the update before. */
LRF_KERNELS_TARGET static void LRF_TYPED(gather)(lrf_slot *slot, const void *g_buffer, const void *before_buffer,
                                                 const lrf_trace *trace, size_t n, const lrf_scalars *scalars,
                                                 double eps, double sign_number)
{
    const real *const g = g_buffer, *const before = before_buffer;
    const real *const u = trace->update, *const d = trace->denominator, *const w = trace->last;
    const real sign = (real)sign_number, twice_eps = 2 * (real)eps;
    const integer infinite = size_of((real)INFINITY);
    integer nan = 0, inf = 0, zero = 0, lost = 0, turned = 0, eps_dominates = 0, least = infinite;

    LRF_TYPED(gather_norms)(slot, g, before, trace, n);
    slot->grad_update = LRF_TYPED(sum_products)(g, u, n);
    slot->grad_last = LRF_TYPED(sum_products)(g, w, n);
    for (size_t i = 0; i < n; i++) {
        const integer size = size_of(g[i]);
        nan += size > infinite;
        inf += size == infinite;
        zero += size == 0;
    }
    for (size_t i = 0; i < n; i++) {
        const real s = sign * g[i];
        turned += ((s < 0) & (w[i] > 0)) | ((s > 0) & (w[i] < 0));
        lost += (u[i] != 0) & (before[i] - u[i] == before[i]);
    }
    for (size_t i = 0; i < n; i++) {
        const integer size = size_of(d[i]);
        least = size < least ? size : least;
        eps_dominates += d[i] < twice_eps;
    }
    slot->nan = (double)nan;
    slot->inf = (double)inf;
    slot->zero = (double)zero;
    slot->lost = (double)lost;
    slot->turned = (double)turned;
    slot->eps_dominates = (double)eps_dominates;
    slot->rate_max = scalars->rate / number_of(least);
    LRF_TYPED(sample_rates)(slot, d, n, scalars->rate);
}

#undef size_of
#undef number_of
