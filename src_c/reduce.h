/* The one reduction: a tile of at most LRF_TILE elements goes into LRF_LANES sums in float64, element i into lane
 * i % LRF_LANES, and the lanes are folded by halves. The order depends on neither vector width nor threads. Each
 * tile has a slot of the caller's work memory; sums.c adds the slots in index order. Included by loops.h. */

/* Sum of x[i] * y[i], which in float64 is exact for float32; x may be y. n <= LRF_TILE. */
LRF_KERNELS_TARGET static double LRF_TYPED(sum_products)(const void *x_buffer, const void *y_buffer, size_t n)
{
    const real *const x = x_buffer, *const y = y_buffer;
    const size_t whole = n - n % LRF_LANES;
    double lanes[LRF_LANES] = {0};

    for (size_t i = 0; i < whole; i += LRF_LANES) {
        LRF_DO_NOT_UNROLL
        for (size_t lane = 0; lane < LRF_LANES; lane++)
            lanes[lane] += (double)x[i + lane] * (double)y[i + lane];
    }
    for (size_t lane = 0; lane < n - whole; lane++)
        lanes[lane] += (double)x[whole + lane] * (double)y[whole + lane];
    for (size_t half = LRF_LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}
