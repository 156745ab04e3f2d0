/* ASGD (Polyak & Juditsky 1992; Bottou's form, which PyTorch has): gradient descent with a falling rate, and an average
 * of the parameters.
 *
 *     x    = grad_scale g + weight_decay p
 *     p    = (1 - lambd eta) p - eta x
 *     ax  += mu (p - ax)
 *     eta  = lr / (1 + lambd lr t)^alpha,   mu = 1 / max(1, t - t0),   for the next update
 *
 * Update 1 has eta = lr and mu = 1. eta and mu are carried from step to step. */
typedef struct {
    real grad_scale, weight_decay;
    real eta;
    real keep; /* of the parameter: 1 - lambd eta */
    real mu;
} LRF_TYPED(asgd_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(asgd)
{
    const double eta = t == 1 ? group->lr : carried[0];
    const double since = (double)t - group->t0;

    k->weight_decay = group->weight_decay;
    k->eta = eta;
    k->keep = 1 - group->lambd * eta;
    k->mu = t == 1 ? 1 : carried[1];
    carried[0] = group->lr / lrf_power(1 + group->lambd * group->lr * (double)t, group->alpha);
    carried[1] = 1 / (since > 1 ? since : 1);
    return eta;
}
#else
LRF_UPDATE(asgd, no_state0, no_state1, ax, no_state3)
{
    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i] + k.weight_decay * p[i];
        const real u = k.eta * x;
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, 1);
        p[i] = k.keep * p[i] - u;
        ax[i] = towards(ax[i], p[i], k.mu);
    }
}
#endif
