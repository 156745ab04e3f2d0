/* The one reduction: a tile of at most LRF_TILE elements goes into LRF_LANES sums in float64, element i into lane
 * i % LRF_LANES, and the lanes are folded by halves. The order depends on neither vector width nor threads. Each
 * tile has a slot of the caller's work memory; step.c adds the slots in index order. Included by loops.h. */

/* Squares of the gradient elements first .. first + n, n <= LRF_TILE. */
LRF_KERNELS_TARGET static double LRF_TYPED(sum_squares)(const lrf_tensor *tensor, size_t first, size_t n)
{
    const real *const g = at(tensor->grad, first);
    const size_t whole = n - n % LRF_LANES;
    double lanes[LRF_LANES] = {0};

    for (size_t i = 0; i < whole; i += LRF_LANES) {
        LRF_DO_NOT_UNROLL
        for (size_t lane = 0; lane < LRF_LANES; lane++)
            lanes[lane] += (double)g[i + lane] * (double)g[i + lane];
    }
    for (size_t lane = 0; lane < n - whole; lane++)
        lanes[lane] += (double)g[whole + lane] * (double)g[whole + lane];
    for (size_t half = LRF_LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}
