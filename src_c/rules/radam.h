/* RAdam (Liu et al. 2020, arXiv:1908.03265): Adam that trusts its second moment only as far as its variance is known.
 *
 *     rho_inf = 2 / (1 - beta2) - 1,   rho = rho_inf - 2 t beta2^t / c2,   m, v, ci as in Adam
 *     rho > 5:    p = keep p - lr r sqrt(c2)/c1 m / (sqrt(v) + eps)
 *                 r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
 *     otherwise:  p = keep p - lr/c1 m
 *
 * Adam's loop with other scalars: in the second case its denominator is sqrt(v) * 0 + 1. */
typedef LRF_TYPED(adam_scalars) LRF_TYPED(radam_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(radam)
{
    const double c2 = lrf_one_minus_power(group->beta2, t);
    const double rho_inf = 2 / (1 - group->beta2) - 1;
    const double rho = rho_inf - 2 * (double)t * (1 - c2) / c2;

    adam_compute(k, group, t);
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
