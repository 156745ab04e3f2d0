/* RAdam (Liu et al. 2020, arXiv:1908.03265): Adam that trusts its second moment only as far as its variance is known.
 *
 *     rho_inf = 2 / (1 - beta2) - 1,   rho = rho_inf - 2 t beta2^t / c2,   m, v, ci as in Adam
 *     rho > 5:    p = keep p - lr r sqrt(c2)/c1 m / (sqrt(v) + eps)
 *                 r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
 *     otherwise:  p = keep p - lr/c1 m
 *
 * Adam's loop with other scalars: in the second case its denominator is sqrt(v) * 0 + 1. */
#ifdef LRF_SCALARS

static void radam_scalars(lrf_scalars *scalars, const lrf_group *group, uint64_t step)
{
    const double c2 = lrf_one_minus_power(group->beta2, step);
    const double rho_inf = 2 / (1 - group->beta2) - 1;
    const double rho = rho_inf - 2 * (double)step * (1 - c2) / c2;

    adam_scalars(scalars, group, step);
    if (rho > 5) {
        const double r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
        scalars->lr *= r * sqrt(c2);
        scalars->rate = group->lr * (r * sqrt(c2));
        scalars->correction2 = 1;
    } else {
        scalars->correction2 = 0;
        scalars->eps = 1;
    }
}

#else

LRF_UPDATE(radam, exp_avg, exp_avg_sq, no_state2)
{
    LRF_VARIANT(adam)(n, scalars, p, g, exp_avg, exp_avg_sq, no_state2, traced_update, traced_denominator, traced_last);
}

#endif
