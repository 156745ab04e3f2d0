/* What the statistics of a tile are made of; included by typed.h. */

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

typedef struct LRF_TYPED(range) {
    integer least, largest;
} LRF_TYPED(range);

/* Of the bits of |x[i]|. */
LRF_KERNELS_TARGET static LRF_TYPED(range) LRF_TYPED(range_of)(const real *x, size_t n)
{
    integer least = LRF_MAGNITUDE_BITS, largest = 0;

    for (size_t i = 0; i < n; i++) {
        const integer size = size_of(x[i]);
        least = size < least ? size : least;
        largest = size > largest ? size : largest;
    }
    return (LRF_TYPED(range)){least, largest};
}

/* The largest |x[i]|; NaN if one is. */
LRF_KERNELS_TARGET static double LRF_TYPED(largest)(const void *buffer, size_t n)
{
    const real *const x = buffer;
    integer largest = 0;

    for (size_t i = 0; i < n; i++) {
        const integer size = size_of(x[i]);
        largest = size > largest ? size : largest;
    }
    return number_of(largest);
}

/* What most strips have none of: looked for only where the least or largest magnitude says that there is some. */
LRF_KERNELS_TARGET static void LRF_TYPED(count_rare)(lrf_slot *slot, const real *g, LRF_TYPED(range) grads, size_t n)
{
    const integer infinite = size_of((real)INFINITY);
    integer nan = 0, inf = 0, zero = 0;

    if (grads.least == 0 || grads.largest >= infinite)
        for (size_t i = 0; i < n; i++) {
            const integer size = size_of(g[i]);
            nan += size > infinite;
            inf += size == infinite;
            zero += size == 0;
        }
    slot->nan += (double)nan;
    slot->inf += (double)inf;
    slot->zero += (double)zero;
}

/* Bins of lr / d of up to LRF_SAMPLES elements of a tile, evenly spaced. */
LRF_KERNELS_TARGET static void LRF_TYPED(sample_rates)(lrf_slot *slot, const lrf_strip *strip, double rate)
{
    const real *const d = strip->denominator;
    const size_t stride = (strip->tile + LRF_SAMPLES - 1) / LRF_SAMPLES;

    for (size_t k = (strip->first + stride - 1) / stride; k * stride < strip->first + strip->n; k++) {
        const double x = rate / (double)d[k * stride - strip->first];
        uint64_t word;
        memcpy(&word, &x, sizeof word);
        const int bin = (int)(word >> 52 & 0x7ff) - 1023 - LRF_FIRST_RATE;
        slot->bins[k] = (uint8_t)(bin < 0 ? 0 : bin >= LRF_RATE_BINS ? LRF_RATE_BINS - 1 : bin);
    }
}

/* lr / d: how far eps dominates, where d is no number to divide by, the largest, and a sample. */
LRF_KERNELS_TARGET static void LRF_TYPED(gather_rates)(lrf_slot *slot, const lrf_strip *strip, double rate, real eps)
{
    const real *const d = strip->denominator, *const g = strip->g;
    const size_t n = strip->n;
    const LRF_TYPED(range) range = LRF_TYPED(range_of)(d, n);
    const integer infinite = size_of((real)INFINITY), least = range.least;
    integer eps_dominates = 0, dead = 0;

    if (range.largest >= infinite)
        for (size_t i = 0; i < n; i++) {
            const integer divided_by_infinity = size_of(d[i]) >= infinite, finite = size_of(g[i]) < infinite;
            dead += divided_by_infinity & finite;
        }
    slot->dead += (double)dead;

    if (number_of(least) < (double)(2 * eps))
        for (size_t i = 0; i < n; i++)
            eps_dominates += d[i] < 2 * eps;
    slot->eps_dominates += (double)eps_dominates;
    slot->rate_max = lrf_larger(slot->rate_max, rate / number_of(least < infinite ? least : infinite));
    LRF_TYPED(sample_rates)(slot, strip, rate);
}

/* The three norms: sums only. */
LRF_KERNELS_TARGET static void LRF_TYPED(gather_norms)(lrf_sums *sums, const lrf_strip *strip)
{
    LRF_TYPED(add_squares)(sums->grad_sq, strip->g, strip->n);
    LRF_TYPED(add_squares)(sums->param_sq, strip->before, strip->n);
    LRF_TYPED(add_squares)(sums->update_sq, strip->update, strip->n);
}

/* Everything. sign: of s relative to g. */
LRF_KERNELS_TARGET static void LRF_TYPED(gather)(lrf_slot *slot, lrf_sums *sums, const lrf_strip *strip, double rate,
                                                 double eps, double sign_number)
{
    const real *const g = strip->g, *const before = strip->before, *const u = strip->update, *const w = strip->last;
    const size_t n = strip->n;
    const real sign = (real)sign_number;
    const LRF_TYPED(range) grads = LRF_TYPED(range_of)(g, n);
    integer lost = 0, turned = 0;

    LRF_TYPED(add_five)(sums, g, before, u, w, n);
    slot->grad_max = lrf_larger(slot->grad_max, number_of(grads.largest));
    slot->update_max = lrf_larger(slot->update_max, number_of(LRF_TYPED(range_of)(u, n).largest));
    LRF_TYPED(count_rare)(slot, g, grads, n);
    for (size_t i = 0; i < n; i++) {
        const real s = sign * g[i];
        turned += ((s < 0) & (w[i] > 0)) | ((s > 0) & (w[i] < 0));
        lost += (u[i] != 0) & (before[i] - u[i] == before[i]);
    }
    slot->lost += (double)lost;
    slot->turned += (double)turned;
    LRF_TYPED(gather_rates)(slot, strip, rate, (real)eps);
}

#undef size_of
#undef number_of
