/* Lion (Chen et al. 2023, arXiv:2302.06675): the sign of the momentum, into which the gradient enters with more weight
 * than into the momentum that is kept.
 *
 *     x = grad_scale g
 *     u = lr sign(beta1 m + (1 - beta1) x),   with the m before this update; sign keeps NaN
 *     m = beta2 m + (1 - beta2) x
 *     p = (1 - lr decoupled_weight_decay) p - u
 *
 * For statistics its denominator is 1: lr is the size of each step. */
typedef struct {
    real grad_scale;
    real beta1, one_minus_beta1;
    real beta2, one_minus_beta2;
    real lr;
    real keep; /* of the parameter: 1 - lr decoupled_weight_decay */
} LRF_TYPED(lion_scalars);

#ifdef LRF_COMPUTE
LRF_COMPUTE(lion)
{
    k->beta1 = group->beta1;
    k->one_minus_beta1 = 1 - group->beta1;
    k->beta2 = group->beta2;
    k->one_minus_beta2 = 1 - group->beta2;
    k->lr = group->lr;
    k->keep = 1 - group->lr * group->decoupled_weight_decay;
    return group->lr;
}
#else
LRF_UPDATE(lion, exp_avg, no_state1, no_state2, no_state3)
{
    for (size_t i = 0; i < n; i++) {
        const real x = k.grad_scale * g[i];
        const real u = k.lr * sign_of(k.beta1 * exp_avg[i] + k.one_minus_beta1 * x);
        LRF_TRACE(update, u);
        LRF_TRACE(denominator, 1);
        exp_avg[i] = flush(k.beta2 * exp_avg[i] + k.one_minus_beta2 * x);
        p[i] = k.keep * p[i] - u;
    }
}
#endif
