/* The one reduction: a tile of at most LRF_TILE elements goes into LRF_LANES sums in float64, element i into lane
 * i % LRF_LANES, and the lanes are folded by halves. The order depends on neither vector width nor threads. Each
 * tile has a slot of the caller's work memory; tail.c adds the slots in index order. Included by loops.h. */

LRF_KERNELS_TARGET static inline double LRF_TYPED(fold)(double *lanes)
{
    for (size_t half = LRF_LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}

/* Sum of x[i]^2, which in float64 is exact for float32. n <= LRF_TILE. */
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

/* The five sums of statistics at once: g^2, p^2, u^2, g u, g w. LRF_BLOCK lanes at a time, so that all five stay in
 * registers (1.5 to 2 times as fast as one after the other). n <= LRF_TILE. */
LRF_KERNELS_TARGET static void LRF_TYPED(sum_five)(lrf_slot *restrict slot, const real *restrict g,
                                                   const real *restrict p, const real *restrict u,
                                                   const real *restrict w, size_t n)
{
    const size_t whole = n - n % LRF_LANES;
    double sums[5][LRF_LANES] = {{0}};

    for (size_t first = 0; first < LRF_LANES; first += LRF_BLOCK) {
        double gg[LRF_BLOCK] = {0}, pp[LRF_BLOCK] = {0}, uu[LRF_BLOCK] = {0}, gu[LRF_BLOCK] = {0}, gw[LRF_BLOCK] = {0};
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
        memcpy(sums[0] + first, gg, sizeof gg);
        memcpy(sums[1] + first, pp, sizeof pp);
        memcpy(sums[2] + first, uu, sizeof uu);
        memcpy(sums[3] + first, gu, sizeof gu);
        memcpy(sums[4] + first, gw, sizeof gw);
    }
    for (size_t lane = 0; lane < n - whole; lane++) {
        const double gi = (double)g[whole + lane], pi = (double)p[whole + lane], ui = (double)u[whole + lane];
        sums[0][lane] += gi * gi;
        sums[1][lane] += pi * pi;
        sums[2][lane] += ui * ui;
        sums[3][lane] += gi * ui;
        sums[4][lane] += gi * (double)w[whole + lane];
    }
    slot->grad_sq = LRF_TYPED(fold)(sums[0]);
    slot->param_sq = LRF_TYPED(fold)(sums[1]);
    slot->update_sq = LRF_TYPED(fold)(sums[2]);
    slot->grad_update = LRF_TYPED(fold)(sums[3]);
    slot->grad_last = LRF_TYPED(fold)(sums[4]);
}
