/* The one reduction: a tile of at most LRF_TILE elements goes into LRF_LANES sums in float64, element i into lane
 * i % LRF_LANES, and the lanes are folded by halves. The order depends on neither vector width nor threads. Each
 * tile has a slot of the caller's work memory; the phase adds the slots in index order. Included by typed.h. */

LRF_KERNELS_TARGET static inline double LRF_TYPED(fold)(double *lanes)
{
    for (size_t half = LRF_LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}

/* Adds x[i]^2, which in float64 is exact for float32. The first element goes into lane 0. LRF_BLOCK lanes at a time
 * stay in registers on every instruction set. */
LRF_KERNELS_TARGET static inline void LRF_TYPED(add_squares)(double *restrict sums, const real *restrict x, size_t n)
{
    const size_t whole = n - n % LRF_LANES;

    for (size_t first = 0; first < LRF_LANES; first += LRF_BLOCK) {
        double lanes[LRF_BLOCK];
        memcpy(lanes, sums + first, sizeof lanes);
        for (size_t i = first; i < whole; i += LRF_LANES) {
            LRF_DO_NOT_UNROLL
            for (size_t lane = 0; lane < LRF_BLOCK; lane++)
                lanes[lane] += (double)x[i + lane] * (double)x[i + lane];
        }
        memcpy(sums + first, lanes, sizeof lanes);
    }
    for (size_t lane = 0; lane < n - whole; lane++)
        sums[lane] += (double)x[whole + lane] * (double)x[whole + lane];
}

/* Adds g^2, p^2, u^2, g u and g w, in this order of sums. LRF_BLOCK lanes at a time, so that all five stay in registers
 * (1.5 to 2 times as fast as one after the other). */
LRF_KERNELS_TARGET static void LRF_TYPED(add_five)(lrf_sums *restrict sums, const real *restrict g,
                                                   const real *restrict p, const real *restrict u,
                                                   const real *restrict w, size_t n)
{
    const size_t whole = n - n % LRF_LANES;

    for (size_t first = 0; first < LRF_LANES; first += LRF_BLOCK) {
        double gg[LRF_BLOCK], pp[LRF_BLOCK], uu[LRF_BLOCK], gu[LRF_BLOCK], gw[LRF_BLOCK];
        memcpy(gg, sums->grad_sq + first, sizeof gg);
        memcpy(pp, sums->param_sq + first, sizeof pp);
        memcpy(uu, sums->update_sq + first, sizeof uu);
        memcpy(gu, sums->grad_update + first, sizeof gu);
        memcpy(gw, sums->grad_last + first, sizeof gw);
        for (size_t i = first; i < whole; i += LRF_LANES) {
            LRF_DO_NOT_UNROLL
            for (size_t lane = 0; lane < LRF_BLOCK; lane++) {
                const double gi = (double)g[i + lane], pi = (double)p[i + lane], ui = (double)u[i + lane];
                gg[lane] += gi * gi;
                pp[lane] += pi * pi;
                uu[lane] += ui * ui;
                gu[lane] += gi * ui;
                gw[lane] += gi * (double)w[i + lane];
            }
        }
        memcpy(sums->grad_sq + first, gg, sizeof gg);
        memcpy(sums->param_sq + first, pp, sizeof pp);
        memcpy(sums->update_sq + first, uu, sizeof uu);
        memcpy(sums->grad_update + first, gu, sizeof gu);
        memcpy(sums->grad_last + first, gw, sizeof gw);
    }
    for (size_t lane = 0; lane < n - whole; lane++) {
        const double gi = (double)g[whole + lane], pi = (double)p[whole + lane], ui = (double)u[whole + lane];
        sums->grad_sq[lane] += gi * gi;
        sums->param_sq[lane] += pi * pi;
        sums->update_sq[lane] += ui * ui;
        sums->grad_update[lane] += gi * ui;
        sums->grad_last[lane] += gi * (double)w[whole + lane];
    }
}

/* Sum of x[i]^2, n <= LRF_TILE: add_squares for a tile that comes from memory, where going through it once counts. */
LRF_KERNELS_TARGET static double LRF_TYPED(sum_squares)(const void *buffer, size_t n)
{
    const real *const x = buffer;
    const size_t whole = n - n % LRF_LANES;
    double lanes[LRF_LANES] = {0};

    for (size_t i = 0; i < whole; i += LRF_LANES) {
        LRF_DO_NOT_UNROLL
        for (size_t lane = 0; lane < LRF_LANES; lane++)
            lanes[lane] += (double)x[i + lane] * (double)x[i + lane];
    }
    for (size_t lane = 0; lane < n - whole; lane++)
        lanes[lane] += (double)x[whole + lane] * (double)x[whole + lane];
    return LRF_TYPED(fold)(lanes);
}

/* Sum of (unit x[i])^2 in the same order. unit: a power of two, with which squares neither overflow nor vanish. */
LRF_KERNELS_TARGET static double LRF_TYPED(sum_scaled_squares)(const void *buffer, size_t n, double unit)
{
    const real *const x = buffer;
    const size_t whole = n - n % LRF_LANES;
    double lanes[LRF_LANES] = {0};

    for (size_t i = 0; i < whole; i += LRF_LANES) {
        LRF_DO_NOT_UNROLL
        for (size_t lane = 0; lane < LRF_LANES; lane++)
            lanes[lane] += (unit * (double)x[i + lane]) * (unit * (double)x[i + lane]);
    }
    for (size_t lane = 0; lane < n - whole; lane++)
        lanes[lane] += (unit * (double)x[whole + lane]) * (unit * (double)x[whole + lane]);
    return LRF_TYPED(fold)(lanes);
}

/* Of a whole tile. */
LRF_KERNELS_TARGET static void LRF_TYPED(fold_sums)(lrf_slot *slot, lrf_sums *sums)
{
    slot->grad_sq = LRF_TYPED(fold)(sums->grad_sq);
    slot->param_sq = LRF_TYPED(fold)(sums->param_sq);
    slot->update_sq = LRF_TYPED(fold)(sums->update_sq);
    slot->grad_update = LRF_TYPED(fold)(sums->grad_update);
    slot->grad_last = LRF_TYPED(fold)(sums->grad_last);
}
