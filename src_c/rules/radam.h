/* RAdam (Liu et al. 2020, arXiv:1908.03265): Adam that trusts its second moment only as far as its variance is known.
 *
 *     rho_inf = 2 / (1 - beta2) - 1,   rho = rho_inf - 2 t beta2^t / c2,   m, v, ci as in Adam
 *     rho > 5:    p = keep p - lr r sqrt(c2)/c1 m / (sqrt(v) + eps)
 *                 r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
 *     otherwise:  p = keep p - lr/c1 m
 *
 * Adam's loop with other scalars: in the second case per_root is 0 and its denominator 1. */
typedef LRF_TYPED(adam_scalars) LRF_TYPED(radam_scalars);

#ifdef LRF_COMPUTE
/* rho. Where beta2^t is near 1 its terms cancel; there it is their series in d = 1 - beta2 and y = -t ln(beta2). */
static double radam_length(double beta2, double c2, double t)
{
    const double d = 1 - beta2, y = t * d * (1 + d * (1. / 2 + d * (1. / 3 + d / 4)));

    if (y >= 0x1p-8)
        return 2 / d - 1 - 2 * t * (1 - c2) / c2;
    return t - t * y * (1. / 6 - y * y * (1. / 360 - y * y / 15120)) +
           d * (1. / 6 + d * (1. / 12 + d * (19. / 360 + d * (3. / 80))));
}

LRF_COMPUTE(radam)
{
    const double c2 = lrf_one_minus_power(group->beta2, t);
    const double rho_inf = 2 / (1 - group->beta2) - 1;
    const double rho = radam_length(group->beta2, c2, (double)t);

    adam_compute(k, group, t, carried);
    if (rho > 5) {
        const double r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
        k->lr *= r * sqrt(c2);
        k->per_root = 1;
        return group->lr * (r * sqrt(c2));
    }
    k->per_root = 0;
    k->eps = 1;
    return group->lr;
}
#else
LRF_UPDATE(radam, exp_avg, exp_avg_sq, no_state2, no_state3)
{
    LRF_CALL(adam, k, exp_avg, exp_avg_sq, no_state2, no_state3);
}
#endif
